"""The tasks of `minimind eval --tasks`: a name, what it measures, and where its maker is.

A maker is a function `(TaskOptions) -> Task` (see `base`), named here as "module:function" so that
listing the tasks imports none of them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial

from minimind.errors import UserError, did_you_mean
from minimind.eval.tasks.base import MakeTask


@dataclass(frozen=True, slots=True)
class Entry:
    """One task by name.

    Attributes:
        summary: one line for `minimind eval --list`.
        maker: "module:function".
        quick: measured when no --tasks are given.
    """

    summary: str
    maker: str
    quick: bool = False


_HERE = "minimind.eval.tasks"
TASKS: dict[str, Entry] = {
    "domains": Entry(
        "bits per byte of held-out text by domain", f"{_HERE}.domains:make_domains", quick=True
    ),
    "idiom_cloze": Entry(
        "which idiom fills the gap, of four", f"{_HERE}.four_choice:make_idiom_cloze", quick=True
    ),
    "idiom_meaning": Entry(
        "which explanation an idiom has, of four",
        f"{_HERE}.four_choice:make_idiom_meaning",
        quick=True,
    ),
    "which_law": Entry(
        "under which law an article is likeliest, of four",
        f"{_HERE}.four_choice:make_which_law",
        quick=True,
    ),
    "icd_term": Entry(
        "which Chinese term a disease has, of four",
        f"{_HERE}.four_choice:make_icd_term",
        quick=True,
    ),
    "arithmetic": Entry(
        "+, - and × by number of digits", f"{_HERE}.arithmetic:make_arithmetic", quick=True
    ),
    "translation": Entry(
        "loss and direction of translations", f"{_HERE}.languages:make_translation", quick=True
    ),
    "repetition": Entry(
        "rep-4, distinct-2, answers that never stop", f"{_HERE}.loops:make_repetition", quick=True
    ),
    "following": Entry(
        "constraints that a program checks, a Chinese IFEval", f"{_HERE}.following:make_following"
    ),
    "languages": Entry("answers in the wrong script", f"{_HERE}.languages:make_languages"),
    "verse_next": Entry(
        "which couplet comes next, of four (85 MB of poems)", f"{_HERE}.four_choice:make_verse_next"
    ),
    "verse": Entry(
        "couplets by the rules: form, rhyme, tones (85 MB of poems)", f"{_HERE}.verse:make_verse"
    ),
    "domains_full": Entry(
        "bits per byte by domain, every source", f"{_HERE}.domains:make_domains_full"
    ),
    "ceval": Entry("C-Eval, 52 subjects: letters and cloze", f"{_HERE}.exams:make_ceval"),
    "cmmlu": Entry("CMMLU, 67 subjects: letters and cloze", f"{_HERE}.exams:make_cmmlu"),
    "agieval": Entry("AGIEval, Chinese: letters and cloze", f"{_HERE}.exams:make_agieval"),
    "lawbench": Entry("LawBench, four choices: letters and cloze", f"{_HERE}.exams:make_lawbench"),
}


def maker_of(name: str) -> MakeTask:
    """Return the function that makes a task.

    Raises:
        UserError: there is no such task; the nearest name is offered.
    """
    if name.startswith("lm_eval:"):
        from minimind.eval.lm_eval_tasks import make_lm_eval

        return partial(make_lm_eval, name.removeprefix("lm_eval:"))
    if name not in TASKS:
        raise UserError(
            f"--tasks {name}: there is no such task.{did_you_mean(name, TASKS)} "
            "`minimind eval --list` shows them all; those of lm-evaluation-harness are written "
            "lm_eval:NAME"
        )
    module, _, function = TASKS[name].maker.partition(":")
    return getattr(importlib.import_module(module), function)
