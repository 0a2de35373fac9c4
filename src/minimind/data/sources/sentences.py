"""Graded Chinese sentences with translations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from minimind.data.archives import zip_json
from minimind.data.document import Document
from minimind.data.sources.text import documents, grouped


def read_pairs(archive: Path) -> Iterator[tuple[str, str, int, str]]:
    """Yield (Chinese, English, HSK level 1-6, topic).

    Some translations were never written and say `placeholder-...`: those sentences are left out.
    """
    for entry in zip_json(archive, "hsk_sentences_audio/data/sentences.json"):
        english = entry["translation"]["en"]
        if not english.startswith("placeholder"):
            yield entry["chinese"], english, entry["hsk_level"], entry["topic"]


def read_hsk(archive: Path) -> Iterator[Document]:
    """Yield texts of about ten sentences of one level and topic, each with its translation."""

    def texts() -> Iterator[str]:
        pairs = sorted(read_pairs(archive), key=lambda pair: (pair[2], pair[3]))
        for _, group in itertools.groupby(pairs, key=lambda pair: (pair[2], pair[3])):
            yield from grouped((f"{zh} {en}" for zh, en, *_ in group), characters=500)

    return documents(texts(), "hsk")
