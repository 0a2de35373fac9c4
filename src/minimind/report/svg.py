"""Plots as SVG: text is text, so the reader's own fonts draw it, Chinese included.

Inside a page the colours are the page's CSS variables; a picture that stands alone (beside a
Markdown file) carries the same variables, for light and for dark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from minimind.report.charts import (
    BarPlot,
    IntervalPlot,
    LinePlot,
    Plot,
    Series,
    Unit,
    thinned,
)

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, BOTTOM = 50, 12, 40
LINE = 17
"""Height of a line of the legend."""

PALETTE = """\
--ink:#1c2430;--soft:#5b6573;--grid:#e5e8ec;--paper:#fff;
--c0:#2563b8;--c1:#c2500a;--c2:#2f8f6b;--c3:#8a4fb5;--c4:#9a7400;--c5:#8b95a3"""
DARK = """\
--ink:#e8ebf0;--soft:#a3adba;--grid:#333b47;--paper:#161b22;
--c0:#6ea8fe;--c1:#ff9d5c;--c2:#5fcfa3;--c3:#c79bf0;--c4:#e0bb4b;--c5:#8b95a3"""
FONTS = (
    "system-ui,-apple-system,'Segoe UI','PingFang SC','Microsoft YaHei','Noto Sans CJK SC',"
    "'WenQuanYi Micro Hei',sans-serif"
)
STYLE = f"""\
svg.plot,svg.plot text{{font-family:{FONTS};font-size:12px;fill:var(--ink)}}
svg.plot .title{{font-weight:600;font-size:13px}}
svg.plot .soft{{fill:var(--soft)}}
svg.plot .grid{{stroke:var(--grid);stroke-width:1}}
svg.plot .line{{fill:none;stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}}
svg.plot .faint{{fill:none;stroke-width:1;opacity:.5}}
svg.plot .dashed{{fill:none;stroke-width:1.4;stroke-dasharray:5 4}}
svg.plot .level{{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:4 4}}
""" + "".join(
    f"svg.plot .s{i}{{stroke:var(--c{i})}}svg.plot .f{i}{{fill:var(--c{i})}}" for i in range(6)
)


def draw(plot: Plot) -> str:
    """Return one plot as an `<svg>` for a page that has `PALETTE` and `STYLE`."""
    body, height, data = _body(plot)
    hover = f" data-plot='{escape(json.dumps(data), quote=True)}'" if data else ""
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(plot.title)}"{hover}>{body}</svg>'
    )


def standalone(plots: Sequence[Plot], *, columns: int = 2) -> str:
    """Return plots in a grid as one SVG file that needs no page around it."""
    drawn = [_body(plot)[:2] for plot in plots]
    columns = max(1, min(columns, len(drawn)))
    parts, y = [], 12.0
    for start in range(0, len(drawn), columns):
        row = drawn[start : start + columns]
        for i, (body, _) in enumerate(row):
            x = 12 + i * (WIDTH + 24)
            parts.append(f'<g transform="translate({x},{y:g})">{body}</g>')
        y += max(height for _, height in row) + 18
    width = 24 + columns * WIDTH + (columns - 1) * 24
    style = f"svg.plot{{{PALETTE}}}@media(prefers-color-scheme:dark){{svg.plot{{{DARK}}}}}{STYLE}"
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y:g}" '
        f'viewBox="0 0 {width} {y:g}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="var(--paper)"/>{"".join(parts)}</svg>\n'
    )


def _body(plot: Plot) -> tuple[str, float, dict[str, object] | None]:
    """Return what is inside the `<svg>`, its height, and what hovering needs."""
    match plot:
        case LinePlot():
            return _lines(plot)
        case BarPlot():
            return (*_bars(plot), None)
        case IntervalPlot():
            return (*_intervals(plot), None)


# ---------------------------------------------------------------- parts


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Return round numbers from below `low` to above `high`, about `count` steps."""
    if not high > low:  # one value: in the middle of its axis
        around = 0.1 * abs(low) or 1.0
        low, high = low - around, low + around
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_text(value: float, unit: Unit) -> str:
    """Return a number as an axis says it: 1.5M, 2 min, 40 %."""
    if unit == "percent":
        return f"{value:.0%}"
    if unit == "seconds" and value:
        for size, name in ((3600, "h"), (60, "min")):
            if value >= size:
                return (
                    f"{value / size:g} {name}"
                    if value % size == 0
                    else f"{value / size:.1f} {name}"
                )
        return f"{value:g} s"
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{name}"
    if value and abs(value) < 1e-3:
        number, _, power = f"{value:.1e}".partition("e")
        return f"{number.removesuffix('.0')}e{power}"
    return f"{value:g}"


def text_width(text: str) -> float:
    """Return about how wide 12-pixel text is: a hanzi is square, a Latin letter half of that."""
    return sum(12.0 if ord(char) > 0x2E80 else 6.6 for char in text)


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> str:
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{name}{where}>{escape(text)}</text>'


def _legend(entries: Sequence[tuple[str, str]], y: float) -> tuple[str, float]:
    """Return swatches (markup at the origin, name) in lines below `y`, and where they end."""
    parts, x, y = [], 4.0, y + LINE
    for swatch, name in entries:
        wide = 24 + text_width(name) + 14
        if x > 4 and x + wide > WIDTH:
            x, y = 4.0, y + LINE
        parts.append(f'<g transform="translate({x:.1f},{y:.1f})">{swatch}</g>')
        parts.append(_text(x + 24, y, name, kind="soft"))
        x += wide
    return "".join(parts), y


def _swatch(series: Series) -> str:
    if series.style == "dots":
        return f'<circle cx="10" cy="-4" r="3.5" class="f{series.colour}"/>'
    return f'<path d="M0 -4H18" class="{series.style} s{series.colour}"/>'


# ---------------------------------------------------------------- curves


def _lines(plot: LinePlot) -> tuple[str, float, dict[str, object]]:
    entries = [(_swatch(s), s.name) for s in plot.series if s.name]
    entries += [
        (f'<rect y="-9" width="18" height="10" opacity=".22" class="f{a.colour}"/>', a.name)
        for a in plot.areas
    ]
    entries += [('<path d="M0 -4H18" class="level"/>', name) for name, _ in plot.levels]
    legend, top = _legend(entries, 14) if len(entries) > 1 or plot.areas else ("", 16.0)
    top += 20
    bottom = top + HEIGHT - BOTTOM - 36
    xs = [x for s in plot.series for x, _ in s.points] or [0.0, 1.0]
    ys = [y for s in plot.series for _, y in s.points]
    ys += [y for area in plot.areas for _, *pair in area.points for y in pair]
    ys += [value for _, value in plot.levels] or ([] if ys else [0.0, 1.0])
    x0, x1 = (0.0 if plot.x_unit else min(xs)), max(xs)
    x1 = x1 if x1 > x0 else x0 + 1
    y_ticks = nice_ticks(0.0 if plot.zero else min(ys), max(ys))
    unit = 1 if plot.x_unit != "seconds" else 3600 if x1 >= 10_800 else 60 if x1 >= 180 else 1
    x_ticks = [t * unit for t in nice_ticks(x0 / unit, x1 / unit)]
    x_ticks = [t for t in x_ticks if x0 <= t <= x1 * (1 + 1e-9)]
    y0, y1 = y_ticks[0], y_ticks[-1]
    right = WIDTH - RIGHT

    def px(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * (right - LEFT)

    def py(y: float) -> float:
        return bottom - (y - y0) / (y1 - y0) * (bottom - top)

    title = f"{plot.title} ({plot.y_label})" if plot.y_label else plot.title
    parts = [_text(4, 14, title, kind="title"), legend]
    for tick in y_ticks:
        parts.append(f'<path d="M{LEFT} {py(tick):.1f}H{right}" class="grid"/>')
        parts.append(
            _text(LEFT - 6, py(tick) + 4, tick_text(tick, plot.y_unit), kind="soft", anchor="end")
        )
    for tick in x_ticks:
        parts.append(
            _text(px(tick), bottom + 16, tick_text(tick, plot.x_unit), kind="soft", anchor="middle")
        )
    parts.append(_text(right, bottom + 32, plot.x_label, kind="soft", anchor="end"))
    for area in plot.areas:
        shown = thinned(area.points)
        edge = [(x, high) for x, _, high in shown] + [(x, low) for x, low, _ in reversed(shown)]
        path = "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in edge)
        parts.append(f'<path d="M{path}Z" opacity=".22" class="f{area.colour}"/>')
    for _, value in plot.levels:
        parts.append(f'<path d="M{LEFT} {py(value):.1f}H{right}" class="level"/>')
    kept = [(series, thinned(series.points)) for series in plot.series]
    for series, points in kept:
        at = [(px(x), py(y)) for x, y in points]
        if series.style == "dots":
            dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in at)
            parts.append(f'<g class="f{series.colour}">{"".join(dots)}</g>')
        elif len(at) == 1:  # a line of one point would not be seen
            (x, y), *_ = at
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="f{series.colour}"/>')
        elif at:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
            parts.append(f'<path d="M{path}" class="{series.style} s{series.colour}"/>')
    hover = {
        "x": [x0, x1, LEFT, right], "y": [y0, y1, bottom, top], "label": plot.x_label,
        "series": [
            {"name": series.name, "colour": series.colour, "points": [list(p) for p in points]}
            for series, points in kept if series.style != "faint" and series.name
        ],
    }  # fmt: skip
    return "".join(parts), bottom + BOTTOM, hover


# ---------------------------------------------------------------- bars and intervals


def _bars(plot: BarPlot) -> tuple[str, float]:
    legend, top = _legend(
        [
            (f'<rect y="-9" width="14" height="10" rx="2" class="f{c}"/>', n)
            for n, _, c in plot.bars
        ],
        14,
    )
    top += 20
    bottom = top + 190
    longest = max(map(text_width, plot.groups), default=0)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(plot.groups))
    slanted = longest > slot - 4
    top_value = max((v for _, values, _ in plot.bars for v in values if v is not None), default=1.0)
    ticks = nice_ticks(0.0, top_value)
    parts = [_text(4, 14, plot.title, kind="title"), legend]

    def py(y: float) -> float:
        return bottom - y / ticks[-1] * (bottom - top)

    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {py(tick):.1f}H{WIDTH - RIGHT}" class="grid"/>')
        parts.append(_text(LEFT - 6, py(tick) + 4, f"{tick:g}", kind="soft", anchor="end"))
    width = (slot - 6) / max(1, len(plot.bars))
    for g, group in enumerate(plot.groups):
        x = LEFT + g * slot
        for b, (name, values, colour) in enumerate(plot.bars):
            value = values[g]
            if value is None:
                continue
            parts.append(
                f'<rect x="{x + 3 + b * width:.1f}" y="{py(value):.1f}" width="{width - 1.5:.1f}" '
                f'height="{bottom - py(value):.1f}" rx="1.5" class="f{colour}" '
                f'data-tip="{escape(f"{group} · {name}: {value:.3f}")}"/>'
            )
        centre = x + slot / 2
        if slanted:
            parts.append(
                f'<g transform="translate({centre:.1f},{bottom + 14}) rotate(-38)">'
                f"{_text(0, 0, group, kind='soft', anchor='end')}</g>"
            )
        else:
            parts.append(_text(centre, bottom + 16, group, kind="soft", anchor="middle"))
    return "".join(parts), bottom + (16 + longest * 0.68 if slanted else 26)


def _intervals(plot: IntervalPlot) -> tuple[str, float]:
    entries = [(f'<circle cx="9" cy="-4" r="4" class="f{c}"/>', name) for name, c in plot.legend]
    if plot.chance_label and any(row.chance is not None for row in plot.rows):
        entries.append(('<path d="M9 -11V3" class="level"/>', plot.chance_label))
    legend, y = _legend(entries, 14) if entries else ("", 16.0)
    parts = [_text(4, 14, plot.title, kind="title"), legend]
    left, right, first = 8.0, WIDTH - 58.0, y + 14

    def px(share: float) -> float:
        return left + min(1.0, max(0.0, share)) * (right - left)

    y = first
    marks: list[str] = []
    for row in plot.rows:
        y += 38
        low = row.value if row.low is None else row.low
        high = row.value if row.high is None else row.high
        marks.append(_text(left, y - 14, row.label, kind="soft"))
        if row.chance is not None:
            marks.append(f'<path d="M{px(row.chance):.1f} {y - 9}V{y + 9}" class="level"/>')
        marks.append(f'<path d="M{px(low):.1f} {y}H{px(high):.1f}" class="line s{row.colour}"/>')
        tip = escape(f"{row.label}: {row.value:.1%} ({low:.1%}-{high:.1%}) {row.note}".strip())
        marks.append(
            f'<circle cx="{px(row.value):.1f}" cy="{y}" r="4.5" class="f{row.colour}" '
            f'data-tip="{tip}"/>'
        )
        marks.append(_text(WIDTH - 4, y + 4, f"{row.value:.1%}", anchor="end"))
    for a, b in pairwise((0.0, 0.25, 0.5, 0.75, 1.0, 1.25)):
        if b <= 1.25:
            parts.append(f'<path d="M{px(a):.1f} {first + 8}V{y + 12}" class="grid"/>')
            parts.append(
                _text(px(a), y + 28, f"{a:.0%}", kind="soft", anchor="middle" if a else "start")
            )
    return "".join((*parts, *marks)), y + 36
