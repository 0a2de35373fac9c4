"""The quickstart as its user runs it: real data, a subprocess, interrupted and started again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tyro

from minimind.data.catalogue import select
from minimind.data.fetch import is_cached
from minimind.errors import ConfigError
from minimind.quickstart.config import QuickstartConfig
from minimind.quickstart.stages import Quickstart

STAGES = ["data", "tokenizer", "plan", "pretrain", "sft", "preferences", "dpo", "evaluation"]


def start(out, *flags):
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "120"}
    return subprocess.Popen(
        [sys.executable, "-m", "minimind", "quickstart", "--out", str(out), *flags],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_a_quickstart_that_is_killed_and_interrupted_still_ends_in_a_report(tmp_path):
    out = tmp_path / "run"
    flags = ("--steps", "30", "--language", "en")
    metrics = out / "pretrain/metrics.jsonl"

    process = start(out, *flags)  # killed without warning in pretraining
    deadline = time.monotonic() + 400
    while not (metrics.exists() and metrics.read_text().count("\n") >= 1):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "pretraining never began"
        time.sleep(0.2)
    process.kill()
    process.wait()

    logged = metrics.stat().st_mtime_ns
    process = start(out, *flags)  # interrupted as by Ctrl-C: saves itself and says how to go on
    deadline = time.monotonic() + 400
    while metrics.stat().st_mtime_ns == logged:  # pretraining goes on
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "pretraining never went on"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 130, text
    assert "data: done earlier" in text

    process = start(out, *flags)
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text
    stages = json.loads((out / "stages.json").read_text())
    assert [stage["name"] for stage in stages["stages"]] == STAGES
    assert "chat with it: minimind chat" in " ".join(text.split())  # no terminal: no chat

    results = json.loads((out / "eval.json").read_text())["results"]

    def value(stage, measure):
        return results[stage][measure]["value"]

    assert value("pretrain", "bits_per_byte") < value("start", "bits_per_byte")
    assert value("sft", "answer_loss") < value("pretrain", "answer_loss")
    assert value("sft", "dpo_loss") == pytest.approx(0.6931, abs=1e-3)
    assert (out / "report.md").stat().st_size > 3_000
    assert "词元" in (out / "report.zh-CN.md").read_text()
    assert list(out.glob("report-*.svg"))
    again = start(out, *flags)
    text, _ = again.communicate(timeout=300)
    assert again.returncode == 0
    assert "evaluation: done earlier" in text


def test_other_settings_do_not_continue_a_quickstart(tmp_path):
    from rich.console import Console

    Quickstart(QuickstartConfig(out=tmp_path), Console(quiet=True))._check_same()
    other = Quickstart(QuickstartConfig(out=tmp_path, seed=7), Console(quiet=True))
    with pytest.raises(ConfigError, match=r"--seed 42, not 7.*--fresh"):
        other.run()


def test_wrong_minutes_are_refused():
    with pytest.raises(ConfigError, match="--minutes 0"):
        QuickstartConfig(minutes=0)


def test_the_embedded_sources_are_small():
    sources = select(["embedded"])
    assert len(sources) == 8
    assert all(isinstance(is_cached(source), bool) for source in sources)


def planned(out, *, minutes=10.0, taken=None):
    """A quickstart whose plan gave pretraining 300 s, and which took `taken` for it."""
    from rich.console import Console

    from minimind.eval.results import StageRecord, write_json

    quickstart = Quickstart(QuickstartConfig(out=out, minutes=minutes), Console(quiet=True))
    seconds = {"pretrain": 300.0, "sft": 80.0, "preferences": 40.0, "dpo": 30.0, "evaluation": 50.0}
    write_json(out / "plan.json", {"pretrain steps": 600, "sft steps": 160, "problems": 400,
                                   "micro-batch": {}, "seconds": seconds})  # fmt: skip
    write_json(out / "spent.json", {"data": 100.0, "pretrain": taken})
    record = StageRecord(name="pretrain", seconds=taken, steps=600)
    quickstart.stages = quickstart.stages.adding(record)
    return quickstart


def test_what_pretraining_took_too_much_the_later_stages_give_back(tmp_path):
    (tmp_path / "slow").mkdir()
    slow = planned(tmp_path / "slow", taken=400.0)  # 100 of the 200 s of the others are left
    plan = slow._catch_up()
    assert plan["caught up"] == pytest.approx(0.5)
    assert plan["seconds"]["sft"] == pytest.approx(40.0)
    assert plan["sft steps"] == 60  # 40 s at the 1.5 steps a second that pretraining really did
    assert plan["problems"] == 200
    assert slow._catch_up() == plan  # once: a stage that goes on keeps its length

    (tmp_path / "fast").mkdir()
    assert planned(tmp_path / "fast", taken=250.0)._catch_up()["seconds"]["sft"] == 100.0


def test_a_short_speedrun_leaves_evaluation_what_it_takes():
    from minimind.quickstart.config import LONG_SHARE, SHARE, speedrun_shares

    assert speedrun_shares(8) == SHARE
    assert sum(speedrun_shares(30).values()) == pytest.approx(1)
    for name, share in speedrun_shares(24 * 60).items():
        assert share == pytest.approx(LONG_SHARE[name], abs=0.01)


def test_the_report_gives_the_command_that_does_it_again(tmp_path):
    from minimind.cli import quickstart, speedrun

    short = QuickstartConfig(out=tmp_path, minutes=3.0).command
    assert short == (
        f"minimind quickstart --out {tmp_path} --model nano --sources embedded --vocab-size 6144 "
        "--seed 42 --minutes 3.0 --fresh"
    )
    long = QuickstartConfig(
        out=tmp_path, minutes=90.0, model="64m", sources="full", vocab_size=12_000, verb="speedrun"
    ).command
    assert "--budget 90m --without-gpu --fresh" in long
    for words, args in ((short, quickstart.Args), (long, speedrun.Args)):
        given = tyro.cli(args, args=words.split()[2:])
        assert (given.out, given.seed, given.fresh) == (tmp_path, 42, True)
