"""What a device can do: which precision is fast there, and how fast it could be at best."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Literal

import torch

from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.model.compiler import too_old

Precision = Literal["fp32", "bf16", "fp16", "fp8"]

AUTOCAST_DTYPE = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}

FP8_CAPABILITY = (8, 9)
"""CUDA's compute capability from which there are products in 8 bits: Ada, Hopper, Blackwell."""

# Dense bf16 matrix rate in FLOP/s, from the vendors' data sheets (without sparsity). The first name
# that occurs in torch.cuda.get_device_name() counts, so longer names stand before their prefixes.
PEAK_BF16_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 150e12,
    "A10": 125e12,
    "A6000": 155e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
    "RTX 4080": 97e12,
    "RTX 3090": 71e12,
    "RTX 3080": 59e12,
    "T4": 65e12,  # fp16: it has no bf16
    "V100": 125e12,  # fp16
}


def pick_device(config: TrainConfig) -> torch.device:
    """Return the device of `train.device`; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: the device that was asked for is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if config.device == "auto":
        return torch.device(next(name for name, is_there in there.items() if is_there))
    if not there[config.device]:
        raise ConfigError(
            f"train.device = {config.device!r}: this torch ({torch.__version__}) sees no such "
            "device. Use --train.device auto, or run `minimind doctor` to see why"
        )
    return torch.device(config.device)


def pick_precision(config: TrainConfig, device: torch.device) -> Precision:
    """Return the precision of `train.precision`; `auto` is bf16 where it is fast, else fp32.

    Raises:
        ConfigError: the device can't compute in it.
    """
    if config.precision == "fp8":
        check_float8(device)
    if config.precision != "auto":
        return config.precision
    return "bf16" if has_fast_bf16(device) else "fp32"


def check_float8(device: torch.device) -> None:
    """Refuse a device or an installation that can't.

    Raises:
        ConfigError: says what is missing and what to use instead.
    """
    if device.type != "cuda":
        reason = f"needs a CUDA GPU of the H100's class, this run is on {device.type}"
    else:
        reason = too_old(device, FP8_CAPABILITY, cards="RTX 40, L4, L40, H100")
        if reason is None and importlib.util.find_spec("torchao") is None:
            reason = "needs torchao: pip install 'minimind[fp8]'"
    if reason is not None:
        raise ConfigError(f"train.precision = 'fp8' {reason}. Or: --train.precision bf16")


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether bf16 matrix products run in hardware (emulated ones are slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # AVX512-BF16 (Zen 4, Cooper Lake) or AMX (Sapphire Rapids)
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def cpp_compiler() -> tuple[str | None, list[str]]:
    """Return the C++ compiler that torch.compile would use on a CPU, and the names looked for."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else []
    names += ["cl"] if sys.platform == "win32" else ["g++", "clang++", "c++"]
    return next(filter(None, map(shutil.which, names)), None), names


def peak_flops(device: torch.device) -> float | None:
    """Return the bf16 matrix rate of the data sheet in FLOP/s, or None where it isn't known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_BF16_FLOPS.items() if key in name), None)
