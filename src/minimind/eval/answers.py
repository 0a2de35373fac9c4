"""How well instructions are answered: the loss on answers, preferences, problems solved.

Conversations are rendered by the tokenizer, whose mask says which tokens are the assistant's; only
those (and the `<|im_end|>` that ends each answer) are scored, exactly as in SFT. What is longer
than the model's context is cut at its end; what then has no answer token left is skipped and
counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minimind.data.batch import IGNORE
from minimind.errors import DataError
from minimind.eval.results import Measure
from minimind.eval.scoring import Precision, Row, label_log_probs, next_token_row
from minimind.eval.statistics import bootstrap_ratio, ratio_measure, share_measure
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.tokenizer import Message, Tokenizer
from minimind.train.preferences import Problem
from minimind.train.verifier import verify

Conversation = Sequence[Message]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two whole conversations that differ in their answer."""

    chosen: Conversation
    rejected: Conversation


def answer_loss(
    model: CausalLM,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    *,
    groups: Sequence[str] | None = None,
    precision: Precision = "fp32",
    batch_tokens: int = 8192,
) -> Measure:
    """Return the mean loss in nats per answer token, bootstrapped over conversations.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        conversations: held-out ones.
        groups: the kind of each conversation, for the figure by kind.
        precision: of the forward pass.
        batch_tokens: slots in one forward pass.

    Raises:
        DataError: no conversation has an answer within the context.
    """
    rows = [answer_row(model, tokenizer, conversation) for conversation in conversations]
    counts = [sum(label != IGNORE for label in labels) for _, labels in rows]
    kept = [i for i, count in enumerate(counts) if count]
    if not kept:
        raise DataError("no held-out conversation has an answer within the model's context")
    scores = label_log_probs(
        model, [rows[i] for i in kept], precision=precision, batch_tokens=batch_tokens
    )
    return ratio_measure(
        [-float(log_probs.sum(dtype="float64")) for log_probs in scores],
        [float(counts[i]) for i in kept],
        unit="conversations",
        groups=[groups[i] for i in kept] if groups is not None else None,
        details={"answer_tokens": sum(counts), "skipped": len(rows) - len(kept)},
        note="nats per answer token, <|im_end|> included",
    )


def preference_measures(
    policy: CausalLM,
    reference: CausalLM,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    *,
    beta: float = 0.1,
    precision: Precision = "fp32",
) -> dict[str, Measure]:
    """Return how far a policy prefers the chosen answers, on held-out pairs.

    The implicit reward of DPO (Rafailov et al. 2023) is `beta * (log p_policy - log p_reference)`,
    summed over an answer's tokens.

    Returns:
        `preference_accuracy`: share of pairs whose chosen answer has the higher implicit reward (a
        policy that is its reference has none: its accuracy is 0 by ties, so it isn't taken for it);
        `preference_margin`: mean difference of the rewards; `dpo_loss`: mean -log sigmoid(margin),
        ln 2 = 0.693 for the reference itself; `preference_accuracy_raw`: share of pairs whose
        chosen answer is the likelier one under the policy, with the reference's in `details`.

    Raises:
        DataError: no pair has both answers within the context.
    """
    rows = [
        answer_row(policy, tokenizer, side)
        for pair in pairs
        for side in (pair.chosen, pair.rejected)
    ]
    has_answer = [any(label != IGNORE for label in labels) for _, labels in rows]
    kept = [i for i in range(0, len(rows), 2) if has_answer[i] and has_answer[i + 1]]
    if not kept:
        raise DataError("no held-out pair has both answers within the model's context")
    sides = [rows[j] for i in kept for j in (i, i + 1)]
    policy_P2 = _sums(policy, sides, precision)
    reference_P2 = _sums(reference, sides, precision)
    reward_P2 = beta * (policy_P2 - reference_P2)
    margin_P = reward_P2[:, 0] - reward_P2[:, 1]
    skipped = {"skipped": len(pairs) - len(kept)}
    return {
        "preference_accuracy": share_measure(
            (margin_P > 0).tolist(), unit="pairs", chance=0.5, details=skipped | {"beta": beta},
            note="the chosen answer has the higher implicit reward",
        ),
        "preference_margin": _mean(margin_P, note=f"implicit reward at beta = {beta}"),
        "dpo_loss": _mean(np.logaddexp(0.0, -margin_P), note="0.693 before any training"),
        "preference_accuracy_raw": share_measure(
            (policy_P2[:, 0] > policy_P2[:, 1]).tolist(), unit="pairs", chance=0.5,
            details={"reference": float((reference_P2[:, 0] > reference_P2[:, 1]).mean())},
            note="the chosen answer is the likelier one, whatever the reference says",
        ),
    }  # fmt: skip


def answer_row(model: CausalLM, tokenizer: Tokenizer, conversation: Conversation) -> Row:
    """Render a conversation to (inputs, labels), cut to the model's context."""
    rendered = tokenizer.render(conversation)
    length = model.config.max_position_embeddings + 1
    return next_token_row(rendered.ids[:length], rendered.mask[:length])


def _sums(model: CausalLM, rows: Sequence[Row], precision: Precision) -> np.ndarray:
    """Return (P, 2): the summed log-probability of the chosen and of the rejected answer."""
    scores = label_log_probs(model, rows, precision=precision)
    return np.array([log_probs.sum(dtype=np.float64) for log_probs in scores]).reshape(-1, 2)


def _mean(values_P: np.ndarray, *, note: str) -> Measure:
    low, high = bootstrap_ratio(values_P.tolist(), [1.0] * len(values_P))
    value = float(values_P.mean()) if len(values_P) else math.nan
    return Measure(value=value, low=low, high=high, n=len(values_P), unit="pairs", note=note)


def solved_share(
    model: CausalLM,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int = 192,
    batch_rows: int = 64,
) -> Measure:
    """Return the share of problems whose final value is right, decoding greedily.

    An answer counts only if it ends by itself and the verifier is sure of it; only the value is
    checked, not the way to it. `details` counts right, wrong, unclear and unfinished answers.

    Args:
        model: after SFT or DPO.
        tokenizer: its tokenizer.
        problems: held-out ones, from `minimind.train.preferences.read_problems`.
        max_new_tokens: an answer that isn't finished by then is not solved.
        batch_rows: problems decoded side by side.

    Raises:
        DataError: no problem fits the context.
    """
    prompts = [
        tokenizer.render([{"role": "user", "content": p.prompt}], add_generation_prompt=True).ids
        for p in problems
    ]
    fitting = [
        i for i, ids in enumerate(prompts) if len(ids) < model.config.max_position_embeddings
    ]
    if not fitting:
        raise DataError("no held-out problem fits the model's context")
    params = SamplingParams(
        temperature=0.0, repetition_penalty=1.0, max_new_tokens=max_new_tokens,
        stop_ids=tuple(tokenizer.stop_ids),
    )  # fmt: skip
    completions = Engine(model).complete(
        [prompts[i] for i in fitting], params, batch_rows=batch_rows
    )
    outcomes = []
    for i, completion in zip(fitting, completions, strict=True):
        text = tokenizer.decode(completion.ids, skip_special_tokens=True)
        finished = completion.finish_reason == "stop"
        outcomes.append(verify(text, problems[i].expected) if finished else "unfinished")
    counts = {name: outcomes.count(name) for name in ("right", "wrong", "unclear", "unfinished")}
    return share_measure(
        [outcome == "right" for outcome in outcomes],
        unit="problems",
        details=counts | {"too_long": len(problems) - len(fitting)},
        note="final value checked by the verifier, greedy decoding",
    )
