"""From packages to the files that the stages read: pretraining text, instructions, problems.

Nothing that is held out is ever trained on, on any side:
a problem is held out by the hash of its text as the user puts it. All that mentions a held-out
problem is left out of the pretraining text; in `sft.jsonl` and `problems.jsonl` held-out rows stay,
and the loader and the preference maker leave them out of training by the same hash.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minimind.data.catalogue import Source, select
from minimind.data.conversations import own_conversations
from minimind.data.document import Document, is_held_out
from minimind.data.fetch import OnProgress, fetch_all
from minimind.data.instructions import RECIPES, Pair, sampled
from minimind.data.ledger import LedgerEntry, write_ledger
from minimind.data.pairs import PREFERENCE_RECIPES
from minimind.data.sources.mathematics import Problem, read_problems
from minimind.data.sources.text import count_hanzi
from minimind.errors import DataError

HELD_OUT_SHARE = 0.1
"""Problems whose hash is below this are not in the pretraining text. Held-out sets are nested (a
text held out at 1 % is held out at 10 %), so this covers every `data.validation_share` up to it."""

POETRY_SHARE = 1 / 3
"""Verse may be at most this share of the pretraining bytes: more drowns modern prose."""

SHUFFLE_SEED = 20_261_122
"""Fixed: a build of the same sources gives the same files, byte for byte."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build left: the folder and the ledger."""

    directory: Path
    ledger: list[LedgerEntry]


def build(
    names: Iterable[str],
    out: Path,
    *,
    on_progress: OnProgress = lambda source, state: None,
) -> Built:
    """Fetch sources; write `pretrain/`, the rows of each stage, and `ledger.json`.

    The rows: `sft.jsonl`, `self.jsonl` (who it is), `problems.jsonl`, and `preference.jsonl` where
    a source has two answers to choose from.

    Args:
        names: sources, or the groups `embedded` and `full`.
        out: a folder; made if it isn't there, files of the same names are replaced.
        on_progress: called as each source is fetched and `read`.

    Raises:
        DataError: a name is not in the catalogue, or `out` is a file.
        FetchError: a source can't be had.
        MissingExtraError: a source needs opencc.
    """
    sources = select(names)
    if not sources:
        raise DataError("no source was named. Try: minimind data build --sources embedded")
    paths = fetch_all(sources, on_progress=on_progress)
    try:
        (out / "pretrain").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} can't be made a folder: {error}. Choose another --out") from error
    ledger = _write_pretrain(sources, paths, out, on_progress)
    ledger += _write_instructions(sources, paths, out)
    ledger += _write_preferences(sources, paths, out)
    ledger += _write_problems(sources, paths, out)
    write_ledger(out, ledger)
    return Built(out, ledger)


def _write_pretrain(
    sources: list[Source], paths: dict[str, Path], out: Path, on_progress: OnProgress
) -> list[LedgerEntry]:
    seen: set[bytes] = set()
    entries: list[LedgerEntry] = []
    for source in sorted(sources, key=lambda source: source.name == "poetry"):  # verse last
        documents = without_held_out_problems(source.read(paths[source.name]))
        documents = list(_deduplicated(documents, seen))
        if source.name == "poetry" and entries:
            limit = sum(entry.bytes for entry in entries) * POETRY_SHARE / (1 - POETRY_SHARE)
            documents = _thinned(documents, int(limit))
        path = out / "pretrain" / f"{source.name}.jsonl"
        known = {"source": source.name, "licence": source.licence}  # `data clean` asks for it
        _write(path, ({"text": d.text, "id": d.id} | known for d in documents))
        texts = [document.text for document in documents]
        entries.append(_entry(source, path.relative_to(out), "pretrain", texts, source.templated))
        on_progress(source, "read")
    return entries


def without_held_out_problems(documents: Iterable[Document]) -> Iterator[Document]:
    """Drop every document that contains a held-out problem, wherever it stands in it.

    Problems are those documents that carry their `prompt` in `meta`.
    """
    documents = list(documents)
    prompts = {p for d in documents if (p := d.meta.get("prompt"))}
    held_out = [prompt for prompt in prompts if is_held_out(prompt, HELD_OUT_SHARE)]
    for document in documents:
        if not any(prompt in document.text for prompt in held_out):
            yield document


def _deduplicated(documents: Iterable[Document], seen: set[bytes]) -> Iterator[Document]:
    for document in documents:
        digest = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield document


def _thinned(documents: list[Document], limit: int) -> list[Document]:
    """Keep about `limit` bytes, chosen by the hash of the text, in order."""
    total = sum(len(document.text.encode()) for document in documents)
    # A hash of its own: with the held-out hash all held-out documents would be kept.
    share = min(1.0, limit / max(total, 1))
    return [document for document in documents if is_held_out(f"thin:{document.text}", share)]


def _write_instructions(
    sources: list[Source], paths: dict[str, Path], out: Path
) -> list[LedgerEntry]:
    by_name = {source.name: source for source in sources}
    rows: list[dict[str, Any]] = []
    entries: list[LedgerEntry] = []
    for recipe in RECIPES:
        if recipe.source in by_name:
            pairs = sampled(recipe.pairs(paths[recipe.source]), recipe.rows)
            made = [_row(pair, recipe.source, templated=recipe.templated) for pair in pairs]
            texts = [question + answer for question, answer in pairs]
            entries.append(
                _entry(by_name[recipe.source], Path("sft.jsonl"), "sft", texts, recipe.templated)
            )
            rows += made
    own = list(own_conversations())
    # A file of its own: a few hundred rows need a weight to be heard among twenty thousand.
    _write(
        out / "self.jsonl",
        ({"messages": m, "source": "minimind", "templated": False} for m in own),
    )
    texts = ["".join(message["content"] for message in messages) for messages in own]
    entries.append(
        LedgerEntry(source="minimind", package="minimind", version="", sha256="",
                    licence="Apache-2.0", upstream="written for this project",
                    file="self.jsonl", kind="sft", documents=len(own),
                    bytes=sum(len(text.encode()) for text in texts),
                    hanzi=sum(map(count_hanzi, texts)), templated=False)
    )  # fmt: skip
    random.Random(SHUFFLE_SEED).shuffle(rows)
    _write(out / "sft.jsonl", rows)
    return entries


def _write_preferences(
    sources: list[Source], paths: dict[str, Path], out: Path
) -> list[LedgerEntry]:
    """Write `preference.jsonl` from the sources that have two answers, if there is one."""
    rows: list[dict[str, Any]] = []
    entries: list[LedgerEntry] = []
    for source in sources:
        if source.name in PREFERENCE_RECIPES:
            made = list(PREFERENCE_RECIPES[source.name](paths[source.name]))
            rows += [asdict(pair) | {"source": source.name} for pair in made]
            texts = [pair.prompt + pair.chosen + pair.rejected for pair in made]
            entries.append(_entry(source, Path("preference.jsonl"), "preference", texts, False))
    if rows:
        random.Random(SHUFFLE_SEED).shuffle(rows)
        _write(out / "preference.jsonl", rows)
    return entries


def _row(pair: Pair, source: str, *, templated: bool) -> dict[str, Any]:
    question, answer = pair
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "source": source, "templated": templated}


def _write_problems(sources: list[Source], paths: dict[str, Path], out: Path) -> list[LedgerEntry]:
    for source in sources:
        if source.name == "chalkbase":
            problems = {p.text: p for p in read_problems(paths["chalkbase"]) if p.checkable}
            rows = [_problem_row(problem) for problem in problems.values()]
            _write(out / "problems.jsonl", rows)
            return [_entry(source, Path("problems.jsonl"), "problems", list(problems), False)]
    return []


def _problem_row(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem.id, "prompt": problem.text, "solution": problem.worked_answer,
        "answer": problem.answer, "answer_value": problem.value,
        "archetype": problem.archetype, "grade": problem.grade, "source": "chalkbase",
    }  # fmt: skip


def _entry(source: Source, file: Path, kind: Any, texts: list[str], templated: bool) -> LedgerEntry:
    return LedgerEntry(
        source=source.name, package=source.package, version=source.version, sha256=source.sha256,
        licence=source.licence, upstream=source.upstream, file=file.as_posix(), kind=kind,
        documents=len(texts), bytes=sum(len(text.encode()) for text in texts),
        hanzi=sum(map(count_hanzi, texts)), templated=templated,
    )  # fmt: skip


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
