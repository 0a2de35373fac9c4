"""`bench/gpu.py` runs where little is installed, and leaves what it has when its time is over."""

import subprocess
import sys
from pathlib import Path

import pytest

from minimind.settings import load_run_config
from minimind.settings.flags import apply_flags

BENCH = Path(__file__).parent.parent / "bench"

FLAGS = {
    "nano": "--train.micro-batch-rows 64 --train.gradient-checkpointing none --model.vocab-size "
    "12000 --init.tokenizer a/tok --data.train a/pre --data.validation-share 0.01 "
    "--train.steps 14 --log.every 1 --log.validate-rows 16 --name .trial --out a --seed 42",
    "sft": "--init.checkpoint a/p --data.train a/a.jsonl a/b.jsonl --data.weights 0.9 0.1 "
    "--train.batch-rows 512 --train.steps 20 --name sft --out a",
    "dpo": "--init.checkpoint a/s --data.train a/p.jsonl --train.no-compile --name dpo --out a",
}  # fmt: skip


@pytest.mark.parametrize("preset", FLAGS)
def test_the_quickstarts_flags_mean_the_same_without_tyro(preset, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    from gpu_items import plain_flags

    config, flags = load_run_config([preset]), FLAGS[preset].split()
    assert plain_flags.apply_flags(config, flags) == apply_flags(config, flags)
    assert plain_flags.apply_flags(config, flags) != config


SCRIPT = """
import importlib.util, sys, threading, time
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tyro" else find(name, *rest)
sys.modules["tyro"] = None  # importing it fails
sys.path.insert(0, BENCH)
from gpu_items import ceilings

def run(context):
    from minimind.settings import load_run_config
    context.add({"what": load_run_config(["nano"], ["--seed", "7"]).seed})
    context.attempt("broken", 0, lambda: 1 / 0)
    clock, = (one for one in threading.enumerate() if isinstance(one, threading.Timer))
    assert 0 < clock.interval <= 10 * 60 + gpu.GRACE
    threading.Thread(target=clock.function, args=clock.args).start()
    time.sleep(600)

ceilings.run = run
sys.argv = ["gpu.py", "2", "--device", "cpu", "--small", "--minutes", "10", "--out", OUT]
import gpu
sys.exit(gpu.main())
"""


def test_an_item_works_without_tyro_and_the_clock_cuts_it_with_what_it_has(tmp_path):
    code = f"BENCH, OUT = {str(BENCH)!r}, {str(tmp_path)!r}\n{SCRIPT}"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert "left out: broken: ZeroDivisionError: division by zero" in ended.stdout
    assert "left out: what was running when the time was over" in ended.stdout
    assert '"what": 7' in (tmp_path / "item-2.json").read_text()
    assert "ZeroDivisionError" in (tmp_path / "item-2.log").read_text()
