"""One training loop, and what is plugged into it.

Each name is imported when it is first used: what reads a run's files (`metrics`, `bands`) must not
wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minimind.train.hooks import Log, Sample, Save, Validate
    from minimind.train.objective import DPO, Distill, Loss, NextToken, Objective
    from minimind.train.optim import Muon, Optimizer, build_optimizer
    from minimind.train.schedule import Schedule, build_schedule
    from minimind.train.trainer import Hook, StepReport, Trainer

__all__ = [
    "DPO",
    "Distill",
    "Hook",
    "Log",
    "Loss",
    "Muon",
    "NextToken",
    "Objective",
    "Optimizer",
    "Sample",
    "Save",
    "Schedule",
    "StepReport",
    "Trainer",
    "Validate",
    "build_optimizer",
    "build_schedule",
]

_HOME = {
    "hooks": ("Log", "Sample", "Save", "Validate"),
    "objective": ("DPO", "Distill", "Loss", "NextToken", "Objective"),
    "optim": ("Muon", "Optimizer", "build_optimizer"),
    "schedule": ("Schedule", "build_schedule"),
    "trainer": ("Hook", "StepReport", "Trainer"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name from the module that defines it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'minimind.train' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"minimind.train.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
