"""What torch can't do everywhere: compile for a GPU, run newer kernels, trust cuDNN under a mask.

Compiling takes Triton, a C compiler and Python's headers. Each is missing somewhere: Triton on
Windows and on cards older than Volta, the headers beside many a system's own Python.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


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


def too_old(device: torch.device, least: tuple[int, int], *, cards: str) -> str | None:
    """Return why a CUDA device is too old for kernels, in words, or None where it isn't.

    Args:
        device: of type `cuda`.
        least: the compute capability that the kernels begin with.
        cards: which cards have it, as people call them.
    """
    capability = torch.cuda.get_device_capability(device)
    if capability >= least:
        return None
    return (
        f"needs compute capability {'.'.join(map(str, least))} or more ({cards} and newer), "
        f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}"
    )


def sound_kernels(device: torch.device, *, masked: bool) -> AbstractContextManager[object]:
    """Return the context in which `scaled_dot_product_attention` has a backward pass to trust.

    On Hopper torch prefers cuDNN since 2.11, whose gradients under a mask may be not a number
    (pytorch issue 196678: rows of 64 tokens, or 192; cuDNN 9.19 and 9.20).
    """
    if device.type != "cuda" or not masked or not torch.is_grad_enabled():
        return nullcontext()
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def _small(x_NN: torch.Tensor) -> torch.Tensor:
    return (x_NN @ x_NN).relu().sum(-1)
