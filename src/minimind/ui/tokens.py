"""The second tab: each token, its probability as a colour, and where a loop begins."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape

from minimind.tokenizer.loops import COPIES, LEAST, LONGEST, Loop, find_loop
from minimind.tokenizer.shown import STEPS, band, percent, texts, visible
from minimind.ui.client import Token
from minimind.ui.words import Language, word


def render(tokens: Sequence[Token], language: Language) -> str:
    """Return the tab's HTML; everything that a model wrote in it is escaped."""
    loop = find_loop([token.raw for token in tokens])
    shown = texts(token.raw for token in tokens)
    spans = [
        _token(token, text, number, loop, language)
        for number, (token, text) in enumerate(zip(tokens, shown, strict=True))
    ]
    return (
        f'<div class="mm-tokens" lang="{language}">{_legend(language)}'
        f'<div class="mm-columns"><div class="mm-text">{"".join(spans)}</div>'
        f'<div class="mm-detail" aria-live="polite"><p>{escape(word("point", language))}</p></div>'
        f"</div>{_summary(tokens, loop, language)}</div>"
    )


def nothing(key: str, language: Language) -> str:
    """Return the tab's HTML while there is nothing to show."""
    return f'<div class="mm-tokens mm-nothing"><p>{escape(word(key, language))}</p></div>'


def _token(token: Token, shown: str, number: int, loop: Loop | None, language: Language) -> str:
    classes, mark = f"mm-token mm-band{band(token.logprob)}", ""
    if loop and loop.start <= number < loop.end:
        classes += " mm-copy"
    if loop and number == loop.start:
        text = escape(word("loop_mark", language))
        mark = f'<span class="mm-loop" data-at="{number + 1}">⟲ {text}</span>'
    line_break = "\n" if token.raw.endswith(b"\n") else ""
    detail = escape(json.dumps(_detail(token, number, language), ensure_ascii=False))
    label = escape(f"{shown}: {percent(math.exp(token.logprob))}")
    return (
        f'{mark}<span class="{classes}" tabindex="0" role="button" aria-label="{label}" '
        f'data-detail="{detail}">{escape(shown)}</span>{line_break}'
    )


def _detail(token: Token, number: int, language: Language) -> dict[str, object]:
    """Return what the page shows for a token: rows of (text, share, words, is it the one)."""
    rows = [[visible(raw), math.exp(logprob), raw == token.raw] for raw, logprob in
            token.alternatives]  # fmt: skip
    note = ""
    if rows and not any(row[2] for row in rows):
        note = word("rare", language, n=len(rows))
        rows.append([visible(token.raw), math.exp(token.logprob), True])
    rows = rows or [[visible(token.raw), math.exp(token.logprob), True]]
    left = 1.0 - sum(float(row[1]) for row in rows)
    bits = -token.logprob / math.log(2)
    return {
        "title": word("token", language, n=number + 1),
        "surprise": f"{word('surprise', language)} {bits:.1f} {word('bits', language)}",
        "rows": [[text, share, percent(float(share)), one] for text, share, one in rows],
        "chosen": word("chosen", language),
        "note": note,
        "rest": [word("rest", language), max(0.0, left), percent(max(0.0, left))],
    }


def _legend(language: Language) -> str:
    edges = [1.0, *STEPS, 0.0]
    names = []
    for number in range(len(STEPS) + 1):
        high, low = _edge(edges[number]), _edge(edges[number + 1])
        names.append(f"≥ {low} %" if number == 0 else f"{low}–{high} %")
    names[-1] = f"< {_edge(STEPS[-1])} %"
    items = "".join(
        f'<span class="mm-token mm-band{number}">{name}</span>' for number, name in enumerate(names)
    )
    return (
        f'<div class="mm-legend"><span>{escape(word("legend", language))}:</span>{items}'
        f'<span class="mm-raw">{escape(word("raw", language))}</span></div>'
    )


def _edge(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.05 else 1}f}"


def _summary(tokens: Sequence[Token], loop: Loop | None, language: Language) -> str:
    bits = sum(-token.logprob for token in tokens) / len(tokens) / math.log(2)
    summary = word("summary", language, tokens=len(tokens), bits=bits, choices=2**bits)
    found = word("no_loop", language)
    if loop:
        found = word("loop", language, start=loop.start + 1, period=loop.period, end=loop.end)
    rule = word("rule", language, longest=LONGEST, copies=COPIES, least=LEAST)
    return (
        f'<div class="mm-summary"><p>{escape(summary)}</p>'
        f'<p><b class="mm-found">{escape(found)}</b> {escape(rule)}</p></div>'
    )
