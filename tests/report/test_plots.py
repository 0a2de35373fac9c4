import warnings
from types import SimpleNamespace

import pytest

from minimind.eval.results import Evaluation, Measure
from minimind.report.plots import (
    CHINESE_FONTS,
    bits_bars,
    chinese_font,
    labels,
    loss_curves,
    running_mean,
)

matplotlib = pytest.importorskip("matplotlib")
from matplotlib import font_manager  # noqa: E402

CURVES = {
    "pretrain": [{"step": i, "loss": 8 - i / 20} for i in range(100)]
    + [{"step": 99, "validation_loss": 3.2}],
    "dpo": [{"step": 1, "loss": 0.69}, {"step": 2, "loss": None}, {"step": 3, "loss": 0.5}],
}


def size(path):
    assert path.read_bytes().startswith(b"\x89PNG")
    return path.stat().st_size


def pretend_fonts(monkeypatch, *names):
    fonts = SimpleNamespace(ttflist=[SimpleNamespace(name=name) for name in names])
    monkeypatch.setattr(font_manager, "fontManager", fonts)


def test_without_a_chinese_font_labels_are_english(monkeypatch, tmp_path):
    pretend_fonts(monkeypatch, "DejaVu Sans", "DejaVu Serif")
    assert chinese_font() is None
    assert labels("zh", chinese_font())["step"] == "step"
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is a warning
        assert size(loss_curves(CURVES, tmp_path / "c.png", language="zh", font=None)) > 10_000


def test_with_a_chinese_font_labels_are_chinese(monkeypatch):
    pretend_fonts(monkeypatch, "DejaVu Sans", "WenQuanYi Micro Hei")
    assert chinese_font() == "WenQuanYi Micro Hei"
    assert labels("zh", chinese_font())["step"] == "步数"
    assert labels("en", chinese_font())["step"] == "step"


def test_chinese_labels_are_drawn_where_a_font_is_installed(tmp_path):
    font = chinese_font()
    if font is None:
        pytest.skip(f"none of {len(CHINESE_FONTS)} Chinese fonts is installed here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(loss_curves(CURVES, tmp_path / "c.png", language="zh", font=font)) > 10_000


def test_both_languages_have_the_same_labels():
    assert labels("en", None).keys() == labels("zh", "any").keys()


def test_a_stage_without_lines_is_an_empty_panel(tmp_path):
    assert size(loss_curves({"sft": []}, tmp_path / "c.png")) > 1_000
    assert size(loss_curves({}, tmp_path / "d.png")) > 1_000


def test_bars_for_what_was_measured(tmp_path):
    groups = {"laws": Measure(value=1.0, n=3), "new": Measure(value=2.0, n=1)}
    evaluation = Evaluation().adding("pretrain", {"bits_per_byte": Measure(value=1, groups=groups)})
    evaluation = evaluation.adding("xz", {"bits_per_byte": Measure(value=2)})  # without groups
    assert size(bits_bars(evaluation, tmp_path / "b.png")) > 5_000
    assert bits_bars(Evaluation(), tmp_path / "none.png") is None


def test_running_mean_looks_back_only():
    assert running_mean([4.0, 2.0, 0.0, 2.0], window=2) == [4.0, 3.0, 1.0, 1.0]
