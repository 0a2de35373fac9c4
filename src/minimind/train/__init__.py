"""One training loop, and what is plugged into it."""

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
