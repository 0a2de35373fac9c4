"""The quickstart as its user runs it: real data, a subprocess, interrupted and started again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

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

    process = start(out, *flags)  # interrupted as by Ctrl-C: saves itself and says how to go on
    time.sleep(20)
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
    text, _ = again.communicate(timeout=120)
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
