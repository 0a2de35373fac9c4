"""Whether torch.compile works here: on a GPU it takes Triton, a C compiler and Python's headers.

Each of them is missing somewhere: Triton on Windows and on cards older than Volta, the headers
beside many a system's own Python.
"""

from __future__ import annotations

import functools

import torch


def compiles(device: torch.device) -> bool:
    """Tell whether what is only worth having compiled can be had (flex attention, say)."""
    return torch.compiler.is_compiling() or compile_refusal(device) is None


@functools.cache
def compile_refusal(device: torch.device) -> str | None:
    """Return why nothing can be compiled for a device, in a line, or None: a small thing is tried.

    Seconds at first, then nothing: the answer is kept.
    """
    try:
        torch.compile(_small)(torch.ones(64, 64, device=device))
    # A compiler, a header, a driver: whatever it is, the caller goes on without.
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    return None


def _small(x_NN: torch.Tensor) -> torch.Tensor:
    return (x_NN @ x_NN).relu().sum(-1)
