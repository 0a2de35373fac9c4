"""One page with what a model sees: figures with intervals, pictures with what was said of them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind.eval.vision import Choice, Difference, Share, VisionScores
from minimind.vision.images import open_image

THUMBNAIL = 112

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #16803c; --bad: #b42318; }
body { font: 15px/1.6 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
  "WenQuanYi Micro Hei", sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .3rem .8rem; border-bottom: 1px solid
  var(--line); text-align: right; } td:first-child, th:first-child { text-align: left; }
.note { opacity: .75; } .grid { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
figure { margin: 0; padding: 10px; border: 1px solid var(--line); border-radius: 8px; }
figure img { width: 112px; height: 112px; object-fit: contain; display: block;
  margin: 0 auto 8px; background: #fff; border-radius: 4px; }
figcaption { font-size: 14px; } .said { font-weight: 600; } .right { color: var(--good); }
.wrong { color: var(--bad); } .label { opacity: .7; }
.scroll { overflow-x: auto; } td { white-space: nowrap; }
.interval { display: block; font-size: 12px; opacity: .7; }
th small { display: block; font-weight: normal; opacity: .7; }
ol { list-style: none; margin: 6px 0 0; padding: 6px 0 0; border-top: 1px solid var(--line);
  font-size: 13px; } li { display: flex; justify-content: space-between; gap: 8px; }
li:not(.first) { opacity: .75; } li.first { font-weight: 600; }
li b { font-weight: inherit; } li span { font-variant-numeric: tabular-nums; }
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and what the model said of it.

    Attributes:
        image: the file.
        label: what it is.
        said: the model's answer.
        choice: among four captions.
        group: the set that it belongs to.
    """

    image: Path
    label: str
    said: str
    choice: Choice
    group: str


def render(title: str, scores: Sequence[VisionScores], samples: Sequence[Sample]) -> str:
    """Return the page; it needs no network and no script."""
    groups = dict.fromkeys(sample.group for sample in samples)
    shown = "".join(
        f"<h2>{_in_both(group)}</h2><div class='grid'>"
        + "".join(_figure(sample) for sample in samples if sample.group == group)
        + "</div>"
        for group in groups
    )
    notes = "<br>".join(_NOTES)
    return (
        f"<!doctype html><html lang='zh'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{_table(scores)}"
        f"<p class='note'>{notes}</p>{shown}</html>\n"
    )


_NOTES = (
    "损失：图名的每个词元多少 nat，分别在看对的图、看另一张图、不看图之后，成对比较。"
    "四选一：四个图名里，看了图以后概率升得最多的是不是对的；随机为 25%。小字是 95% 区间。",
    "Loss: nats a caption token after the right picture, another one, none; differences are "
    "paired. One of four: whether the picture raises the right caption's likelihood most; chance "
    "is 25 %. Small print: 95 % intervals.",
    "每张图下：它的图名，模型说的话，四个图名各自因看了图升高多少 nat（✓ 是对的）。 "
    "Below each picture: its caption, what the model said, and by how many nats the picture "
    "raises each of the four captions (✓ is right).",
)
_SETS = {"held-out concepts": "没学过的概念", "trained concepts": "学过的概念"}


def _in_both(name: str) -> str:
    """Return a set's name in both languages: `fluent: held-out concepts`."""
    style, _, concepts = name.partition(": ")
    words = f"{_SETS[concepts]} {concepts}" if concepts in _SETS else concepts
    return html.escape(f"{style} · {words}" if words else style)


def _table(scores: Sequence[VisionScores]) -> str:
    head = (("", ""), ("图", "pictures"), ("看对图", "right"), ("看错图", "wrong"),
            ("不看图", "none"), ("错 − 对", "wrong − right"), ("无 − 对", "none − right"),
            ("四选一", "one of four"), ("只按概率", "by likelihood"))  # fmt: skip
    rows = [
        (_in_both(s.name), f"{s.pictures}", f"{s.right:.2f}", f"{s.wrong:.2f}", f"{s.none:.2f}",
         _difference(s.wrong_minus_right), _difference(s.none_minus_right), _share(s.choice),
         _share(s.choice_plain))
        for s in scores
    ]  # fmt: skip
    cells = "".join(f"<th>{zh}<small>{en}</small></th>" for zh, en in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><tr>{cells}</tr>{body}</table></div>"


def _difference(d: Difference) -> str:
    return f"{d.value:+.2f}<span class='interval'>{d.low:+.2f} … {d.high:+.2f}</span>"


def _share(share: Share | None) -> str:
    if share is None:
        return "–<span class='interval'>少于四种图名<br>fewer than<br>four captions</span>"
    interval = f"{share.low:.0%} … {share.high:.0%}"
    return f"{share.value:.1%}<span class='interval'>{interval}</span>"


def _figure(sample: Sample) -> str:
    exact = sample.said.strip("。 ") == sample.label
    said = f"<span class='said {'right' if exact else ''}'>{html.escape(sample.said)}</span>"
    return (
        f"<figure><img alt='' src='{_thumbnail(sample.image)}'><figcaption>"
        f"<span class='label'>图名：</span>{html.escape(sample.label)}<br>"
        f"<span class='label'>模型：</span>{said}{_four(sample.choice)}</figcaption></figure>"
    )


def _four(choice: Choice) -> str:
    """Return the four captions, the chosen one first."""
    order = sorted(range(len(choice.gains)), key=lambda i: -choice.gains[i])
    items = []
    for place, i in enumerate(order):
        kind = f"first {'wrong' if i else 'right'}" if place == 0 else ""
        words = html.escape(choice.captions[i]) + ("" if i else " ✓")
        items.append(f"<li class='{kind}'><b>{words}</b><span>{choice.gains[i]:+.1f}</span></li>")
    return f"<ol>{''.join(items)}</ol>"


def _thumbnail(path: Path) -> str:
    image = open_image(path).image
    image.thumbnail((THUMBNAIL * 2, THUMBNAIL * 2))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
