"""What this machine can do: checks of its software and hardware, then real training steps."""

from minimind.doctor.checks import Check, check_machine, find_nvidia
from minimind.doctor.timing import (
    Estimate,
    Trial,
    estimate,
    matrix_rates,
    time_training,
    training_flops_per_token,
)

__all__ = [
    "Check",
    "Estimate",
    "Trial",
    "check_machine",
    "estimate",
    "find_nvidia",
    "matrix_rates",
    "time_training",
    "training_flops_per_token",
]
