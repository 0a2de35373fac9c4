"""Preference pairs from the model's own answers, checked by a verifier.

    problems with a known value -> the SFT model answers each several times -> the verifier compares
    the final value -> rejected: a wrong answer of its own; chosen: a right one of its own, else the
    published solution

What this is not: nobody ranked anything. The verifier sees the final value only, so a "right"
answer may have come by wrong steps, and the rows say so (`verifier-derived, on-policy`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minimind.data.document import is_held_out
from minimind.errors import ConfigError, DataError
from minimind.inference.decode import Completion
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer
from minimind.train.verifier import Quantity, Verdict, conclusion, expected_answer, verify

KIND = "verifier-derived, on-policy"
VERIFIER = "final-value"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, its published solution, and the value that its answer must have."""

    id: str
    prompt: str
    solution: str
    expected: Quantity
    source: str


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """How pairs are made.

    Attributes:
        samples: answers sampled for each problem.
        pairs: pairs kept for each problem, with different rejected answers.
        temperature: of sampling; high, so that mistakes are found.
        top_p: of sampling.
        max_new_tokens: an answer that isn't finished by then is not used.
        batch_rows: answers decoded side by side.
        limit: only so many problems, up to half of them held out: a small limit must leave enough
            to measure on. None: all.
        held_out_share: held-out problems (by the hash of the prompt, as in SFT) are marked.
        chosen: `own` prefers a right answer of the model itself; `published` never uses one.
        seed: makes the answers repeatable.
    """

    samples: int = 4
    pairs: int = 1
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 192
    batch_rows: int = 64
    limit: int | None = None
    held_out_share: float = 0.05
    chosen: str = "own"
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("samples", "pairs", "batch_rows"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {getattr(self, name)}: must be at least 1")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit {self.limit}: must be at least 1")
        if not 0 <= self.held_out_share < 1:
            raise ConfigError(f"--held-out-share {self.held_out_share}: from 0 to below 1")
        if self.chosen not in {"own", "published"}:
            raise ConfigError(f"--chosen {self.chosen!r}: must be own or published")

    def sampling(self, stop_ids: tuple[int, ...]) -> SamplingParams:
        """Return the engine's parameters; no repetition penalty, since sums repeat their digits."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=1.0,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            stop_ids=stop_ids,
        )


@dataclass(frozen=True, slots=True)
class PreferenceSet:
    """Pairs, and what became of every problem and answer.

    Attributes:
        rows: {"prompt", "chosen", "rejected": messages, "reason", "source", "verifier", ...}.
        counts: how many problems, answers and pairs of each kind (see `make_pairs`).
        tokens: mean length in tokens of the chosen and of the rejected answers. A large difference
            means that DPO can learn the length instead of the arithmetic.
    """

    rows: list[dict[str, Any]]
    counts: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, float] = field(default_factory=dict)


def read_problems(path: Path) -> tuple[list[Problem], Counter[str]]:
    """Read problems.jsonl: `prompt`, `solution`, `answer_value`, and `id`, `source` where given.

    Returns:
        The problems that can be checked, and counts of the rows that can't be used, by reason.

    Raises:
        DataError: the file can't be read, or no problem in it can be checked.
    """
    problems, skipped = [], Counter()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"--problems {path}: {error}. `minimind data build` writes problems.jsonl"
        ) from error
    for number, line in enumerate(lines, 1):
        problem = _problem(line, origin=f"{path.name}:{number}") if line.strip() else "empty line"
        if isinstance(problem, Problem):
            problems.append(problem)
        else:
            skipped[problem] += 1
    if not problems:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
        raise DataError(
            f"--problems {path}: no problem with a checkable answer ({reasons or 'empty file'}); "
            'rows are {"prompt": str, "solution": str, "answer_value": number}'
        )
    return problems, skipped


def _problem(line: str, *, origin: str) -> Problem | str:
    """Return the problem of a line, or why it is none."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return "row is not JSON"
    if not isinstance(row, dict):
        return "row is not an object"
    prompt, solution = row.get("prompt"), row.get("solution")
    if not (isinstance(prompt, str) and prompt.strip()):
        return "row has no prompt"
    if not (isinstance(solution, str) and solution.strip()):
        return "row has no solution"
    expected = expected_answer(row.get("answer_value"), solution)
    if expected is None:
        return "answer is not one number"
    if verify(solution, expected) != "right":
        return "verifier can't confirm the published solution"
    return Problem(
        str(row.get("id", origin)), prompt, solution, expected, str(row.get("source", "problems"))
    )


def make_preferences(
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    problems: Sequence[Problem],
    config: PreferenceConfig,
    on_answer: Callable[[int], None] | None = None,
) -> PreferenceSet:
    """Sample the model's answers to `problems` and make pairs of them.

    Args:
        model: after SFT; it is sampled from as it is.
        tokenizer: its tokenizer.
        problems: from `read_problems`.
        config: how many, and how they are sampled.
        on_answer: called as each answer is finished (for a progress bar).

    Raises:
        DataError: no problem fits the context.
    """
    context = model.config.max_position_embeddings
    wanted = _first(problems, config)
    prompts = [tokenizer.render(_user(p.prompt), add_generation_prompt=True).ids for p in wanted]
    used = [
        (problem, ids)
        for problem, ids in zip(wanted, prompts, strict=True)
        # The end of the turn is two tokens: <|im_end|> and the line break.
        if len(ids) + len(tokenizer.encode(problem.solution)) + 2 <= context
    ]
    if not used:
        raise DataError(
            f"none of the {len(wanted):,} problems fits the model's context of {context:,} tokens "
            f"together with its solution"
        )
    completions = Engine(model).complete(
        [ids for _, ids in used for _ in range(config.samples)],
        config.sampling(tuple(tokenizer.stop_ids)),
        batch_rows=config.batch_rows,
        on_finished=on_answer,
    )
    made = PreferenceSet([])
    made.counts["problems: longer than the context"] = len(wanted) - len(used)
    for number, (problem, _) in enumerate(used):
        own = completions[number * config.samples : (number + 1) * config.samples]
        made.rows.extend(make_pairs(problem, own, tokenizer, config=config, counts=made.counts))
    made.tokens.update(_mean_tokens(made.rows, tokenizer))
    return made


def _first(problems: Sequence[Problem], config: PreferenceConfig) -> list[Problem]:
    if config.limit is None:
        return list(problems)
    sides: dict[bool, list[Problem]] = {True: [], False: []}
    for problem in problems:
        sides[is_held_out(problem.prompt, config.held_out_share)].append(problem)
    held_out = sides[True][: max(config.limit // 2, config.limit - len(sides[False]))]
    return held_out + sides[False][: config.limit - len(held_out)]


def make_pairs(
    problem: Problem,
    completions: Iterable[Completion],
    tokenizer: Tokenizer,
    *,
    config: PreferenceConfig,
    counts: Counter[str],
) -> list[dict[str, Any]]:
    """Judge the sampled answers to one problem; return its pairs and add to `counts`.

    Degenerate cases are counted, not used: an answer that was cut off, one whose value can't be
    told, one that repeats another, a problem without a wrong answer.
    """
    counts["problems"] += 1
    answers: dict[Verdict, list[str]] = {"right": [], "wrong": [], "unclear": []}
    for completion in completions:
        counts["answers"] += 1
        text = tokenizer.decode(completion.ids, skip_special_tokens=True).strip()
        if completion.finish_reason != "stop":
            counts["answers: too long"] += 1
        elif text in answers["right"] + answers["wrong"]:
            counts["answers: identical to another"] += 1
        else:
            verdict = verify(text, problem.expected)
            counts[f"answers: {verdict}"] += 1
            answers[verdict].append(text)
    if not answers["wrong"]:
        counts["problems: no wrong answer sampled"] += 1
        return []
    own_right = answers["right"] if config.chosen == "own" else []
    chosen = own_right[0] if own_right else problem.solution
    counts["pairs: chosen is the model's own" if own_right else "pairs: chosen is published"] += 1
    rows = [
        _row(problem, chosen=chosen, rejected=wrong, own=bool(own_right), config=config)
        for wrong in answers["wrong"][: config.pairs]
    ]
    counts["pairs"] += len(rows)
    counts["pairs: held out"] += sum(row["held_out"] for row in rows)
    return rows


def write_preferences(
    made: PreferenceSet, out: Path, *, checkpoint: str, config: PreferenceConfig
) -> Path:
    """Write the rows to `out`, and beside it `<name>.meta.json`: how they came about.

    Returns:
        The path of the metadata.

    Raises:
        DataError: there is no pair, or the file can't be written.
    """
    if not made.rows:
        raise DataError(
            f"no preference pair came out: {dict(made.counts)}. A model that is never wrong or "
            f"never finishes gives none: raise --temperature, --samples or --max-new-tokens"
        )
    meta_path = out.with_suffix(".meta.json")
    meta = {
        "kind": KIND,
        "verifier": f"{VERIFIER}: only the final value is compared, never the steps",
        "checkpoint": checkpoint,
        "settings": asdict(config),
        "counts": dict(made.counts),
        "mean_tokens": made.tokens,
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in made.rows)
        out.write_text("".join(lines), encoding="utf-8")
        meta_text = json.dumps(meta, ensure_ascii=False, indent=2) + "\n"
        meta_path.write_text(meta_text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out {out}: {error}") from error
    return meta_path


def _user(prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}]


def _assistant(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def _row(
    problem: Problem, *, chosen: str, rejected: str, own: bool, config: PreferenceConfig
) -> dict[str, Any]:
    stated = " ".join(conclusion(rejected).split())[:60]
    unit = problem.expected.unit or ""
    return {
        "prompt": _user(problem.prompt),
        "chosen": _assistant(chosen),
        "rejected": _assistant(rejected),
        "id": problem.id,
        "reason": f"rejected concludes {stated!r}, the value is {problem.expected.value}{unit}",
        "chosen_from": "own right answer" if own else "published solution",
        "source": problem.source,
        "verifier": VERIFIER,
        "kind": KIND,
        "held_out": is_held_out(problem.prompt, config.held_out_share),
    }


def _mean_tokens(rows: Sequence[dict[str, Any]], tokenizer: Tokenizer) -> dict[str, float]:
    if not rows:
        return {}
    return {
        side: sum(len(tokenizer.encode(row[side][0]["content"])) for row in rows) / len(rows)
        for side in ("chosen", "rejected")
    }
