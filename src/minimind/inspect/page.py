"""One HTML file that needs nothing else: data, style and scripts are in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

from minimind.errors import ExportError
from minimind.inspect.compare import compare
from minimind.inspect.panels import PANELS, beside
from minimind.inspect.reading import Reading
from minimind.inspect.words import WORDS

Language = Literal["auto", "zh", "en"]

_WEB = Path(__file__).with_name("web")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The browser itself refuses whatever would ask another host."""


def write_page(
    path: str | Path, readings: Sequence[Reading], *, language: Language = "auto"
) -> int:
    """Write the page of one reading, or of two of the same text side by side.

    Args:
        path: the HTML file; replaced if it is there.
        readings: one or two.
        language: what the page opens in; `auto` is the browser's. A button changes it.

    Returns:
        The size in bytes.

    Raises:
        DataError: too much attention for a page, or two readings of different texts.
        ExportError: the file can't be written.
    """
    path = Path(path)
    page = render_page(readings, language=language).encode()
    try:
        path.write_bytes(page)
    except OSError as error:
        raise ExportError(f"{path}: can't write the page there ({error.strerror})") from error
    return len(page)


def render_page(readings: Sequence[Reading], *, language: Language = "auto") -> str:
    """Return the page as text (see `write_page`)."""
    if not 1 <= len(readings) <= 2:
        raise ValueError(f"{len(readings)} readings: a page shows one or two")
    data = {
        "language": language,
        "words": WORDS,
        "panels": [panel.name for panel in PANELS],
        "readings": [_reading(reading) for reading in readings],
        "beside": beside(compare(readings[0], readings[1])) if len(readings) == 2 else None,
    }
    title = " · ".join(reading.name for reading in readings)
    names = ["page", *(panel.name for panel in PANELS), "beside"]
    scripts = "\n".join((_WEB / f"{name}.js").read_text(encoding="utf-8") for name in names)
    style = (_WEB / "page.css").read_text(encoding="utf-8")
    return (
        "<!doctype html>\n"
        f'<html lang="{"zh" if language == "zh" else "en"}"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f'<body><main id="page"></main>\n'
        f'<script type="application/json" id="data">{_json(data)}</script>\n'
        f"<script>\n{scripts}\nstart();\n</script></body></html>\n"
    )


def _reading(reading: Reading) -> dict[str, Any]:
    config = reading.model.config
    control = reading.tokenizer.control_ids
    return {
        "name": reading.name,
        "tokens": reading.shown,
        "ids": reading.ids,
        "control": [at for at, token in enumerate(reading.ids) if token in control],
        "generated": reading.generated,
        "facts": {
            "parameters": sum(p.numel() for p in reading.model.parameters()),
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "context": config.max_position_embeddings,
            "vocabulary": config.vocab_size,
            "characters": sum(map(len, reading.pieces)),
        },
        "panels": {panel.name: panel.data(reading) for panel in PANELS},
    }


def _json(data: dict[str, Any]) -> str:
    """Return JSON that can't end the script element that it lies in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
