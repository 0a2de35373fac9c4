"""Questions a second of our lm-eval model beside lm-eval's own `hf` model, on the same requests.

    python bench/eval.py runs/quickstart/dpo --data FOLDER --shots 5 --questions 200

FOLDER holds cmmlu*.jsonl (see docs/evaluate.md). Both get the same strings (question, four
letters) in one call; hf is run at each batch size on the first of them. Reports the largest
difference of the log-likelihoods as well, and how many questions get the same letter.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from minimind import checkpoint
from minimind.eval.lm_eval_model import MiniMindLM
from minimind.eval.tasks import maker_of
from minimind.eval.tasks.base import TaskOptions
from minimind.eval.tasks.exams import LETTER, ExamTask


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to ask."""

    checkpoint: tyro.conf.Positional[str]
    data: Path
    task: str = "cmmlu"
    shots: int = 5
    questions: int = 200
    hf_questions: int = 40
    """The first so many of them by hf."""
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Of hf; 1 is its default."""
    threads: int = 2
    json: bool = False


def main() -> None:
    args = tyro.cli(Args)
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    directory = checkpoint.resolve(args.checkpoint)
    ours = MiniMindLM(str(directory))
    requests = make_requests(args, ours)
    figures: dict[str, Any] = {"threads": args.threads, "shots": args.shots}
    seconds, our_scores = timed(ours, requests)
    figures["ours"] = args.questions / seconds
    part = requests[: 4 * args.hf_questions]
    scores = our_scores[: len(part)]
    for size in args.batch_sizes:
        theirs = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=size)
        seconds, their_scores = timed(theirs, part)
        figures[f"hf, batch {size}"] = args.hf_questions / seconds
        gaps = [abs(a[0] - b[0]) for a, b in zip(scores, their_scores, strict=True)]
        figures["largest gap"] = max(figures.get("largest gap", 0.0), *gaps)
        figures["same letter"] = sum(
            best(scores, i) == best(their_scores, i) for i in range(args.hf_questions)
        )
    figures["of"] = args.hf_questions
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>14}  {value:.4g}" if isinstance(value, float) else f"{name:>14}  {value}")


def make_requests(args: Args, model: MiniMindLM) -> list[Instance]:
    """Return four requests a question, subject after subject, prompts cut by whole shots."""
    options = TaskOptions(data=(args.data,), shots=args.shots)
    task = maker_of(args.task)(options)
    assert isinstance(task, ExamTask)
    requests = []
    for item in task.items()[: args.questions]:
        prompt, _ = task.fit(model.subject, item.extra["row"], LETTER)
        for letter in LETTER.answers(item.extra["row"]):
            requests.append(Instance("loglikelihood", {}, (prompt, letter), len(requests)))
    return requests


def timed(model: Any, requests: list[Instance]) -> tuple[float, list[tuple[float, bool]]]:
    """Return the seconds that all requests took, tokenizing included, and the scores."""
    model.loglikelihood(requests[:4], disable_tqdm=True)  # first use: kernels, caches
    started = time.perf_counter()
    scores = model.loglikelihood(requests, disable_tqdm=True)
    return time.perf_counter() - started, scores


def best(scores: list[tuple[float, bool]], question: int) -> int:
    """Return the likeliest letter of a question."""
    own = [log_prob for log_prob, _ in scores[4 * question : 4 * question + 4]]
    return own.index(max(own))


if __name__ == "__main__":
    main()
