"""Quality as a small classifier sees it: which of two collections a text is more like.

Bag of hashed runs of 1 to 3 characters, one weight a bucket, logistic regression: fastText's idea
(Joulin et al. 2016) at dimension one, in numpy. You say by example what is good and what isn't.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from minimind.data.cleaning.page import Drop, Filter, Page, ngrams
from minimind.data.document import Document
from minimind.errors import DataError

BUCKETS = 1 << 18
_CHARACTERS = 2_000
_ORDERS = (1, 2, 3)


def features(page: Page) -> np.ndarray:
    """Return the buckets of a text's beginning: (runs,) int64."""
    codes = page.codes[:_CHARACTERS]
    grams = [ngrams(codes, n) for n in _ORDERS]
    return (np.concatenate(grams) % np.uint64(BUCKETS)).astype(np.int64)


@dataclass(frozen=True)
class Classifier:
    """`weights` (BUCKETS,) float32 and a bias; the logit is the mean weight of a text's runs."""

    weights: np.ndarray
    bias: float

    def score(self, page: Page) -> float:
        """Return the probability that the text is of the good collection."""
        found = features(page)
        logit = self.bias + (float(self.weights[found].mean()) if len(found) else 0.0)
        return float(1 / (1 + np.exp(-np.clip(logit, -30, 30))))

    def save(self, path: Path) -> None:
        """Write an .npz that `load` reads."""
        np.savez_compressed(path, weights=self.weights.astype(np.float16), bias=self.bias)


@lru_cache(maxsize=2)
def load(path: str) -> Classifier:
    """Read a classifier.

    Raises:
        DataError: the file isn't there or isn't one.
    """
    try:
        with np.load(path) as file:
            return Classifier(file["weights"].astype(np.float32), float(file["bias"]))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"rules.quality.model = {path!r} can't be read: {error}. "
            "`minimind data quality --good FILES --bad FILES --out FILE.npz` makes one"
        ) from error


def train(good: Iterable[str], bad: Iterable[str], *, epochs: int = 4, seed: int = 0) -> Classifier:
    """Fit a classifier; both collections weigh the same, whatever their sizes.

    Raises:
        DataError: one of the collections is empty.
    """
    sides = [[features(Page(Document(text, ""))) for text in side] for side in (good, bad)]
    if not all(sides):
        raise DataError("a quality classifier needs texts of both collections")
    rows = [(found, label, 0.5 / len(side)) for side, label in zip(sides, (1.0, 0.0), strict=True)
            for found in side if len(found)]  # fmt: skip
    generator, count = np.random.default_rng(seed), len(rows)
    weights, bias, square = np.zeros(BUCKETS), 0.0, np.full(BUCKETS, 1e-8)
    for epoch in range(epochs):
        rate = 1.0 * (1 - epoch / epochs)
        for number in generator.permutation(count):
            found, label, weight = rows[number]
            logit = bias + weights[found].mean()
            error = (1 / (1 + np.exp(-np.clip(logit, -30, 30))) - label) * weight * count
            buckets, times = np.unique(found, return_counts=True)
            slope = error * times / len(found)
            square[buckets] += slope * slope  # Adagrad: rare runs learn as fast as common ones
            weights[buckets] -= rate * slope / np.sqrt(square[buckets])
            bias -= 0.01 * rate * error
    return Classifier(weights.astype(np.float32), float(bias))


@dataclass(frozen=True, kw_only=True)
class Quality(Filter):
    """Text that a classifier of yours finds less likely good than `minimum`. Off without a model.

    Attributes:
        model: a file that `minimind data quality` made from good and bad examples.
    """

    model: str | None = None
    minimum: float = 0.3

    def check(self, page: Page) -> Drop | None:
        """Return the score where it is too low."""
        if self.model is None:
            return None
        score = load(self.model).score(page)
        return None if score >= self.minimum else Drop(
            f"quality {score:.2f}, at least {self.minimum} wanted")  # fmt: skip
