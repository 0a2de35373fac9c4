"""`minimind see CHECKPOINT DATA`: what a model with eyes makes of held-out pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table

from minimind.errors import UserError

if TYPE_CHECKING:
    from minimind.data.image_rows import Example
    from minimind.eval.vision import Choice, VisionScores
    from minimind.eval.vision_page import Sample
    from minimind.inference.images import Eyes
    from minimind.model import CausalLM
    from minimind.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Args:
    """Score a model on pictures: caption loss with the right image, another, none; one of four.

    Each picture is asked for once; of a concept with several pictures one is drawn. Styles of
    drawing are sets of their own, so that a style never tells which caption is right. A set with
    fewer than four different captions has no one of four.

    Attributes:
        checkpoint: a checkpoint with eyes.
        data: the folder of `minimind data images`, or files of image rows.
        style: only pictures of these styles (fluent, icons, flags, stamps, google).
        pictures: at most so many of each set.
        held_out_share: the share of concepts that training held out (`data.validation_share`).
        page: write a page with figures and samples there.
        samples: pictures of each set on the page, with the four captions.
        seed: which pictures, wrong images and captions are drawn.
        json: print the figures as JSON.
    """

    checkpoint: tyro.conf.Positional[str]
    data: tyro.conf.Positional[Path]
    style: tuple[str, ...] = ()
    pictures: int = 300
    held_out_share: float = 0.1
    page: Path | None = None
    samples: int = 15
    seed: int = 0
    json: bool = False


def main(argv: list[str]) -> None:
    """Run `minimind see`."""
    args = tyro.cli(Args, args=argv, prog="minimind see")
    from minimind import checkpoint
    from minimind.eval.vision import measure
    from minimind.inference.images import Eyes

    model, tokenizer = checkpoint.load(args.checkpoint)
    eyes = Eyes(model)
    scores: list[VisionScores] = []
    samples: list[Sample] = []
    for name, examples in _sets(args):
        measured, choices = measure(model, tokenizer, examples, name=name, seed=args.seed)
        scores.append(measured)
        if args.page is not None:
            shown = zip(examples[: args.samples], choices, strict=False)
            samples += [_sample(model, tokenizer, eyes, *pair, name) for pair in shown]
    if args.page is not None:
        from minimind.eval.vision_page import render

        args.page.write_text(render(f"{args.checkpoint}", scores, samples), encoding="utf-8")
    _show(scores, as_json=args.json)


def _sets(args: Args) -> Iterator[tuple[str, list[Example]]]:
    """Yield the sets to score: held-out and trained concepts of each style."""
    from minimind.data.document import is_held_out
    from minimind.data.image_rows import read_examples
    from minimind.data.reader import Rejects
    from minimind.eval.vision import answer_of

    files = [args.data]
    if args.data.is_dir():
        files = [p for n in ("captions.jsonl", "google.jsonl") if (p := args.data / n).is_file()]
        if not files:
            raise UserError(f"{args.data}: no captions.jsonl in it; minimind data images makes it")
    found = False
    for file in files:
        by_style: dict[str, list[Example]] = {}
        for example in read_examples([str(file)], Rejects()):
            by_style.setdefault(Path(example.row.images[0]).parent.name, []).append(example)
        for style, examples in by_style.items():
            if args.style and style not in args.style:
                continue
            for held_out, words in ((True, "held-out concepts"), (False, "trained concepts")):
                side = [
                    e for e in examples
                    if is_held_out(e.row.concept, args.held_out_share) == held_out
                ]  # fmt: skip
                drawn = _one_a_concept(side, args)
                if len({answer_of(example) for example in drawn}) > 1:
                    found = True
                    yield f"{style or file.stem}: {words}", drawn
    if not found:
        raise UserError(
            f"{args.data}: no set has pictures of two concepts with different captions, so there "
            "is no wrong one to compare with"
        )


def _one_a_concept(examples: list[Example], args: Args) -> list[Example]:
    """Pictures of one concept are alike: one of them, so that intervals are of concepts."""
    rng = random.Random(args.seed)
    examples = list(examples)
    rng.shuffle(examples)
    return list({example.row.concept: example for example in examples}.values())[: args.pictures]


def _sample(
    model: CausalLM, tokenizer: Tokenizer, eyes: Eyes, example: Example, choice: Choice, name: str
) -> Sample:
    from minimind.eval.vision import answer_of, question_of
    from minimind.eval.vision_page import Sample
    from minimind.inference import Conversation
    from minimind.inference.sampling import SamplingParams
    from minimind.vision.images import open_image

    params = SamplingParams(temperature=0.0, max_new_tokens=24, stop_ids=tokenizer.stop_ids)
    image = example.images[0]
    seen = eyes.look(open_image(image))
    said = Conversation(model, tokenizer).reply(question_of(example), params, images=[seen])
    return Sample(image, answer_of(example), "".join(said), choice, name)


def _show(scores: list[VisionScores], *, as_json: bool) -> None:
    console = Console(highlight=False)
    if as_json:
        console.print_json(json.dumps([score.to_json() for score in scores]))
        return
    table = Table(
        title="nats a caption token, differences paired; chance is 25 %; 95 % intervals",
        title_justify="left",
    )
    table.add_column("pictures")
    for column in ("n", "right", "wrong - right", "none - right", "one of four", "by likelihood"):
        table.add_column(column, justify="right")
    for s in scores:  # an interval under its value: side by side they need 120 columns
        gaps = [f"{d.value:+.2f}\n{d.low:+.2f} {d.high:+.2f}"
                for d in (s.wrong_minus_right, s.none_minus_right)]  # fmt: skip
        shares = [f"{x.value:.1%}\n{x.low:.0%} {x.high:.0%}" if x else "-\nfewer than four"
                  for x in (s.choice, s.choice_plain)]  # fmt: skip
        table.add_row(s.name, f"{s.pictures}", f"{s.right:.2f}", *gaps, *shares)
    console.print(table)
