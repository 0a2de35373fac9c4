"""A run that was killed and resumed is the run that was never killed, bit for bit."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from minimind import checkpoint
from minimind.config import LoraConfig, OptimConfig, SaveConfig
from minimind.errors import ConfigError, DataError
from minimind.train.metrics import read_metrics
from minimind.train.run import run
from minimind.train.signals import GracefulStop, Interrupted
from minimind.train.trainer import Trainer
from run_doubles import curve, following, run_directory, tiny_run, write_settings

PATIENCE = 300
# A small run would be over before a test that was not given a processor looks again, so it waits
# for what is done to it: at a step, or within a save.
WAITING = """
import os, sys, time
from pathlib import Path
from minimind.train.trainer import Trainer
usual_step, usual_fsync, reached, files = Trainer.train_step, os.fsync, 0, 0
def train_step(self, *arguments, **named):
    global reached
    reached = self.step + 1
    if reached > {last}:
        time.sleep(3600)
    return usual_step(self, *arguments, **named)
def fsync(file):
    global files
    if reached >= {saving} and any(Path({folder!r}).glob(".step-*")):
        files += 1
        if files >= {files}:
            time.sleep(3600)
    usual_fsync(file)
Trainer.train_step, os.fsync = train_step, fsync
"""
SIGNALLED = """
import os
from minimind.train.trainer import Trainer
usual_step = Trainer.train_step
def train_step(self, *arguments, **named):
    if self.step == 10:
        os.kill(os.getpid(), {number})
    return usual_step(self, *arguments, **named)
Trainer.train_step = train_step
"""
NEVER = 10**9


def start(settings: Path, *flags: str, before: str = "") -> subprocess.Popen:
    """Start `minimind train` in a process that runs `before` first."""
    code = f"{before}\nimport sys\nfrom minimind import cli\nsys.exit(cli.main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "train", str(settings), *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps_done(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    lines = read_metrics(path) if path.exists() else []
    return int(lines[-1]["step"]) if lines else 0


def is_saving(directory: Path) -> bool:
    return any((directory / "checkpoints").glob(".step-*"))


def kill_at(
    process: subprocess.Popen, directory: Path, *, step: int, while_saving: bool, delay: float
) -> bool:
    """Kill -9 once `step` is reached; return whether a half-written checkpoint was left."""
    deadline = time.monotonic() + PATIENCE
    while steps_done(directory) < step or (while_saving and not is_saving(directory)):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.communicate()
    return is_saving(directory)


def weights(directory: Path) -> bytes:
    return (checkpoint.resolve(directory) / "model.safetensors").read_bytes()


def test_a_kill_between_a_save_and_its_note_doesnt_cost_the_best(tmp_path):
    config = tiny_run(tmp_path, steps=6)
    run(config)
    directory = run_directory(config)
    expected, at = checkpoint.best_loss(directory), checkpoint.step_of(checkpoint.best(directory))
    assert at == 6
    checkpoint.record_best(directory, step=3, validation_loss=expected + 1)  # as it stood before
    run(config, resume=True)
    assert checkpoint.best(directory).name == "step-000006"
    assert checkpoint.best_loss(directory) == expected


def test_a_signal_just_after_a_step_was_taken_doesnt_cost_its_rows(tmp_path, monkeypatch):
    config = replace(tiny_run(tmp_path, steps=12), save=SaveConfig(every=0))
    run(config)
    expected, calls = curve(run_directory(config)), []

    @contextlib.contextmanager
    def late(stop, *, on):
        yield
        calls.append(on)
        if len(calls) == 6:
            stop.number = signal.SIGTERM
            raise Interrupted

    config = replace(config, name="stopped")
    with monkeypatch.context() as patched:
        patched.setattr(GracefulStop, "interruptible", late)
        run(config)
    assert steps_done(run_directory(config)) == 5
    run(config, resume=True)
    assert [line for line in curve(run_directory(config)) if "loss" in line] == [
        line for line in expected if "loss" in line
    ]


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_during_saves(kills, tmp_path):
    steps = 30 * kills
    config = replace(
        tiny_run(tmp_path, steps=steps), save=SaveConfig(every=5, keep_last=2, keep_best=True)
    )
    run(config)
    expected, unbroken = curve(run_directory(config)), run_directory(config)

    config = replace(config, name="killed")
    settings, killed = write_settings(config, tmp_path / "killed.toml"), run_directory(config)
    draw = random.Random(kills)
    half_written = 0
    for number in range(kills):
        step, saving = draw.randint(30 * number, 30 * number + 20), number % 2 == 0
        waiting = WAITING.format(
            last=NEVER if saving else step + 8, saving=step if saving else NEVER,
            folder=str(killed / "checkpoints"), files=draw.randint(1, 4),
        )  # fmt: skip
        process = start(settings, "--resume", before=waiting)
        delay = draw.random() * 0.05
        half_written += kill_at(process, killed, step=step, while_saving=saving, delay=delay)
        assert process.returncode == -signal.SIGKILL
    assert steps_done(killed) < steps
    assert half_written >= kills // 2
    process = start(settings, "--resume")
    _, errors = process.communicate()
    assert process.returncode == 0, errors

    assert curve(killed) == expected
    assert weights(killed) == weights(unbroken)
    assert not is_saving(killed)
    assert checkpoint.best(killed).name == checkpoint.best(unbroken).name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_resume_goes_on_from_that_very_step(number, tmp_path):
    config = replace(tiny_run(tmp_path, steps=60), save=SaveConfig(every=0))
    run(config)
    expected = curve(run_directory(config))

    config = replace(config, name="stopped")
    settings, stopped = write_settings(config, tmp_path / "stopped.toml"), run_directory(config)
    process = start(settings, before=SIGNALLED.format(number=int(number)))
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    saved = checkpoint.list_checkpoints(stopped)[-1]
    assert checkpoint.step_of(saved) == steps_done(stopped) == 11
    result = run(config, resume=True)
    assert result.stopped_by is None
    # The stop made a validation of its own, after its last step: a line more, no other number.
    assert [line for line in curve(stopped) if "loss" in line] == [
        line for line in expected if "loss" in line
    ]
    assert weights(stopped) == weights(run_directory(replace(config, name="run")))


def test_a_resume_between_two_lines_writes_the_next_as_if_nothing_had_been(tmp_path, monkeypatch):
    config = tiny_run(tmp_path, steps=24)
    config = replace(config, log=replace(config.log, every=5), save=SaveConfig(every=7))
    run(config)
    expected, directory = curve(run_directory(config)), run_directory(config)
    for saved in checkpoint.list_checkpoints(directory):
        if checkpoint.step_of(saved) > 7:
            shutil.rmtree(saved)
    run(config, resume=True)
    assert curve(directory) == expected

    config, usual = replace(config, name="stopped"), Trainer.train_step
    with monkeypatch.context() as patched:  # a signal in the 13th step: it ends with a line

        def train_step(self, *arguments, **named):
            if self.step == 12:
                os.kill(os.getpid(), signal.SIGTERM)
            return usual(self, *arguments, **named)

        patched.setattr(Trainer, "train_step", train_step)
        assert run(config).stopped_by == signal.SIGTERM
    run(config, resume=True)
    found = [line for line in curve(run_directory(config)) if "loss" in line]
    steps = [int(line["step"]) for line in found]
    assert steps == [5, 10, 13, 15, 20, 24]
    assert [line for line in found if line["step"] != 13] == [
        line for line in expected if "loss" in line
    ]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    config = tiny_run(tmp_path_factory.mktemp("pretrained"), steps=4)
    run(config)
    return config


def stages(pretrained):
    adamw = OptimConfig(kind="adamw", lr=1e-3)
    sft = following(pretrained, kind="chat", name="sft")
    dropout = LoraConfig(rank=4, dropout=0.2)
    return {
        "chat": sft,
        "lora": replace(sft, name="lora", lora=dropout, optim=adamw),
        "dpo": replace(
            following(pretrained, kind="preference", name="dpo"),
            objective=replace(sft.objective, kind="dpo"),
            optim=adamw,
        ),
    }


@pytest.mark.parametrize("stage", ["chat", "lora", "dpo"])
def test_every_stage_resumes_exactly(stage, pretrained):
    config = stages(pretrained)[stage]
    directory = run_directory(config)
    run(config)
    expected, newest = curve(directory), checkpoint.resolve(directory)
    files = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    # What a kill between step 4 and step 8 would have left, with lines of the lost steps:
    for path in checkpoint.list_checkpoints(directory)[1:]:
        shutil.rmtree(path)
    (directory / "checkpoints/best.json").unlink(missing_ok=True)
    run(config, resume=True)
    assert curve(directory) == expected
    for name, content in files.items():
        assert (newest / name).read_bytes() == content


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
    config = tiny_run(tmp_path)
    directory = run_directory(config)
    run(config)
    expected, newest = curve(directory), checkpoint.resolve(directory)
    state = newest / "trainer_state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.warns(checkpoint.DamagedCheckpointWarning, match=f"{state} is truncated"):
        run(config, resume=True)
    assert curve(directory) == expected
    checkpoint.resolve(directory, trainer_state=True)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    config = tiny_run(tmp_path)
    run(config)
    expected = curve(run_directory(config))
    shutil.rmtree(run_directory(config) / "checkpoints")
    run(config, resume=True)
    assert curve(run_directory(config)) == expected


def test_a_complete_run_has_nothing_left_to_do_and_a_longer_one_goes_on(tmp_path):
    config = tiny_run(tmp_path)
    run(config)
    expected = curve(run_directory(config))
    assert run(config, resume=True).last is None
    assert curve(run_directory(config)) == expected
    longer = replace(config, train=replace(config.train, steps=16))
    assert run(longer, resume=True).last.step == 16
    assert curve(run_directory(config))[: len(expected)] == expected


def test_samples_past_the_checkpoint_are_cut(tmp_path):
    config = tiny_run(tmp_path)
    config = replace(config, log=replace(config.log, sample_every=4, prompts=("春", "山水")))
    directory = run_directory(config)
    run(config)
    expected = (directory / "samples.txt").read_text(encoding="utf-8")
    assert expected.count("## step") == 3
    shutil.rmtree(checkpoint.resolve(directory))
    run(config, resume=True)
    assert (directory / "samples.txt").read_text(encoding="utf-8") == expected


def test_other_settings_are_listed_and_refused(tmp_path):
    config = tiny_run(tmp_path)
    run(config)
    other = replace(config, seed=1, optim=replace(config.optim, lr=0.5))
    with pytest.raises(ConfigError) as raised:
        run(other, resume=True)
    message = str(raised.value)
    assert "optim.lr: was 0.003, now 0.5" in message
    assert "seed: was 42, now 1" in message
    assert "run.toml --resume" in message
    free = replace(config, save=SaveConfig(every=7), log=replace(config.log, every=3))
    run(free, resume=True)


def test_other_data_is_refused(tmp_path):
    config = tiny_run(tmp_path)
    run(config)
    data = Path(config.data.train[0])
    text = data.read_text(encoding="utf-8")
    data.write_text(text.replace("春", "秋"), encoding="utf-8")  # as many bytes as before
    with pytest.raises(DataError, match=rf"{data} changed since the run began"):
        run(config, resume=True)


def test_resume_takes_the_start_that_the_run_began_with(pretrained):
    """`init.checkpoint` may be a run that went on meanwhile: its newest is another one now."""
    longer = replace(pretrained, name="base", train=replace(pretrained.train, steps=8))
    run(longer)
    config = replace(
        following(longer, kind="preference", name="pinned"),
        objective=replace(longer.objective, kind="dpo"),
    )
    run(config)
    expected = curve(run_directory(config))
    run(replace(longer, train=replace(longer.train, steps=12)), resume=True)
    shutil.rmtree(checkpoint.resolve(run_directory(config)))
    run(config, resume=True)
    assert curve(run_directory(config)) == expected
