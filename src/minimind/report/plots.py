"""The report's pictures: loss curves of the stages, bits per byte beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from minimind.errors import require
from minimind.eval.results import Evaluation
from minimind.eval.statistics import Language

Curve = Sequence[Mapping[str, Any]]
"""The lines of a metrics.jsonl."""

CHINESE_FONTS = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "STHeiti",
    "Microsoft YaHei", "SimHei", "SimSun", "Droid Sans Fallback", "Noto Sans CJK JP",
    "Arial Unicode MS",
)  # fmt: skip
"""Families with simplified Chinese, as Debian, macOS and Windows name them."""

_BLUE, _ORANGE, _GREY, _GREEN = "#2f6db5", "#d9822b", "#b8c4d3", "#3a8f5c"

_LABELS: dict[Language, dict[str, str]] = {
    "en": {
        "pretrain": "pretraining", "sft": "SFT", "dpo": "DPO", "step": "step",
        "loss": "loss (nats)", "training": "training", "held_out": "held-out",
        "chance": "ln 2: no preference", "bits": "bits per byte (lower is better)",
        "model": "this model", "unigram": "token frequencies", "zstd": "zstd -19", "xz": "xz -9e",
        "all": "all",
    },
    "zh": {
        "pretrain": "预训练", "sft": "指令微调 SFT", "dpo": "偏好优化 DPO", "step": "步数",
        "loss": "损失（nats）", "training": "训练", "held_out": "留出集",
        "chance": "ln 2：没有偏好", "bits": "每字节比特数（越低越好）",
        "model": "本模型", "unigram": "词频模型", "zstd": "zstd -19", "xz": "xz -9e",
        "all": "全部",
    },
}  # fmt: skip


def chinese_font() -> str | None:
    """Return an installed font family that has Chinese characters, or None."""
    manager = require("matplotlib.font_manager", extra="report")
    installed = {font.name for font in manager.fontManager.ttflist}
    return next((name for name in CHINESE_FONTS if name in installed), None)


def loss_curves(
    curves: Mapping[str, Curve], path: Path, *, language: Language = "en", font: str | None = None
) -> Path:
    """Draw one panel a stage: training loss (light: each line; dark: running mean), held-out loss.

    Args:
        curves: lines of metrics.jsonl by stage.
        path: the PNG to write.
        language: of the labels; English where `font` is None.
        font: from `chinese_font`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    words = labels(language, font)
    with _fonts(font):
        figure = _figure(width=4.2 * max(1, len(curves)), height=3.2)
        axes = figure.subplots(1, max(1, len(curves)), squeeze=False)[0]
        for axis, (stage, lines) in zip(axes, curves.items(), strict=False):
            _draw_curve(axis, lines, words)
            if stage == "dpo":
                axis.axhline(0.6931, color=_GREY, linestyle="--", linewidth=1,
                             label=words["chance"], zorder=1)  # fmt: skip
            axis.set_title(words.get(stage, stage), fontsize=11)
            axis.set_xlabel(words["step"])
            if axis.get_legend_handles_labels()[0]:
                axis.legend(framealpha=0.9, edgecolor="none", fontsize=8)
        axes[0].set_ylabel(words["loss"])
        return _write(figure, path)


def bits_bars(
    evaluation: Evaluation,
    path: Path,
    *,
    subject: str = "pretrain",
    language: Language = "en",
    font: str | None = None,
) -> Path | None:
    """Draw bits per byte by source, the model beside its baselines; None if it wasn't measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    whole = evaluation.get(subject, "bits_per_byte")
    if whole is None:
        return None
    words = labels(language, font)
    names = [name for name in (subject, "unigram", "zstd", "xz")
             if evaluation.get(name, "bits_per_byte")]  # fmt: skip
    sources = ["", *sorted(whole.groups, key=lambda source: -whole.groups[source].n)]
    with _fonts(font):
        figure = _figure(width=max(6.4, 1.1 * len(sources)), height=3.4)
        axis = figure.subplots()
        width = 0.8 / len(names)
        colours = {subject: _BLUE, "unigram": _GREY, "zstd": _ORANGE, "xz": _GREEN}
        for number, name in enumerate(names):
            measure = evaluation.results[name]["bits_per_byte"]
            heights = [
                measure.value if not source else getattr(measure.groups.get(source), "value", 0.0)
                for source in sources
            ]
            axis.bar(
                [i + (number - (len(names) - 1) / 2) * width for i in range(len(sources))],
                heights, width, color=colours[name],
                label=words["model"] if name == subject else words[name],
            )  # fmt: skip
        axis.set_xticks(range(len(sources)), [source or words["all"] for source in sources])
        axis.grid(visible=False, axis="x")
        axis.set_ylabel(words["bits"])
        axis.set_ylim(top=axis.get_ylim()[1] * 1.22)  # room for the legend
        axis.legend(frameon=False, fontsize=8, ncols=len(names), loc="upper right")
        return _write(figure, path)


def labels(language: Language, font: str | None) -> Mapping[str, str]:
    """Return the words on a picture: Chinese ones only where a font can draw them."""
    return _LABELS["zh" if language == "zh" and font else "en"]


def running_mean(values: Sequence[float], *, window: int) -> list[float]:
    """Return the mean of each value and those before it, at most `window` of them."""
    return [
        sum(part) / len(part)
        for i in range(len(values))
        if (part := values[max(0, i + 1 - window) : i + 1])
    ]


def _draw_curve(axis: Any, lines: Curve, words: Mapping[str, str]) -> None:
    for key, label, colour in (
        ("loss", words["training"], _BLUE),
        ("validation_loss", words["held_out"], _ORANGE),
    ):
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        if key == "validation_loss":
            axis.plot(steps, values, color=colour, marker="o", markersize=4, linewidth=1.2,
                      label=label, zorder=3)  # fmt: skip
        else:
            window = max(1, len(values) // 25)
            axis.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
            axis.plot(steps, running_mean(values, window=window), color=colour, linewidth=1.6,
                      label=label)  # fmt: skip


def _figure(*, width: float, height: float) -> Any:
    figure = require("matplotlib.figure", extra="report")
    return figure.Figure(figsize=(width, height), dpi=130, layout="constrained")


def _fonts(font: str | None) -> AbstractContextManager[object]:
    matplotlib = require("matplotlib", extra="report")
    families = [font, "DejaVu Sans"] if font else ["DejaVu Sans"]
    return matplotlib.rc_context({
        "font.family": "sans-serif", "font.sans-serif": families, "axes.unicode_minus": False,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": "#e6e9ee", "axes.axisbelow": True,
    })  # fmt: skip


def _write(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
