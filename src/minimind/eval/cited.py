"""Figures that others published, shown beside measured ones and marked as cited.

Nobody here ran these: prompts, shots and scoring may differ. They are here because people compare.
Where the number of questions is known the interval is ours, from their share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minimind.eval.results import Measure
from minimind.eval.statistics import wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """One published figure.

    Attributes:
        model: as its publisher calls it.
        task: our name of the benchmark.
        value: the share that was right.
        n: questions, as published or as the benchmark has them.
        source: who says so, and where it was read if that is another place.
    """

    model: str
    task: str
    value: float
    n: int
    source: str

    def measure(self) -> Measure:
        """Return it with the interval that its n gives."""
        low, high = wilson(round(self.value * self.n), self.n)
        return Measure(
            value=self.value, low=low, high=high, n=self.n, unit="questions", chance=0.25,
            note=f"cited, not measured here: {self.source}",
        )  # fmt: skip


_MINIMIND = "README of github.com/jingyaogong/minimind"
_GATHERED = "published by the minimind project; read in a survey of the field, not at its source"
_CEVAL, _CMMLU = 1346, 11582
CITED = (
    Cited(model="minimind-v1 (26M)", task="ceval", value=351 / _CEVAL, n=_CEVAL, source=_MINIMIND),
    Cited(model="minimind (104M)", task="ceval", value=0.2489, n=_CEVAL, source=_GATHERED),
    Cited(model="minimind (104M)", task="cmmlu", value=0.2538, n=_CMMLU, source=_GATHERED),
    Cited(model="TinyLlama-1.1B", task="ceval", value=0.2571, n=_CEVAL, source=_GATHERED),
    Cited(model="TinyLlama-1.1B", task="cmmlu", value=0.2503, n=_CMMLU, source=_GATHERED),
)


def cited_for(tasks: Iterable[str]) -> list[Cited]:
    """Return what is published about these tasks."""
    wanted = set(tasks)
    return [one for one in CITED if one.task in wanted]
