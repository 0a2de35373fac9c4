"""`minimind speedrun` as its user runs it, with a model that trains in seconds."""

import json
import random
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro
from rich.console import Console

from doubles import byte_tokenizer
from minimind.cli import main
from minimind.cli.speedrun import Args
from minimind.data.ledger import LedgerEntry, write_ledger
from minimind.errors import ConfigError
from minimind.eval.results import read_json
from minimind.quickstart.config import QuickstartConfig
from minimind.quickstart.stages import Quickstart
from minimind.quickstart.text import check_text, data_flags
from minimind.quickstart.trial import slow_rate
from minimind.settings import load_run_config
from run_doubles import WORDS, write_rows

SHAPE = """
[model]
vocab_size = 272
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
intermediate_size = 64
max_position_embeddings = 512

[data]
sequence_length = 64

[optim]
lr = 2e-2
muon_lr = 0.05

[train]
batch_rows = 16
micro_batch_rows = 8
"""
STAGES = ["data", "tokenizer", "plan", "pretrain", "sft", "preferences", "dpo", "evaluation"]


@pytest.fixture
def eager(monkeypatch):
    """A machine without a GPU and without a compiler: compiling would be most of the time."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for module in ("train.run", "quickstart.trial"):
        monkeypatch.setattr(f"minimind.{module}.cpp_compiler", lambda: (None, ["c++"]))


def written(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def built(folder: Path) -> Path:
    """A folder as `minimind data build` writes it; the answers are easily learnt, and wrong."""
    draw = random.Random(3)
    (folder / "pretrain").mkdir(parents=True)
    lines = ["".join(draw.choices(WORDS, k=draw.randint(3, 9))) + str(n) for n in range(400)]
    written(folder / "pretrain/words.jsonl", [{"text": line} for line in lines])

    def asked(question: str, answer: str) -> dict:
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": said, "source": "sums"}

    sums = [(a, b) for a in range(10, 34) for b in range(10, 34)]
    draw.shuffle(sums)
    written(folder / "sft.jsonl", [asked(f"{a}+{b}=?", "答案：7") for a, b in sums[:400]])
    written(folder / "self.jsonl", [asked("你是谁？", "我是7。")] * 3)
    written(folder / "problems.jsonl", [
        {"id": f"{a}+{b}", "prompt": f"{a}+{b}=?", "solution": f"{a}+{b}={a + b}\n答案：{a + b}",
         "answer_value": a + b, "source": "sums"}
        for a, b in sums[400:460]
    ])  # fmt: skip
    write_ledger(folder, [
        LedgerEntry(source=name, package="", version="", sha256="", licence="CC0-1.0", upstream="",
                    file=file, kind=kind, documents=400, bytes=1000, hanzi=300, templated=True)
        for name, file, kind in (("words", "pretrain/words.jsonl", "pretrain"),
                                 ("sums", "sft.jsonl", "sft"))
    ])  # fmt: skip
    return folder


@pytest.fixture
def given(tmp_path) -> list[str]:
    """The flags of a run from a folder of data, a tokenizer and a model of the user's own."""
    (tmp_path / "tiny.toml").write_text(SHAPE)
    (tmp_path / "tokenizer").mkdir()
    byte_tokenizer().save(tmp_path / "tokenizer")
    return ["--data", str(built(tmp_path / "built")), "--tokenizer", str(tmp_path / "tokenizer"),
            "--model", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run"),
            "--without-gpu", "--language", "en"]  # fmt: skip


def whole_run(out: Path, capsys) -> tuple[dict, str]:
    """Check that every stage was done and measured; return stages.json and what was said."""
    said = capsys.readouterr().out
    stages = read_json(out / "stages.json")
    assert [stage["name"] for stage in stages["stages"]] == STAGES, said
    results = read_json(out / "eval.json")["results"]
    for stage, measure in (("pretrain", "bits_per_byte"), ("sft", "answer_loss")):
        before = "start" if stage == "pretrain" else "pretrain"
        assert results[stage][measure]["value"] < results[before][measure]["value"]
    assert results["dpo"]["preference_accuracy"]["n"] > 0
    assert "chat with it: minimind chat" in said
    return {stage["name"]: stage for stage in stages["stages"]}, said


def test_a_speedrun_of_forty_steps_goes_the_whole_path(given, tmp_path, eager, capsys, monkeypatch):
    assert main(["speedrun", *given, "--steps", "40"]) in (0, None)
    stages, said = whole_run(tmp_path / "run", capsys)
    assert stages["tokenizer"]["details"]["vocabulary"] == byte_tokenizer().vocab_size
    assert stages["pretrain"]["steps"] == 40
    (read,) = stages["pretrain"]["read"]
    assert read["how"] == "counted"
    assert read["passes"] == pytest.approx(40 * 16 * 64 / read["unique tokens"], abs=0.01)
    assert "pretrain: more than 4 passes" in " ".join(said.split())
    assert "--text YOUR.jsonl" in said
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    from gpu_items import common, real_run

    item = common.Context(
        number="4", name="run", device="cpu", small=True, out=tmp_path, data=None, models=None,
        until=0.0,
    )  # fmt: skip
    real_run.read_rows(item, tmp_path / "run")
    row = {row["stage"]: row for row in item.rows}["pretrain"]
    assert (row["unique tokens"], row["passes"]) == (read["unique tokens"], read["passes"])
    assert any("pretrain: " in remark and "passes" in remark for remark in item.remarks)
    for page, warning in (("report.md", "passes over the same text"), ("report.zh-CN.md", "遍。")):
        text = (tmp_path / "run" / page).read_text(encoding="utf-8")
        assert f"**{read['passes']:,.1f}**" in text
        assert warning in text


@pytest.mark.slow  # the clock decides its length
def test_a_budget_of_a_minute_is_divided_by_the_measured_rate(given, tmp_path, eager, capsys):
    own = write_rows(tmp_path / "own.jsonl", "text", rows=300)
    flags = [*given, "--budget", "1m", "--text", str(own)]
    assert main(["speedrun", *flags]) in (0, None)
    stages, said = whole_run(tmp_path / "run", capsys)
    plan = read_json(tmp_path / "run/plan.json")
    assert plan["tokens per second"] > 0
    assert stages["sft"]["read"][0]["passes"] <= 4  # what is left of its time goes to pretraining
    assert {Path(part["what"]).name for part in stages["pretrain"]["read"]} == {
        "pretrain", "own.jsonl"
    }  # fmt: skip
    notes = read_json(tmp_path / "run/eval.json")["results"]["zstd"]["bits_per_byte"]["note"]
    assert "not that of --text" in notes
    assert "seconds taken of those planned" in said
    assert main(["speedrun", *flags]) in (0, None)  # again: all is done
    assert "evaluation: done earlier" in capsys.readouterr().out
    assert main(["speedrun", *given, "--budget", "1m"]) == 2  # other text is another run
    said = " ".join(capsys.readouterr().err.split())
    assert f"with --text {own}, not without it" in said


def begun(given: list[str], **changes) -> Quickstart:
    """A speedrun of which data and tokenizer are done."""
    flags = dict(zip(given[::2], given[1::2], strict=False))
    config = QuickstartConfig(
        out=Path(flags["--out"]), model=flags["--model"], data=Path(flags["--data"]),
        tokenizer=flags["--tokenizer"], vocab_size=272, language="en", verb="speedrun", **changes,
    )  # fmt: skip
    run = Quickstart(config, Console(width=400))
    run._check_same()
    run._data()
    run._tokenizer()
    return run


def test_planning_on_a_slow_device_times_micro_batches(given, eager, monkeypatch, capsys):
    """Its matrix rate foretells that fourteen steps would take more than a twentieth of it."""
    slow = {"fp32": 1e6, "bf16": 1e6}  # FLOP/s
    monkeypatch.setattr("minimind.quickstart.trial.matrix_rates", lambda *_, **__: slow)
    monkeypatch.setattr("minimind.quickstart.trial.SLOW_SHARE", 1e-4)
    run = begun(given, minutes=10.0)
    monkeypatch.setattr(run, "_timed_steps", lambda flags: pytest.fail("real steps were timed"))
    run._plan()
    assert "a step of 16 rows takes long here" in capsys.readouterr().out
    plan = read_json(run.out / "plan.json")
    step = 16 * 64 / plan["tokens per second"]
    fitting = plan["seconds"]["pretrain"] / step
    assert plan["pretrain steps"] == pytest.approx(max(20, fitting), rel=0.05)
    assert plan["sft steps"] <= 4 * 14336 / 0.9 / (2 * 512)  # 4 passes over sft.jsonl


@pytest.mark.parametrize(("flops", "slow"), [(450e9, True), (100e12, False)])
def test_a_device_is_slow_where_real_steps_take_a_twentieth_of_the_minutes(
    flops, slow, monkeypatch
):
    """64m in two hours: two CPU cores in bf16 (docs/LOG.md), and a card's usual rate."""
    asked = []

    def timed(config, *, seconds, rates):
        asked.append(seconds)
        return SimpleNamespace(tokens_per_second=744.0)

    rates = {"fp32": flops, "bf16": flops}
    monkeypatch.setattr("minimind.quickstart.trial.matrix_rates", lambda *_, **__: rates)
    monkeypatch.setattr("minimind.quickstart.trial.time_training", timed)
    rate = slow_rate(load_run_config(["pretrain", "64m"]), minutes=120)
    assert rate == (744.0 if slow else None)
    assert asked == ([pytest.approx(144)] if slow else [])


def test_what_fits_no_minutes_is_refused_before_they_are_spent(given, eager, monkeypatch):
    run = begun(given, minutes=120.0)
    monkeypatch.setattr(run, "_measured", lambda split: (744.0, 352.0))  # 64m on two CPU cores
    with pytest.raises(ConfigError, match=r"744 tokens a second.*176 minutes.*--budget.*--model"):
        run._plan()
    assert not (run.out / "plan.json").exists()  # with a longer budget it goes on here


def flags_of(text, **changes) -> list[str]:
    config = QuickstartConfig(text=tuple(map(str, text)), **changes)
    return list(map(str, data_flags(config, Path("built"))))


def test_own_text_is_mixed_in_by_size_or_by_a_share(tmp_path):
    small = write_rows(tmp_path / "small.jsonl", "text", rows=100)
    large = write_rows(tmp_path / "large.jsonl", "text", rows=300)
    assert flags_of([]) == ["--data.train", "built"]
    by_size = ["--data.train", "built", str(small), str(large)]
    assert flags_of([small, large]) == by_size
    words = flags_of([small, large], text_share=0.6)
    assert words[:5] == [*by_size, "--data.weights"]
    weights = list(map(float, words[5:]))
    assert sum(weights) == pytest.approx(1)
    assert weights[0] == 0.4
    sizes = small.stat().st_size, large.stat().st_size
    assert weights[1] / weights[2] == pytest.approx(sizes[0] / sizes[1])
    alone = flags_of([small], text_share=1.0, accept_licences=("research only",))
    assert alone == ["--data.train", str(small), "--data.weights", "1.0",
                     "--data.accept-licences", "research only"]  # fmt: skip
    run = load_run_config(["pretrain", "nano"], alone)
    assert (run.data.train, run.data.accept_licences) == ((str(small),), ("research only",))


def test_text_of_unknown_size_gets_nine_tenths(monkeypatch):
    monkeypatch.setattr("minimind.quickstart.text.text_size", lambda name, config: 0)
    words = flags_of(["hub:fineweb-edu-zh"])
    assert words[:3] == ["--data.train", "built", "hub:fineweb-edu-zh"]
    assert list(map(float, words[4:])) == pytest.approx([0.1, 0.9])
    words = flags_of(["hub:a/b", "hub:c/d"], text_share=1.0)
    assert words == ["--data.train", "hub:a/b", "hub:c/d", "--data.weights", "0.5", "0.5"]


def test_text_that_is_not_there_is_refused_before_anything_is_built(given, tmp_path, eager, capsys):
    assert main(["speedrun", *given, "--text", str(tmp_path / "mine.jsonl")]) == 2
    assert "mine.jsonl is not there" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run/data").exists()
    assert main(["speedrun", *given, "--text-share", "0.5"]) == 2
    assert "--text-share 0.5: above 0, at most 1, and only with --text" in capsys.readouterr().err


def test_a_licence_that_is_not_open_names_speedruns_own_flag():
    config = QuickstartConfig(text=("hub:skypile",))
    with pytest.raises(ConfigError, match=r"add --accept-licences 'skywork agreement'"):
        check_text(config)


def test_the_command_that_does_it_again_has_the_text():
    config = QuickstartConfig(
        verb="speedrun", minutes=90.0, data=Path("my data"), text=("a.jsonl", "hub:x/y"),
        text_share=0.5, accept_licences=("research only",),
    )  # fmt: skip
    words = shlex.split(config.command)[2:]
    args = tyro.cli(Args, args=words)
    assert (args.data, args.text, args.text_share) == (config.data, config.text, 0.5)
    assert args.accept_licences == config.accept_licences


def test_sft_has_the_small_steps_of_its_preset(tmp_path):
    config = QuickstartConfig(out=tmp_path, model="64m", vocab_size=12_000, verb="speedrun")
    run = Quickstart(config, Console(quiet=True))
    words = list(map(str, run._sft_flags({"micro_batch_rows": 64})))
    assert words[-4:] == ["--train.batch-rows", "32", "--train.micro-batch-rows", "32"]
    nano = Quickstart(QuickstartConfig(out=tmp_path), Console(quiet=True))
    assert nano._sft_flags({})[-2:] == ["--train.batch-rows", 8]  # 4,096 tokens, as pretraining
