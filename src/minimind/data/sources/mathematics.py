"""Primary-school mathematics: chalkbase's problems, methods, knowledge points and lessons."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.archives import zip_json
from minimind.data.document import Document

NEEDS_PICTURE = re.compile(r"[下上如右左]图|图中|图形中|附图|图示|量一量|画一画|涂一涂|连一连")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its worked solution.

    Attributes:
        text: the problem as it is put to the model.
        solution: the worked solution.
        answer: the short answer.
        value: what a verifier compares with; None where the answer is free text.
        archetype: problems with the same one differ in their numbers only.
    """

    id: str
    text: str
    solution: str
    answer: str
    value: int | float | str | bool | list[object] | None
    archetype: str
    grade: int

    @property
    def worked_answer(self) -> str:
        """Return the solution, closed by a line that a verifier can find."""
        return f"{self.solution}\n答案：{self.answer}"

    @property
    def checkable(self) -> bool:
        """Tell whether the value is one number that the short answer agrees with."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float | str):
            return False
        value = str(self.value)
        return bool(_NUMBER.fullmatch(value)) and any(
            float(found) == float(value) for found in _NUMBER.findall(self.answer)
        )


def read_problems(archive: Path) -> Iterator[Problem]:
    """Yield the problems that can be solved without a picture."""
    for archetype in zip_json(archive, "chalkbase/data/archetypes.json"):
        if archetype["answer_form"] in {"drawing", "table_or_chart"}:
            continue
        for number, example in enumerate(archetype["rewritten_examples"]):
            text, solution = example["problem"].strip(), (example["solution"] or "").strip()
            answer = str(example["answer"] or "").strip()
            if text and solution and answer and not NEEDS_PICTURE.search(text):
                yield Problem(
                    f"{archetype['id']}.{number}", text, solution, answer,
                    example["answer_value"], archetype["id"],
                    int(archetype["difficulty_features"].get("grade") or 0),
                )  # fmt: skip


def problem_text(problem: Problem) -> str:
    """Return a problem as one text to read."""
    return f"题目：{problem.text}\n解答：{problem.solution}\n答案：{problem.answer}"


def read_knowledge(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, explanation) of the knowledge points."""
    for point in zip_json(archive, "chalkbase/data/knowledge_points.json"):
        text = point["description"].strip()
        if errors := point["typical_errors"]:
            text += f"常见的错误有：{'；'.join(error.strip('。') for error in errors)}。"
        yield point["name"], text


def read_chalkbase(archive: Path) -> Iterator[Document]:
    """Yield problems, then solving steps, knowledge points and lessons. Not the textbook quotes."""
    for problem in read_problems(archive):
        # The prompt travels along, so that a build can hold out all that has to do with it.
        yield Document(problem_text(problem), f"chalkbase:{problem.id}", {"prompt": problem.text})
    points = zip_json(archive, "chalkbase/data/knowledge_points.json")
    names = {point["id"]: point["name"] for point in points}
    for archetype in zip_json(archive, "chalkbase/data/archetypes.json"):
        steps = "\n".join(archetype["solution_steps"])
        errors = "\n".join(archetype.get("typical_errors") or [])
        about = names.get(archetype["primary_knowledge_point_id"], "")
        text = f"{about}这类题目的解题步骤：\n{steps}" + (
            f"\n容易出的错：\n{errors}" if errors else ""
        )
        yield Document(text, f"chalkbase:steps:{archetype['id']}")
    for number, (name, text) in enumerate(read_knowledge(archive)):
        yield Document(f"{name}：{text}", f"chalkbase:knowledge:{number}")
    for lesson in zip_json(archive, "chalkbase/data/lessons.json"):
        yield Document(f"《{lesson['title']}》：{lesson['summary']}", f"chalkbase:{lesson['id']}")
