"""Is this machine, and the software on it, fit for a run? Each check says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from minimind.config import RunConfig
from minimind.model.accounting import count_parameters
from minimind.train.device import cpp_compiler, pick_device

Level = Literal["ok", "warning", "error"]
GB = 1e9
FAST = 1.2
"""bf16 counts as fast when its matrix products are this many times as fast as fp32's."""
STATE_BYTES = 16
"""Bytes a parameter in training: fp32 weight, gradient and two moments."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what it is about, how bad it is, what was found, what to do."""

    name: str
    level: Level
    found: str
    fix: str = ""


def find_nvidia(root: Path = Path("/")) -> str | None:
    """Return what shows that an NVIDIA GPU is in this machine, or None.

    Asked without torch, whose CPU build sees no GPU: the driver's files, the PCI bus (display
    controllers of vendor 0x10de), then nvidia-smi.
    """
    if (root / "proc/driver/nvidia/version").exists():
        return "/proc/driver/nvidia"
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor, kind = device / "vendor", device / "class"
        if _text(vendor) == "0x10de" and _text(kind).startswith("0x03"):
            return f"PCI device {device.name}"
    program = shutil.which("nvidia-smi") if root == Path("/") else None
    if program is not None:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
        if listed.returncode == 0 and "GPU" in listed.stdout:
            return listed.stdout.splitlines()[0].strip()
    return None


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def check_python() -> Check:
    """Say which Python this is (an older one than 3.11 can't install minimind)."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("Python", "ok", found)


def check_torch(nvidia: str | None, *, cuda_build: str | None, cuda_works: bool) -> Check:
    """Check that torch's build fits the hardware.

    Args:
        nvidia: from `find_nvidia`.
        cuda_build: `torch.version.cuda` (or `.hip`): None for a CPU-only build.
        cuda_works: `torch.cuda.is_available()`.
    """
    found = f"{torch.__version__} ({f'CUDA {cuda_build}' if cuda_build else 'CPU only'})"
    if nvidia and cuda_build is None:
        return Check(
            "torch", "error", f"{found}, but there is an NVIDIA GPU ({nvidia})",
            "reinstall torch with CUDA: pip uninstall torch, then pip install torch without "
            "constraints-cpu.txt (on Windows choose the CUDA build on pytorch.org)",
        )  # fmt: skip
    if nvidia and not cuda_works:
        return Check(
            "torch", "error", f"{found} can't use the NVIDIA GPU ({nvidia})",
            "run nvidia-smi: a driver older than this CUDA must be updated; a container needs the "
            "GPU passed in (--gpus all); CUDA_VISIBLE_DEVICES must not be empty",
        )  # fmt: skip
    return Check("torch", "ok", found)


def check_device(device: torch.device) -> Check:
    """Say what will be trained on."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found = f"{properties.name}, {properties.total_memory / GB:.0f} GB"
        if properties.major < 8:
            return Check("device", "warning", f"{found}: no bf16", "--train.precision fp16")
        return Check("device", "ok", found)
    return Check("device", "ok", f"{device.type}: {platform.processor() or platform.machine()}")


def check_bf16(rates: dict[str, float]) -> Check:
    """Compare measured matrix rates (FLOP/s by precision)."""
    ratio = rates["bf16"] / rates["fp32"]
    found = (
        f"bf16 {rates['bf16'] / 1e9:,.0f}, fp32 {rates['fp32'] / 1e9:,.0f} GFLOP/s: {ratio:.1f}x"
    )
    if ratio < FAST:
        return Check(
            "matrix rate", "warning", found,
            "bf16 is not fast here: keep --train.precision auto or fp32; it will be slow",
        )  # fmt: skip
    return Check("matrix rate", "ok", found)


def check_compiler() -> Check:
    """Look for the C++ compiler that torch.compile uses on a CPU."""
    path, names = cpp_compiler()
    if path:
        return Check("C++ compiler", "ok", path)
    return Check(
        "C++ compiler", "warning", f"none ({', '.join(names)})",
        "torch.compile needs one: apt install g++ (Debian, Ubuntu), xcode-select --install "
        "(macOS); without it training runs uncompiled and slower",
    )  # fmt: skip


def check_disk(free_bytes: int, *, parameters: int, checkpoints: int, where: Path) -> Check:
    """Check that a run's checkpoints fit on the disk.

    Args:
        free_bytes: what is free at `where`.
        parameters: of the model; a checkpoint has weights and two moments in fp32.
        checkpoints: how many are there at once.
        where: the folder of the runs.
    """
    one = parameters * 12
    found = f"{free_bytes / GB:.1f} GB free in {where}; a run keeps {one * checkpoints / GB:.1f} GB"
    if free_bytes < one * 2:  # the new one is written before an old one goes
        return Check("disk", "error", found, "free some space, or choose another disk with --out")
    if free_bytes < one * checkpoints + GB:
        return Check("disk", "warning", found, "free some space, or lower --save.keep-last")
    return Check("disk", "ok", found)


def check_memory(available_bytes: int | None, *, parameters: int) -> Check:
    """Check that weights, gradients and moments fit with room for activations."""
    if available_bytes is None:
        return Check("RAM", "ok", "unknown on this system")
    needed = parameters * STATE_BYTES
    found = f"{available_bytes / GB:.1f} GB available; the model's state takes {needed / GB:.1f} GB"
    if available_bytes < needed + GB:
        return Check("RAM", "error", found, "choose a smaller preset, or close other programs")
    if available_bytes < 2 * needed + 2 * GB:
        return Check(
            "RAM", "warning", found,
            "use a smaller --train.micro-batch-rows or --train.gradient-checkpointing all",
        )  # fmt: skip
    return Check("RAM", "ok", found)


def check_threads(threads: int, *, cores: int) -> Check:
    """Compare torch's threads with the cores that this process may use."""
    found = f"{threads} of {cores} usable cores"
    if threads < cores // 2:
        return Check(
            "threads", "warning", found, f"unset OMP_NUM_THREADS, or --train.threads {cores}"
        )
    if threads > cores:
        return Check(
            "threads", "warning", f"{threads} threads on {cores} usable cores",
            f"threads wait for each other: --train.threads {cores}",
        )  # fmt: skip
    return Check("threads", "ok", found)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use: affinity and, in a container, its quota."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if cgroup.is_file():
        quota, _, period = cgroup.read_text().strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return bytes of memory that programs can still take, or None where that isn't known."""
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def check_machine(config: RunConfig, *, rates: dict[str, float]) -> list[Check]:
    """Run every check for a run with this configuration."""
    device, out = pick_device(config.train), Path(config.out).absolute()
    while not out.exists():
        out = out.parent
    parameters = count_parameters(config.model).total
    build = torch.version.cuda or getattr(torch.version, "hip", None)
    checks = [
        check_python(),
        check_torch(find_nvidia(), cuda_build=build, cuda_works=torch.cuda.is_available()),
        check_device(device),
        check_bf16(rates),
        check_compiler(),
        check_disk(
            shutil.disk_usage(out).free,
            parameters=parameters,
            checkpoints=config.save.keep_last + 1 + config.save.keep_best,
            where=out,
        ),
    ]
    if device.type == "cpu":
        checks.append(check_memory(available_memory(), parameters=parameters))
        checks.append(check_threads(torch.get_num_threads(), cores=usable_cores()))
    return checks
