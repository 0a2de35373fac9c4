"""`train.minutes`: the run's own rate says how many steps fit, until the rates fall."""

import itertools
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from minimind import checkpoint
from minimind.config import OptimConfig, TrainConfig
from minimind.errors import ConfigError
from minimind.settings import load_run_config
from minimind.train import pace
from minimind.train.pace import check_pace
from minimind.train.run import run
from minimind.train.schedule import build_schedule, first_falling_step
from run_doubles import curve, run_directory, tiny_run


def set_clock(monkeypatch, *, seconds_of):
    """Let the clock move `seconds_of(step)` a step, whatever this machine does."""
    now = itertools.accumulate((seconds_of(n) for n in itertools.count()), initial=time.monotonic())
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: next(now)))


def by_the_clock(where, monkeypatch, *, minutes, guess, seconds_of):
    config = tiny_run(where, steps=guess)
    config = replace(
        config,
        train=replace(config.train, minutes=minutes),
        optim=replace(config.optim, schedule="wsd", decay_share=0.4, warmup_share=0.05),
        log=replace(config.log, validate_every=0, every=1),
    )
    set_clock(monkeypatch, seconds_of=seconds_of)  # last: what comes before takes real seconds
    run(config, console=Console(quiet=True))
    lines = [line for line in curve(run_directory(config)) if "loss" in line]
    return config, lines


@pytest.mark.parametrize("guess", [40, 300])
def test_a_wrong_guess_of_the_length_is_put_right(tmp_path, monkeypatch, guess):
    config, lines = by_the_clock(
        tmp_path, monkeypatch, minutes=100 / 60, guess=guess, seconds_of=lambda n: 1.0
    )
    # A second a step, and what starting took on the real clock.
    assert 80 <= len(lines) <= 105
    stored = load_run_config([str(run_directory(config) / "run.toml")])
    assert stored.train.steps == len(lines)
    peak = max(line["lr"] for line in lines)
    wanted = build_schedule(config.optim, steps=len(lines))
    for line in lines[60:]:
        assert line["lr"] == pytest.approx(peak * wanted(line["step"] - 1))
    # It is over: to go on is to do nothing, though the guess was another.
    assert run(config, resume=True).last is None


def test_a_machine_that_slows_down_takes_fewer_steps(tmp_path, monkeypatch):
    _, lines = by_the_clock(
        tmp_path, monkeypatch, minutes=100 / 60, guess=100,
        seconds_of=lambda n: 1.0 if n < 30 else 1.5,
    )  # fmt: skip
    # 30 s for 30 steps, then 70 s at 1.5: 46. The mean rate lags behind: a little over its time.
    assert 65 <= len(lines) <= 88


def test_once_the_rates_fall_the_length_stays(tmp_path, monkeypatch):
    _, lines = by_the_clock(
        tmp_path, monkeypatch, minutes=100 / 60, guess=100,
        seconds_of=lambda n: 1.0 if n < 75 else 5.0,
    )  # fmt: skip
    assert 85 <= len(lines) <= 105


class KilledError(BaseException):
    """What nothing catches."""


def test_a_resumed_run_counts_what_a_killed_one_used(tmp_path, monkeypatch):
    def killed_at_50(n):
        if n == 50:
            raise KilledError
        return 1.0

    with pytest.raises(KilledError):
        by_the_clock(tmp_path, monkeypatch, minutes=100 / 60, guess=300, seconds_of=killed_at_50)
    directory = run_directory(tiny_run(tmp_path))
    used = json.loads((directory / "clock.json").read_text())["seconds"]
    assert used >= 45  # a second a step and the start, but for the last five
    saved = checkpoint.resolve(directory, trainer_state=True)
    done = int(saved.name.removeprefix("step-"))
    assert 0 < done < 50
    set_clock(monkeypatch, seconds_of=lambda n: 1.0)
    run(load_run_config([str(directory / "run.toml")]), resume=True)
    lines = [line for line in curve(directory) if "loss" in line]
    left = 100 - used
    assert done + 12 <= len(lines) <= done + max(12, left + 5)  # what the kill undid is not given
    assert json.loads((directory / "clock.json").read_text())["seconds"] <= 110


@pytest.mark.parametrize(
    ("schedule", "step"), [("wsd", 60), ("constant", 100), ("cosine", 10)]
)  # fmt: skip
def test_where_the_rates_begin_to_fall(schedule, step):
    optim = OptimConfig(schedule=schedule, decay_share=0.4, warmup_share=0.1)
    assert first_falling_step(optim, steps=100) == step
    factor = build_schedule(optim, steps=100)
    assert factor(step - 1) == pytest.approx(1.0)
    if step < 100:
        assert factor(step + 1) < 1


def test_minutes_of_several_processes_are_refused(tmp_path):
    config = tiny_run(tmp_path)
    timed = replace(config, train=replace(config.train, minutes=2.5))
    check_pace(timed, processes=1)
    check_pace(config, processes=4)
    with pytest.raises(
        ConfigError, match=r"train\.minutes = 2\.5 with 4 processes.*--train\.steps"
    ):
        check_pace(timed, processes=4)


def test_no_minutes_at_all_are_refused():
    with pytest.raises(ConfigError, match=r"train\.minutes = 0"):
        TrainConfig(minutes=0)


def test_minutes_alone_say_how_long(tmp_path):
    config = tiny_run(tmp_path)
    config = replace(config, train=replace(config.train, steps=None, minutes=0.05))
    started = time.monotonic()
    run(config)
    assert time.monotonic() - started < 60  # three seconds and the start
    stored = load_run_config([str(run_directory(config) / "run.toml")])
    assert stored.train.minutes == 0.05
