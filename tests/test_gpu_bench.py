"""`bench/gpu.py` runs where little is installed, and leaves what it has when its time is over."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.data.ledger import LedgerEntry, write_ledger
from minimind.settings import load_run_config
from minimind.settings.flags import apply_flags
from run_doubles import write_rows

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


def gpu(*flags: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(BENCH / "gpu.py"), *map(str, flags)],
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip


def run_item(number: str, out: Path, *flags: object) -> dict:
    # Time enough for a slow machine: what is asked here isn't how fast it is.
    ended = gpu(number, "--device", "cpu", "--small", "--minutes", 40, "--out", out, *flags)
    found = json.loads((out / f"item-{number}.json").read_text())
    assert ended.returncode == 0, (found["left_out"], ended.stderr[-3000:])
    assert found["rows"]
    return found


def broken(found: dict) -> list[str]:
    """What was left out because it raised; not what lacks a package, or a GPU."""
    return [what for what in found["left_out"] if "Error: " in what]


def asked(question: str, answer: str) -> dict:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": said, "source": "sums"}


def written(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """What `gpu.py prepare` makes of a small built folder."""
    folder = tmp_path_factory.mktemp("gpu") / "data"
    write_rows(folder / "pretrain" / "words.jsonl", "text", rows=6000)
    sums = [(a, b) for a in range(10, 40) for b in range(10, 40)]
    written(folder / "sft.jsonl", [asked(f"{a}加{b}？", f"答案：{a + b}") for a, b in sums[:600]])
    written(folder / "self.jsonl", [asked("你是谁？", "我是 MiniMind。")] * 3)
    written(folder / "problems.jsonl", [
        {"id": f"{a}+{b}", "prompt": f"{a}加{b}？", "solution": f"{a}+{b}={a + b}\n答案：{a + b}",
         "answer_value": a + b, "source": "sums"}
        for a, b in sums[600:]
    ])  # fmt: skip
    write_ledger(folder, [
        LedgerEntry(source=name, package="", version="", sha256="", licence="CC0-1.0", upstream="",
                    file=file, kind=kind, documents=600, bytes=1000, hanzi=300, templated=True)  # pyright: ignore[reportArgumentType]
        for name, file, kind in (("words", "pretrain/words.jsonl", "pretrain"),
                                 ("sums", "sft.jsonl", "sft"))
    ])  # fmt: skip
    archive = folder.parent / "prepared"
    ended = gpu("prepare", "--data", folder, "--out", archive)
    assert ended.returncode == 0, ended.stderr
    return archive


SLOW = pytest.mark.slow


@pytest.mark.parametrize("number", ["2", "7", pytest.param("6", marks=SLOW)])
def test_an_item_measures_on_a_cpu_and_nothing_in_it_breaks(number, tmp_path):
    assert broken(run_item(number, tmp_path)) == []


@pytest.mark.slow
def test_item_1_checks_and_finds_all_well(tmp_path):
    found = run_item("1", tmp_path)
    assert broken(found) == []
    assert {row["verdict"] for row in found["rows"]} == {"ok"}
    assert {"transformers, float32", "packed = apart, sdpa", "compiled = eager, plain"} <= {
        row["check"] for row in found["rows"]
    }


@pytest.mark.slow
def test_item_3_measures_each_system_that_is_installed_and_its_padding_does_not_count(tmp_path):
    found = run_item("3", tmp_path, "--models", "nano")
    # There are no 8-bit products on this machine, and torch's varlen attention is for CUDA.
    assert all("fp8" in what or "runs on CUDA only" in what for what in broken(found))
    systems = {row["system"]: row for row in found["rows"]}
    assert set(systems) >= {"minimind", "original", "transformers", "trainer"}
    real = {name: row["real tok/s"] / row["tok/s"] for name, row in systems.items()}
    assert real == pytest.approx(dict.fromkeys(real, 1.0) | {"original": 0.6})


@pytest.mark.slow
@pytest.mark.parametrize("number", ["5", "8"])
def test_the_arms_of_a_recipe_learn_on_what_was_prepared(number, prepared, tmp_path):
    found = run_item(number, tmp_path, "--data", prepared)
    assert broken(found) == []
    assert all(0 < row["bits_per_byte"] < 8 and row["steps"] >= 1 for row in found["rows"])


@pytest.mark.slow
def test_item_4_goes_the_whole_path_or_leaves_what_it_had_when_it_is_cut(prepared, tmp_path):
    ended = gpu("4", "--device", "cpu", "--small", "--minutes", "4", "--data", prepared, "--out",
                tmp_path)  # fmt: skip
    found = json.loads((tmp_path / "item-4.json").read_text())
    assert ended.returncode in (0, 3), (found["left_out"], ended.stderr[-3000:])
    assert (tmp_path / "run.tar.gz").exists()
    if ended.returncode == 0:
        assert broken(found) == []
        assert found["finished"]
        assert {row["stage"] for row in found["rows"]} >= {"pretrain", "sft", "dpo", "evaluation"}
        assert (tmp_path / "weights.tar.gz.0").exists()
