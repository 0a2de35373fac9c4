"""What the quickstart measures when all stages are done, on what none of them has read."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from minimind import checkpoint
from minimind.config import TrainConfig
from minimind.data.document import is_held_out
from minimind.eval import held_out
from minimind.eval.answers import answer_loss, preference_measures, solved_share
from minimind.eval.baselines import MAX_TRAINING_BYTES, start_compressors, unigram
from minimind.eval.bits_per_byte import bits_per_byte
from minimind.eval.choice import choice_items, choice_measures
from minimind.eval.results import Evaluation, Measure, Sample
from minimind.inference import SamplingParams, generate
from minimind.model import CausalLM
from minimind.quickstart.config import QUESTIONS_HELD_OUT, TEXT_HELD_OUT
from minimind.quickstart.words import CONTINUATIONS, QUESTIONS
from minimind.tokenizer import Tokenizer
from minimind.train.device import has_fast_bf16, pick_device
from minimind.train.preferences import read_problems

DOCUMENTS = 1000
"""Held-out documents of bits per byte, at most: the interval is then narrower than any difference
that matters, and a corpus of hundreds of thousands doesn't take hours."""

CONVERSATIONS = 300
"""Held-out conversations of the answer loss: its interval is then about 5 % of it."""

PROBLEMS = 100
CHOICES = 200
STAGES = ("start", "pretrain", "sft", "dpo")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Everything to measure on, read once."""

    text: held_out.TextSplit
    conversations: Sequence[held_out.Conversation]
    kinds: Sequence[str]
    pairs: Sequence[held_out.Pair]


ONLY_BUILT = "it has read the text of data/pretrain, not that of --text"

COMPRESSED_PER_SECOND = 400_000
"""Bytes of training text that both compressors read in a second of one core: 0.6 MB of 22 MB of it,
less of more."""

LEAST_COMPRESSED = 24 * 2**20
"""Less than this is never given to the compressors: the quickstart's own sources are 18 MB."""


def evaluate(
    out: Path, *, say: Callable[[str], None], seed: int, seconds: float = math.inf,
    own_text: bool = False,
) -> Evaluation:  # fmt: skip
    """Measure every stage of the quickstart in `out`.

    Args:
        out: the quickstart's folder.
        say: is told what is being measured.
        seed: of the draws, and of the random start.
        seconds: how long the compressors should take at most. From a corpus that is too large for
            that they read only the end.
        own_text: the model has read more than the folder's text, which is all that the baselines
            have read; their notes say so.
    """
    say("reading what was held out")
    data = _read(out, seed)
    readable = max(LEAST_COMPRESSED, min(MAX_TRAINING_BYTES, seconds * COMPRESSED_PER_SECOND))
    compressors = start_compressors(
        data.text.training, data.text.held_out, most_bytes=int(readable)
    )
    models, tokenizer = _models(out, seed)
    results = Evaluation()
    for stage, model in models.items():
        say(f"{stage}: bits per byte, answer loss, samples")
        measures = _language(model, tokenizer, data)
        if stage in ("sft", "dpo"):
            measures["solved_share"] = _solved(model, tokenizer, out)
        if stage == "dpo":
            measures |= preference_measures(
                model, models["sft"], tokenizer, data.pairs, precision=_precision()
            )
            start = preference_measures(
                models["sft"], models["sft"], tokenizer, data.pairs, precision=_precision()
            )
            results = results.adding("sft", {"dpo_loss": start["dpo_loss"]})
        results = results.adding(stage, measures)
        results = results.sampling(*_samples(stage, model, tokenizer, seed))
    say("four-choice questions")
    results = results.adding("pretrain", _choices(models["pretrain"], tokenizer, out, data))
    say("baselines that know no language: token frequencies, zstd, xz")
    baseline = unigram(tokenizer, data.text.training, data.text.held_out)
    for name, measure in {"unigram": baseline, **compressors.result()}.items():
        note = f"{measure.note}; {ONLY_BUILT}" if own_text else measure.note
        results = results.adding(name, {"bits_per_byte": replace(measure, note=note)})
    return results


def _read(out: Path, seed: int) -> HeldOut:
    conversations, kinds = held_out.conversations(
        [str(out / "data/sft.jsonl")], share=QUESTIONS_HELD_OUT, limit=CONVERSATIONS, seed=seed
    )
    return HeldOut(
        text=_at_most(held_out.split_text([str(out / "data/pretrain")], share=TEXT_HELD_OUT), seed),
        conversations=conversations,
        kinds=kinds,
        pairs=held_out.pairs([str(out / "preferences.jsonl")], share=QUESTIONS_HELD_OUT),
    )


def _at_most(text: held_out.TextSplit, seed: int) -> held_out.TextSplit:
    """Return the split with a seeded draw of `DOCUMENTS` of what was held out."""
    if len(text.held_out) <= DOCUMENTS:
        return text
    return replace(text, held_out=random.Random(seed).sample(text.held_out, DOCUMENTS))


def _models(out: Path, seed: int) -> tuple[dict[str, CausalLM], Tokenizer]:
    """Return the model of every stage; `start` is the random one that pretraining began with."""
    device = pick_device(TrainConfig())
    trained, tokenizer = checkpoint.load(out / "pretrain", device=device)
    torch.manual_seed(seed)
    start = CausalLM(trained.config).to(device).eval()
    models = {"start": start, "pretrain": trained}
    for stage in ("sft", "dpo"):
        models[stage], _ = checkpoint.load(out / stage, device=device)
    return models, tokenizer


def _precision() -> Literal["fp32", "bf16"]:
    return "bf16" if has_fast_bf16(pick_device(TrainConfig())) else "fp32"


def _language(model: CausalLM, tokenizer: Tokenizer, data: HeldOut) -> dict[str, Measure]:
    return {
        "bits_per_byte": bits_per_byte(
            model, tokenizer, data.text.held_out, precision=_precision()
        ),
        "answer_loss": answer_loss(
            model, tokenizer, data.conversations, groups=data.kinds, precision=_precision()
        ),
    }


def _solved(model: CausalLM, tokenizer: Tokenizer, out: Path) -> Measure:
    problems, _ = read_problems(out / "data/problems.jsonl")
    unseen = [p for p in problems if is_held_out(p.prompt, QUESTIONS_HELD_OUT)]
    return solved_share(model, tokenizer, unseen[:PROBLEMS])


def _choices(model: CausalLM, tokenizer: Tokenizer, out: Path, data: HeldOut) -> dict[str, Measure]:
    instructions = held_out.training_conversations(
        [str(out / "data/sft.jsonl")], share=QUESTIONS_HELD_OUT
    )
    items = choice_items(
        data.text.held_out, training=[*data.text.training, *instructions], limit=CHOICES
    )
    return choice_measures(model, tokenizer, items, precision=_precision())


def _samples(stage: str, model: CausalLM, tokenizer: Tokenizer, seed: int) -> list[Sample]:
    """Let every stage continue the same texts, and from SFT on answer the same questions."""
    params = SamplingParams(seed=seed, max_new_tokens=60)
    samples = [
        Sample(stage=stage, prompt=text, text=generate(model, tokenizer, text, params=params))
        for text in CONTINUATIONS
    ]
    for question in QUESTIONS:
        asked = [{"role": "user", "content": question}]
        answer = generate(model, tokenizer, asked, params=params)
        samples.append(Sample(stage=stage, prompt=question, text=answer))
    return samples
