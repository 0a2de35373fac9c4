"""The rows of a kit: knowledge from the catalogue and from files, and manners from templates.

    domain.jsonl    questions and answers of the domain: sources' rows, then the files given
    safety.jsonl    what the kit's safety file spells out
    ledger.json     what came from where, under which licence

Both are chat rows, held out by the hash of the question as every row is. One row in three opens
with the kit's system prompt: a small model that never met one answers worse with it, and it is what
the server puts in.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.config import KitConfig
from minimind.data.catalogue import select
from minimind.data.fetch import fetch
from minimind.data.formats import ChatRow, first_user_text
from minimind.data.instructions import Pair, pick, sampled
from minimind.data.ledger import LedgerEntry, write_ledger
from minimind.data.reader import Rejects, expand_paths, read_rows
from minimind.data.sources.text import count_hanzi
from minimind.errors import DataError
from minimind.kits.recipes import pairs_of
from minimind.kits.tables import kit_file, read_tables

DOMAIN, SAFETY = "domain.jsonl", "safety.jsonl"
"""What the two files are called; `minimind eval --kit` knows them by these names."""

SYSTEM_IN = 3
"""One row in so many opens with the kit's system prompt."""

_SEED = 20_261_123
_KIT_ROWS = 6_000
"""At most so many rows a recipe: a source with ten thousand terms must not drown the rest."""

Conversation = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Template:
    """Questions and answers to be filled in.

    Attributes:
        about: what the rows teach, for people.
        ask: questions with one `{}`, or with two where there is a `fill_second`.
        answer: one of these is the answer, by the hash of the question.
        fill: what is put in the first place.
        fill_second: what is put in the second; every pair is made.
    """

    about: str
    ask: tuple[str, ...]
    answer: tuple[str, ...]
    fill: tuple[str, ...] = ("",)
    fill_second: tuple[str, ...] = ("",)


@dataclass(frozen=True, slots=True)
class KitRows:
    """What was written.

    Attributes:
        directory: where.
        domain: rows of domain.jsonl by recipe or file.
        safety: rows of safety.jsonl.
        refused: rows of the files given that are no conversations.
    """

    directory: Path
    domain: dict[str, int]
    safety: int
    refused: int


def write_rows(kit: KitConfig, out: Path, *, files: Sequence[str] = ()) -> KitRows:
    """Write the rows of a kit into `out`.

    Args:
        kit: says which sources and which safety file.
        out: a folder; made if it isn't there.
        files: chat rows of yours, as in `data.train`.

    Raises:
        ConfigError: the safety file is malformed.
        DataError: a file is missing, or nothing at all is there to learn.
        FetchError: a source can't be had.
    """
    rejects = Rejects()
    domain: list[tuple[str, Conversation]] = []
    ledger: list[LedgerEntry] = []
    for name in kit.sources:
        own = [(recipe, _conversation(pair)) for recipe, pair in _source_pairs(name)]
        ledger.append(_of_source(name, own))
        domain += own
    for path in expand_paths(files) if files else ():
        own = [(path.name.partition(".")[0], row) for row in _file_rows(path, rejects)]
        ledger.append(_of_file(path, own))
        domain += own
    domain = list({first_user_text(row): (name, row) for name, row in domain}.values())
    if not domain:
        raise DataError(f"kit {kit.name!r} has no source and no file with rows: give --rows FILE")
    safety = [(f"{kit.name}-safety", _conversation(pair)) for pair in safety_pairs(kit)]
    if kit.system:
        domain = [(name, _with_system(row, kit.system)) for name, row in domain]
        safety = [(name, _with_system(row, kit.system)) for name, row in safety]
    ledger.append(_entry(safety, source=f"{kit.name}-safety", file=SAFETY, templated=True,
                         licence="Apache-2.0", upstream="written for this project"))  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in ((DOMAIN, domain), (SAFETY, safety)):
        random.Random(_SEED).shuffle(rows)
        _write(out / name, rows)
    write_ledger(out, ledger)
    counts = dict(Counter(name for name, _ in domain))
    return KitRows(out, counts, len(safety), rejects.total)


def safety_pairs(kit: KitConfig) -> list[Pair]:
    """Return the (question, answer) pairs that the kit's safety file spells out.

    Raises:
        ConfigError: the file is malformed.
    """
    if not kit.safety:
        return []
    return list(_spelt(read_tables(kit_file(kit.safety), "rows", Template)))


def _spelt(templates: Iterable[Template]) -> Iterator[Pair]:
    for template in templates:
        for ask in template.ask:
            for first in template.fill:
                for second in template.fill_second:
                    question = ask.format(first, second)
                    yield question, template.answer[pick(question, len(template.answer))]


def _source_pairs(name: str) -> list[tuple[str, Pair]]:
    (source,) = select([name])
    made = pairs_of(name, fetch(source))
    if not any(made.values()):
        raise DataError(f"kit.sources has {name!r}: no questions are made of that source")
    return [(recipe, p) for recipe, pairs in made.items() for p in sampled(iter(pairs), _KIT_ROWS)]


def _file_rows(path: Path, rejects: Rejects) -> Iterator[Conversation]:
    for _, _, row in read_rows(path, "chat", rejects=rejects):
        assert isinstance(row, ChatRow)
        yield row.messages


def _conversation(pair: Pair) -> Conversation:
    question, answer = pair
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _with_system(row: Conversation, system: str) -> Conversation:
    """Open one row in three with the system prompt, by the hash of its question."""
    if row[0]["role"] == "system" or pick(f"system:{first_user_text(row)}", SYSTEM_IN):
        return row
    return [{"role": "system", "content": system}, *row]


def _of_source(name: str, rows: Sequence[tuple[str, Conversation]]) -> LedgerEntry:
    (source,) = select([name])
    return _entry(
        rows, source=name, file=DOMAIN, licence=source.licence, upstream=source.upstream,
        templated=True, package=source.package, version=source.version, sha256=source.sha256,
    )  # fmt: skip


def _of_file(path: Path, rows: Sequence[tuple[str, Conversation]]) -> LedgerEntry:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return _entry(
        rows, source=path.name, file=DOMAIN, sha256=sha256, licence="not stated",
        upstream="a file of whoever built the kit", templated=False,
    )  # fmt: skip


def _entry(
    rows: Sequence[tuple[str, Conversation]], *, source: str, file: str, licence: str,
    upstream: str, templated: bool, package: str = "", version: str = "", sha256: str = "",
) -> LedgerEntry:  # fmt: skip
    texts = ["".join(str(message["content"]) for message in row) for _, row in rows]
    return LedgerEntry(
        source=source, package=package, version=version, sha256=sha256, licence=licence,
        upstream=upstream, file=file, kind="sft", documents=len(texts),
        bytes=sum(len(text.encode()) for text in texts), hanzi=sum(map(count_hanzi, texts)),
        templated=templated,
    )  # fmt: skip


def _write(path: Path, rows: Iterable[tuple[str, Conversation]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for source, messages in rows:
            file.write(json.dumps({"messages": messages, "source": source}, ensure_ascii=False))
            file.write("\n")
