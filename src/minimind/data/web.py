"""Pages of WARC files (Common Crawl's format): the main text of HTML, and WET's ready text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimind.data.lines import Cursor
from minimind.data.rejects import Rejects
from minimind.data.tables import row_bytes
from minimind.errors import DataError, require

PAGE_BYTES = 16 << 20
"""A larger page is rejected: it is a dump, not a text."""

_LICENCE = re.compile(
    rb"""<(?:a|link)\b(?=[^>]*\brel\s*=\s*["']?[^"'>]*\blicen[sc]e\b)[^>]*\bhref\s*=\s*["']?([^"'\s>]+)""",
    re.IGNORECASE,
)


def read_pages(path: Path, start: Cursor, rejects: Rejects) -> Iterator[tuple[Cursor, int, Any]]:
    """Yield (place, bytes, {"text", "url", "date", "licence"}) of each page from `start` on.

    `licence` is the address that the page itself gives with rel="license", or "".

    Raises:
        MissingExtraError: warcio or trafilatura is not installed.
        DataError: the file can't be opened.
    """
    archive = require("warcio.archiveiterator", extra="stream")
    problems = require("warcio.exceptions", extra="stream")
    number = start.line
    try:
        with path.open("rb") as stream:
            stream.seek(start.offset)
            records = archive.ArchiveIterator(stream)
            try:
                for record in records:
                    page = _page(record, path, number, rejects)
                    # Only now: asking where a record begins may read it to its end.
                    at = Cursor(start.offset + records.get_record_offset(), number)
                    if page is not None:
                        yield at, row_bytes(page), page
                    number += 1
            except (problems.ArchiveLoadFailed, EOFError, ValueError) as error:
                rejects.add(path, number, f"WARC is damaged or cut off here: {error}", b"")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}") from error


def _page(record: Any, path: Path, number: int, rejects: Rejects) -> dict[str, str] | None:
    """Return a record as a row; None for one that is no page or was rejected."""
    is_html = record.rec_type == "response"
    if not is_html and record.rec_type != "conversion":
        return None
    if is_html and record.http_headers is not None:
        kind = record.http_headers.get_header("Content-Type") or ""
        if "html" not in kind and kind:
            return None
        if not record.http_headers.get_statuscode().startswith("2"):
            return None
    content = record.content_stream().read(PAGE_BYTES + 1)
    url = record.rec_headers.get_header("WARC-Target-URI") or ""
    if len(content) > PAGE_BYTES:
        reason = f"the page is too large: above {PAGE_BYTES >> 20} MB"
        rejects.add(path, number, reason, url.encode())
        return None
    if record.raw_stream.limit > 0:  # warcio says nothing when a file ends inside a record
        rejects.add(path, number, "WARC is damaged or cut off here: the record ends too early",
                    url.encode())  # fmt: skip
        return None
    text = main_text(content, url=url) if is_html else content.decode(errors="replace")
    if not text.strip():
        rejects.add(path, number, "no main text found in the page", url.encode())
        return None
    found = _LICENCE.search(content) if is_html else None
    return {
        "text": text.strip(), "url": url,
        "date": record.rec_headers.get_header("WARC-Date") or "",
        "licence": found[1].decode(errors="replace") if found else "",
    }  # fmt: skip


def main_text(html: bytes, *, url: str = "") -> str:
    """Return a page's main text without menus, comments and footers; "" if there is none.

    Raises:
        MissingExtraError: trafilatura is not installed.
    """
    trafilatura = require("trafilatura", extra="stream")
    found = trafilatura.extract(
        html, url=url or None, include_comments=False, include_tables=False, deduplicate=False
    )
    return found or ""
