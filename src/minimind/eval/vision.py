"""What a model makes of images: is a caption likelier with its image, and which of four is it?

Every figure is paired: the same caption after the right image, after another one, and after none.
Choices are scored by how much the image raises a caption's likelihood over having seen none
(pointwise mutual information), so that a common word isn't chosen for being common; the choice by
plain likelihood is given beside it. Distractors are captions of other concepts, drawn at random.

Axes: B rows, T positions, I images, P positions of an image, E features.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from minimind.data.batch import IGNORE
from minimind.data.image_rows import Example
from minimind.data.images import feature_store
from minimind.errors import DataError
from minimind.eval.statistics import wilson
from minimind.inference.decode import evaluating
from minimind.model import CausalLM, token_log_probs
from minimind.tokenizer import Tokenizer
from minimind.vision.store import BATCH, FeatureStore

CHOICES = 4
ROWS = 32
"""Captions scored at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean over pairs with its 95 % interval (bootstrap over the pictures).

    Attributes:
        value: nats a caption token.
    """

    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with its 95 % interval (Wilson)."""

    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionScores:
    """How a model sees one set of pictures.

    Attributes:
        name: of the set.
        pictures: how many.
        right: loss of the captions after their images, nats a token.
        wrong: after another picture of the set.
        none: after the question alone.
        wrong_minus_right: paired.
        none_minus_right: paired.
        choice: right caption chosen of four, by what the image adds; None: the set has fewer than
            four different captions.
        choice_plain: by likelihood alone.
    """

    name: str
    pictures: int
    right: float
    wrong: float
    none: float
    wrong_minus_right: Difference
    none_minus_right: Difference
    choice: Share | None
    choice_plain: Share | None

    def to_json(self) -> dict[str, Any]:
        """Return it as builtins."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Choice:
    """How much a picture raises the likelihood of four captions; the first is the right one.

    Attributes:
        captions: the right one, then three of other concepts, fewer in a set with fewer.
        gains: log-probability after the picture less that after none, in nats.
    """

    captions: tuple[str, ...]
    gains: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One caption to score: after which image, by its key; None: after none."""

    question: str
    caption: str
    key: str | None


def measure(
    model: CausalLM,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    *,
    name: str,
    seed: int = 0,
) -> tuple[VisionScores, list[Choice]]:
    """Score a set of pictures with captions; say what was chosen for each.

    Args:
        model: with eyes.
        tokenizer: its own.
        examples: rows of one image, one question and one answer; one a concept is best.
        name: what the set is called.
        seed: which wrong pictures and captions are drawn.

    Raises:
        DataError: the model can't see, or all captions are the same.
    """
    if model.config.vision is None:
        raise DataError("this model can't see images: `minimind train vision` gives it eyes")
    others = _distractors(examples, seed=seed, name=name)
    store = feature_store(model.config.vision)
    keys = stored_keys(store, examples)
    captions = [answer_of(example) for example in examples]
    questions = [question_of(example) for example in examples]
    asked: list[Asked] = []
    for i, drawn in enumerate(others):
        for j in (i, *drawn):
            asked += [Asked(questions[i], captions[j], keys[i]),
                      Asked(questions[i], captions[j], None)]  # fmt: skip
        asked.append(Asked(questions[i], captions[i], keys[drawn[0]]))
    scores = np.array(score(model, tokenizer, store, asked)).reshape(len(examples), -1, 2)
    gains = scores[:, 0:-1:2, 0] - scores[:, 1:-1:2, 0]
    choices = [
        Choice(tuple(captions[j] for j in (i, *others[i])), tuple(gains[i].tolist()))
        for i in range(len(examples))
    ]
    return _summed(name, scores), choices


def _summed(name: str, scores: np.ndarray) -> VisionScores:
    """Return the figures of (pictures, candidates with and without + wrong, (nats, tokens))."""
    log_p, tokens = scores[..., 0], scores[..., 1]
    per_token = -log_p / tokens
    right, none, wrong = per_token[:, 0], per_token[:, 1], per_token[:, -1]
    with_image, without = log_p[:, 0:-1:2], log_p[:, 1:-1:2]
    shares = [_share(_first_is_best(with_image - without)), _share(_first_is_best(with_image))]
    choice, choice_plain = shares if with_image.shape[1] == CHOICES else (None, None)
    return VisionScores(
        name=name, pictures=len(scores), right=float(right.mean()), wrong=float(wrong.mean()),
        none=float(none.mean()), wrong_minus_right=_difference(wrong - right),
        none_minus_right=_difference(none - right), choice=choice, choice_plain=choice_plain,
    )  # fmt: skip


def _first_is_best(values: np.ndarray) -> np.ndarray:
    """Tell of each row whether its first value is above all others; a tie is a miss."""
    return values[:, 0] > values[:, 1:].max(1)


def _difference(values: np.ndarray) -> Difference:
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(n=len(values), value=float(values.mean()), low=float(low), high=float(high))


def _share(hits: np.ndarray) -> Share:
    low, high = wilson(int(hits.sum()), len(hits))
    return Share(n=len(hits), value=float(hits.mean()), low=low, high=high)


def _distractors(examples: Sequence[Example], *, seed: int, name: str) -> list[list[int]]:
    """Return for each example three others; fewer, but as many for each, in a set with fewer."""
    rng = random.Random(seed)
    drawn = [_others(i, examples, rng) for i in range(len(examples))]
    if not (fewest := min(map(len, drawn), default=0)):
        raise DataError(
            f"{name}: all of its {len(examples)} pictures have the same caption or concept; there "
            "is no wrong one to compare with"
        )
    return [others[:fewest] for others in drawn]


def _others(i: int, examples: Sequence[Example], rng: random.Random) -> list[int]:
    """Return up to three examples of other concepts, each of another caption."""
    used, drawn = set(_names(examples[i])), list[int]()
    for j in rng.sample(range(len(examples)), len(examples)):
        if used.isdisjoint(_names(examples[j])):
            used.update(_names(examples[j]))
            drawn.append(j)
        if len(drawn) == CHOICES - 1:
            break
    return drawn


def _names(example: Example) -> tuple[str, str]:
    """Return what tells a picture from others: its concept (`#`: no caption) and its caption."""
    return f"#{example.row.concept}", answer_of(example)


def stored_keys(store: FeatureStore, examples: Sequence[Example]) -> list[str]:
    """Return the keys of the examples' (first) images, encoding those that are not stored."""
    keys: list[str] = []
    for begin in range(0, len(examples), BATCH):  # encoded together: one by one costs double
        part = examples[begin : begin + BATCH]
        found, new = store.look([example.images[0] for example in part])
        store.add(new)
        keys += found
    return keys


@torch.no_grad()
def score(
    model: CausalLM, tokenizer: Tokenizer, store: FeatureStore, asked: Sequence[Asked]
) -> list[tuple[float, int]]:
    """Return (log-probability in nats, tokens) of each caption, its end of turn not counted."""
    results: list[tuple[float, int]] = [(0.0, 0)] * len(asked)
    rendered = [_render(model, tokenizer, one) for one in asked]
    with evaluating(model):
        # Rows with an image and rows without can't share a batch.
        for sees in (True, False):
            members = [i for i, one in enumerate(asked) if (one.key is not None) == sees]
            members.sort(key=lambda i: len(rendered[i][0]))
            for begin in range(0, len(members), ROWS):
                part = members[begin : begin + ROWS]
                keys = [key for i in part if (key := asked[i].key) is not None]
                features = store.get(keys)[:, None] if keys else None
                rows = _log_probs(model, [rendered[i] for i in part], features)
                for i, row in zip(part, rows, strict=True):
                    results[i] = row
    return results


def _render(model: CausalLM, tokenizer: Tokenizer, one: Asked) -> tuple[list[int], list[int]]:
    """Return ids and labels; of the answer the caption is learnt, not the end of its turn."""
    vision = model.config.vision
    assert vision is not None
    image = [[vision.image_token_id] * vision.positions] if one.key is not None else []
    parts: list[dict[str, str]] = [{"type": "image"}] * len(image)
    question = {"role": "user", "content": [*parts, {"type": "text", "text": one.question}]}
    answer = {"role": "assistant", "content": one.caption}
    whole = tokenizer.render([question, answer], images=image)
    ids = whole.ids
    end = max(n for n, learnt in enumerate(whole.mask) if learnt)  # <|im_end|>
    labels = [IGNORE] * len(ids)
    for t in range(1, end):
        if whole.mask[t]:
            labels[t - 1] = ids[t]
    return ids, labels


def _log_probs(
    model: CausalLM, rows: Sequence[tuple[list[int], list[int]]], features: torch.Tensor | None
) -> list[tuple[float, int]]:
    T = max(len(ids) for ids, _ in rows)
    ids_BT = torch.zeros(len(rows), T, dtype=torch.int64)
    labels_BT = torch.full((len(rows), T), IGNORE)
    for number, (ids, labels) in enumerate(rows):
        ids_BT[number, : len(ids)] = torch.tensor(ids)
        labels_BT[number, : len(labels)] = torch.tensor(labels)
    device = model.model.norm.weight.device
    hidden = model(
        ids_BT.to(device),
        image_features=None if features is None else features.to(device),
        logits="none",
    ).hidden_BTD
    log_p_N = token_log_probs(
        hidden.flatten(0, 1), model.output_weight, labels_BT.flatten().to(device)
    )
    sums = log_p_N.view(labels_BT.shape).sum(1).tolist()
    return list(zip(sums, (labels_BT != IGNORE).sum(1).tolist(), strict=True))


def question_of(example: Example) -> str:
    """Return what the user asks, without the image."""
    content = example.row.messages[0]["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return "".join(part["text"] for part in parts if part["type"] == "text")


def answer_of(example: Example) -> str:
    """Return the first answer."""
    return str(next(m["content"] for m in example.row.messages if m["role"] == "assistant"))
