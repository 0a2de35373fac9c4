"""One page with what a model sees: figures with intervals, pictures with what was said of them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind.eval.vision import Difference, Share, VisionScores
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
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and what the model said of it.

    Attributes:
        image: the file.
        label: what it is.
        said: the model's answer.
        chosen: which of four captions it chose; None: not asked.
        group: the set that it belongs to.
    """

    image: Path
    label: str
    said: str
    chosen: str | None
    group: str


def render(title: str, scores: Sequence[VisionScores], samples: Sequence[Sample]) -> str:
    """Return the page; it needs no network and no script."""
    groups = dict.fromkeys(sample.group for sample in samples)
    shown = "".join(
        f"<h2>{html.escape(group)}</h2><div class='grid'>"
        + "".join(_figure(sample) for sample in samples if sample.group == group)
        + "</div>"
        for group in groups
    )
    return (
        f"<!doctype html><html lang='zh'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{_table(scores)}"
        "<p class='note'>损失：标题的每个 token 多少 nat，看对的图、另一张图、不看图，同一标题成对比较；"  # noqa: E501
        "方括号里是 95% 区间。四选一：哪个标题因为看了图而变得最可能；随机为 25%。<br>"
        "Loss: nats a caption token after the right image, another image, no image, paired; "
        "brackets are 95 % intervals. One of four: whose likelihood the image raises most; "
        "chance is 25 %."
        f"</p>{shown}</html>\n"
    )


def _table(scores: Sequence[VisionScores]) -> str:
    head = ("", "图 pictures", "对图 right", "错图 wrong", "无图 none", "错 − 对", "无 − 对",
            "四选一 one of four", "只按概率 by likelihood")  # fmt: skip
    rows = [
        (s.name, f"{s.pictures}", f"{s.right:.2f}", f"{s.wrong:.2f}", f"{s.none:.2f}",
         _difference(s.wrong_minus_right), _difference(s.none_minus_right), _share(s.choice),
         _share(s.choice_plain))
        for s in scores
    ]  # fmt: skip
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def _difference(d: Difference) -> str:
    return f"{d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"


def _share(share: Share) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _figure(sample: Sample) -> str:
    exact = sample.said.strip("。 ") == sample.label
    said = f"<span class='said {'right' if exact else ''}'>{html.escape(sample.said)}</span>"
    chosen = ""
    if sample.chosen is not None:
        kind = "right" if sample.chosen == sample.label else "wrong"
        chosen = f"<br><span class='label'>四选一：</span><span class='{kind}'>"
        chosen += f"{html.escape(sample.chosen)}</span>"
    return (
        f"<figure><img alt='' src='{_thumbnail(sample.image)}'><figcaption>"
        f"<span class='label'>标题：</span>{html.escape(sample.label)}<br>"
        f"<span class='label'>模型：</span>{said}{chosen}</figcaption></figure>"
    )


def _thumbnail(path: Path) -> str:
    image = open_image(path).image
    image.thumbnail((THUMBNAIL * 2, THUMBNAIL * 2))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
