"""The tasks of `minimind eval --tasks`: a name, what it measures, and where its maker is.

A maker is a function `(TaskOptions) -> Task` (see `base`), named here as "module:function" so that
listing the tasks imports none of them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

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
    if name not in TASKS:
        raise UserError(
            f"--tasks {name}: there is no such task.{did_you_mean(name, TASKS)} "
            "`minimind eval --list` shows them all; those of lm-evaluation-harness are written "
            "lm_eval:NAME"
        )
    module, _, function = TASKS[name].maker.partition(":")
    return getattr(importlib.import_module(module), function)
