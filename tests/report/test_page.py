"""report.html: self-contained, well-formed, and with the figures that are on disk."""

import html
import json
import re
import struct
from html.parser import HTMLParser

import pytest
from test_report import whole_run

from minimind.cli import main
from minimind.eval.results import Evaluation, Measure
from minimind.report.charts import BarPlot, Interval, IntervalPlot, LinePlot, Series, thinned
from minimind.report.files import read_run, write_comparison, write_report
from minimind.report.page import inline
from minimind.report.svg import draw, nice_ticks, tick_text

VOID = {"meta", "br", "link", "input", "hr", "img"}


class Checker(HTMLParser):
    """Fails on a tag that is closed wrongly; collects addresses, texts and plots."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.plots, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("src", "href", "action", "data") if key in found]
        if "data-plot" in found:
            self.plots.append((found["aria-label"], json.loads(found["data-plot"])))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(path):
    checker = Checker()
    checker.feed(path.read_text())
    checker.close()
    assert checker.open == []
    return checker


def one_run(directory, *, shift=0.0, seed=1, lr=0.006):
    """A training run of its own, as `minimind train` leaves it."""
    directory.mkdir(parents=True)
    lines = []
    for i in range(1, 31):
        lines.append({
            "step": 10 * i, "loss": 5 + 3 / i + shift, "lr": lr, "grad_norm": 1.5 / i,
            "tokens": 4096 * i, "tokens_per_second": 1000.5, "seconds": 4.25 * i,
        })  # fmt: skip
        if i % 10 == 0:
            lines.append({"step": 10 * i, "validation_loss": 5.5 - i / 100 + shift,
                          "validation_bits_per_byte": 2.5 - i / 100})  # fmt: skip
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "run.toml").write_text(f"seed = {seed}\n[optim]\nlr = {lr}\n")
    ledger = {"data": [{"path": "a.jsonl", "bytes": 2_500_000, "sha256": "ab" * 32,
                        "licences": ["MIT"], "sources": []}],
              "from": {"tokenizer_sha256": "t", "checkpoint": None},
              "used": {"documents": 77, "tokens": 1234, "rejects": 2}}  # fmt: skip
    (directory / "ledger.json").write_text(json.dumps(ledger))
    (directory / "samples.txt").write_text(
        "## step 100\n> 从前\n有一座山\n\n## step 200\n> 从前\n有 <b>庙</b>\n\n"
    )
    header = json.dumps({"w": {"shape": [30, 40]}, "__metadata__": {}}).encode()
    checkpoint = directory / "checkpoints" / "step-000300"
    checkpoint.mkdir(parents=True)
    weights = struct.pack("<Q", len(header)) + header
    (checkpoint / "model.safetensors").write_bytes(weights)
    return directory


def with_items(directory, subject, answers):
    """What `minimind eval` leaves: eval.json and the answers item by item."""
    share = sum(answers) / len(answers)
    measure = Measure(value=share, low=0.1, high=0.9, n=len(answers), chance=0.25)
    Evaluation().adding(subject, {"cmmlu_letter": measure}).save(directory / "eval.json")
    rows = [{"item": str(i), "value": value, "group": ""} for i, value in enumerate(answers)]
    folder = directory / "eval" / subject
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "cmmlu_letter.jsonl").write_text(text)
    return directory


def test_the_page_is_whole_and_asks_no_other_host(tmp_path):
    for directory in (whole_run(tmp_path), one_run(tmp_path / "alone" / "pretrain")):
        page = write_report(directory)[0]
        checker = checked(page)
        assert checker.addresses
        assert all(address.startswith("#") for address in checker.addresses)
        text = page.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
        assert text.count('<article lang="en"') == text.count('<article lang="zh-CN"') == 1


def test_curves_are_those_on_disk_to_the_last_digit(tmp_path):
    run = one_run(tmp_path / "p")
    plots = dict(checked(write_report(run)[0]).plots)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    for title, key in (("Learning rate", "lr"), ("Gradient norm, before clipping", "grad_norm"),
                       ("Tokens per second", "tokens_per_second")):  # fmt: skip
        expected = [[line["tokens"], line[key]] for line in steps]
        assert plots[title]["series"][0]["points"] == expected
    held_out = plots["Loss"]["series"][-1]
    assert held_out["name"] == "held-out"
    assert held_out["points"] == [[40960, 5.4], [81920, 5.3], [122880, 5.2]]


def test_a_single_run_says_what_it_did_and_cost(tmp_path):
    run = one_run(tmp_path / "p")
    english = write_report(read_run(run, price=3.6, currency="USD"))[1].read_text()
    for part in (
        "Training run p", "300 steps, 122,880 tokens in 2 min 8 s", "best **5.200** at step 300",
        "`a.jsonl` | MIT | 2.50 | `abababababab`", "77 documents, 1,234 tokens; 2 rows",
        "3.6 USD an hour** it cost **0.1275 USD", "Energy was not measured",
        "100 | 有一座山", "有 \\<b\\>庙\\</b\\>", "/p/run.toml --resume", "lr = 0.006",
        "0.00M** parameters", "`eval.json` is not there",
    ):  # fmt: skip
        assert part in english, part


def test_a_folder_of_runs_has_each(tmp_path):
    one_run(tmp_path / "alpha")
    with_items(one_run(tmp_path / "beta"), "x", [1, 0, 1])
    text = write_report(tmp_path)[1].read_text()
    for part in ("Training runs in", "### alpha", "### beta", "| CMMLU: letters | beta |"):
        assert part in text


@pytest.mark.parametrize("part", ["metrics.jsonl", "run.toml", "ledger.json", "samples.txt"])
def test_a_single_run_without_a_part_still_renders(tmp_path, part):
    run = one_run(tmp_path / "p")
    (run / part).unlink()
    page, english, _ = write_report(run)
    checked(page)
    if part != "samples.txt":  # nobody has to sample
        assert f"`{part}` is not there" in english.read_text()


@pytest.mark.parametrize("content", ["", "{", "[1]\n3\nnull\n", "\x00\xff", '{"step": 1}\n'])
def test_files_that_are_broken_still_render(tmp_path, content):
    run = one_run(tmp_path / "p")
    for name in ("metrics.jsonl", "run.toml", "ledger.json", "samples.txt", "eval.json"):
        (run / name).write_text(content)
    for path in write_report(run):
        assert path.stat().st_size > 300


def test_scores_have_interval_chance_and_a_verdict(tmp_path):
    run = with_items(one_run(tmp_path / "p"), "mine", [1, 0, 1, 0])
    page, english, _ = write_report(run)
    assert "| CMMLU: letters | mine | 50.0% | 10.0%–90.0% | 4 | not distinguishable" in (
        english.read_text()
    )
    assert 'data-tip="CMMLU: letters · mine: 50.0% (10.0%-90.0%) n = 4"' in page.read_text()


def test_two_runs_beside_each_other(tmp_path):
    a = with_items(one_run(tmp_path / "a"), "a", [1] * 20 + [0] * 20)
    b = with_items(one_run(tmp_path / "b", shift=-0.25, seed=2, lr=0.003), "b", [1] * 40)
    page, english, chinese = write_comparison(read_run(a), read_run(b), out=tmp_path / "out")
    text = english.read_text()
    checked(page)
    for part in (
        "At 122,880 tokens, the most that both reached", "**B** by 0.250 nats",
        "| `optim.lr` | 0.006 | 0.003 |", "| `seed` | 1 | 2 |",
        "+50.0%", "n = 40, McNemar exact",
    ):  # fmt: skip
        assert part in text, part
    # 20 items that only B got right: 2 * 0.5**20
    assert "p = 1.91e-06" in text
    assert "配对检验" in chinese.read_text()


def test_runs_that_have_nothing_in_common_are_compared_too(tmp_path):
    (tmp_path / "empty").mkdir()
    a, b = read_run(one_run(tmp_path / "a")), read_run(tmp_path / "empty")
    text = write_comparison(a, b, out=tmp_path)[1].read_text()
    assert "no training run in common" in text
    assert "No measure was taken of both" in text


def test_what_a_model_writes_cannot_break_the_page(tmp_path):
    hostile = "</script><script>alert(1)</script> \\`x\\` & <img src=//evil>"
    assert inline("**b** `c` \\*d\\* <i>") == "<strong>b</strong> <code>c</code> *d* &lt;i&gt;"
    run = one_run(tmp_path / "p")
    (run / "samples.txt").write_text(f"## step 10\n> {hostile}\n{hostile}\n\n")
    page = write_report(run)[0]
    checked(page)
    assert "<script>alert" not in page.read_text()
    assert html.escape("</script><script>alert(1)</script>") in page.read_text()


def test_the_command(tmp_path, capsys):
    run = one_run(tmp_path / "p")
    assert main(["report", str(run), "--out", str(tmp_path / "o"), "--language", "zh"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (
        (tmp_path / "o" / "report.html")
        .read_text()
        .startswith('<!doctype html>\n<html lang="zh-CN">')
    )
    assert main(["report", str(run), str(run), "--out", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / "compare.html").is_file()
    for wrong, words in (
        ([str(tmp_path / "no")], "is not a run"),
        ([str(run)] * 3, "takes one run, or two"),
        ([str(run), "--price", "-1"], "--price -1.0"),
        (["band", str(run), "--out", str(tmp_path / "b.json")], "at least two runs"),
    ):
        assert main(["report", *wrong]) == 2
        assert words in capsys.readouterr().err


def test_ticks_are_round_and_hold_the_data():
    for low, high in ((0, 1), (3.2, 9.7), (-0.3, 0.1), (5, 5), (0, 2.4e6), (1e-5, 3e-5)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 9
    said = [
        tick_text(1.5e6, "tokens"),
        tick_text(120, "seconds"),
        tick_text(0, ""),
        tick_text(5e-5, ""),
    ]
    assert said == ["1.5M", "2 min", "0", "5e-05"]


def test_long_curves_are_thinned_and_keep_their_ends():
    points = [(i, i) for i in range(100_001)]
    kept = thinned(points)
    assert (kept[0], kept[-1], len(kept)) == (points[0], points[-1], 600)
    plot = LinePlot("t", "x", "", (Series("s", points),))
    assert len(draw(plot)) < 30_000


def test_plots_without_data_are_drawn():
    gap = BarPlot("t", ("g",), (("n", (None,), 0),))
    point = IntervalPlot("t", (Interval("a", 0.5),))
    for plot in (
        LinePlot("t", "x", "", ()),
        BarPlot("t", (), ()),
        IntervalPlot("t", ()),
        gap,
        point,
    ):
        assert draw(plot).startswith("<svg")
