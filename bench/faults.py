"""Faults put into a run on purpose: is anything lost that was reported as saved?

    python bench/faults.py [--short] [--only KIND ...] [--out table.json] [--json] [--seed 0]

Hundreds of injections, each into a real run of a tiny model: killed in every phase and at every
file operation of a save, full and read-only disks, damaged files, NaN, no memory, clocks that jump,
data that hangs, ranks that vanish. After each one the run's directory is looked at from outside
(the newest checkpoint that was reported as saved must be there, whole), then the run goes on with
`--resume`; when it is complete, its curve, weights, optimizer, samples and best checkpoint must be
those of the run without faults, bit for bit. Mounts need root on Linux; without, a limit on file
size stands in for the full disk.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fault_lab import Child, Fault, Lab, Row, checkpoint_steps
from minimind import checkpoint
from minimind.checkpoint.files import DirectoryWriter
from minimind.data.loader import Loader
from minimind.model.transformer import DecoderLayer
from minimind.train.metrics import MetricsLog
from minimind.train.objective import Loss, NextToken
from minimind.train.optim import Muon
from minimind.train.trainer import Trainer

Maker = Callable[[random.Random, int], Fault]
DISK_MB = 16
NEEDS_DISK = {"disk full", "disk read-only"}


def kill_before(owner: object, name: str, most: int) -> Callable[[random.Random, int], Fault]:
    """Return a maker of kills before one of the first `most` calls of `owner.name`."""

    def make(draw: random.Random, number: int) -> Fault:
        at = draw.randint(1, most)
        return Fault(kind="", arm=lambda child: child.wrap(owner, name, child.kill, at=at))

    return make


def in_backward(draw: random.Random, number: int) -> Fault:
    """Kill when the gradient of a matrix in the middle is there and those before it are not."""
    at = draw.randint(1, 6)

    def arm(child: Child) -> None:
        usual, calls = Trainer._backward, [0]

        def backward(trainer: Trainer, micro_batches: list) -> dict:
            calls[0] += 1
            if calls[0] == at:
                matrix = trainer.model.model.layers[1].self_attn.q_proj.weight
                matrix.register_hook(lambda gradient: child.kill())
            return usual(trainer, micro_batches)

        Trainer._backward = backward

    return Fault(kind="", arm=arm)


def in_validation(draw: random.Random, number: int) -> Fault:
    """Kill before one of the batches of a validation."""
    at = draw.randint(1, 2)

    def arm(child: Child) -> None:
        usual, calls = NextToken.__call__, [0]

        def loss(self: NextToken, model: torch.nn.Module, batch: object) -> Loss:
            calls[0] += not model.training
            if calls[0] == at and not model.training:
                child.kill()
            return usual(self, model, batch)

        NextToken.__call__ = loss

    return Fault(kind="", arm=arm)


def in_sampling(draw: random.Random, number: int) -> Fault:
    """Kill at one of the tokens of a sample."""
    at = draw.randint(1, 50)

    def arm(child: Child) -> None:
        usual, calls = DecoderLayer.forward, [0]

        def forward(self: DecoderLayer, *args: object, **named: object) -> object:
            cached = len(args) > 3 and args[3] is not None
            calls[0] += cached
            if cached and calls[0] == at:
                child.kill()
            return usual(self, *args, **named)

        DecoderLayer.forward = forward

    return Fault(kind="", arm=arm)


CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"}


def at_file_operation(draw: random.Random, number: int) -> Fault:
    """Kill before the n-th time that the run changes something in its directory."""
    at = number + 1

    def arm(child: Child) -> None:
        calls, below = [0], str(child.lab.run)

        def audit(event: str, args: tuple) -> None:
            if event not in CHANGES and event != "open":
                return
            if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
                return
            if not str(args[0]).startswith(below):
                return
            calls[0] += 1
            if calls[0] == at:
                child.kill()

        sys.addaudithook(audit)

    return Fault(kind="", arm=arm)


def half_written(draw: random.Random, number: int) -> Fault:
    """Kill when half of a file of a checkpoint is written."""
    at = 1 + number % 9

    def arm(child: Child) -> None:
        usual, calls = DirectoryWriter.write, [0]

        def write(self: DirectoryWriter, name: str, content: bytes | str) -> None:
            calls[0] += 1
            if calls[0] == at:
                data = content.encode() if isinstance(content, str) else content
                (self.directory / name).write_bytes(data[: len(data) // 2])
                child.kill()
            usual(self, name, content)

        DirectoryWriter.write = write

    return Fault(kind="", arm=arm)


def half_a_line(draw: random.Random, number: int) -> Fault:
    """Kill when half a line of metrics.jsonl is written."""
    at = draw.randint(1, 6)

    def arm(child: Child) -> None:
        def fire() -> None:
            with (child.lab.run / "metrics.jsonl").open("a") as file:
                file.write('{"step": 1, "lo')
            child.kill()

        child.wrap(MetricsLog, "write", fire, at=at)

    return Fault(kind="", arm=arm)


def at_any_moment(draw: random.Random, number: int) -> Fault:
    """Kill after a random share of a run's processor time."""
    after = draw.uniform(0.005, 0.35)

    def arm(child: Child) -> None:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process in the kernel
        signal.setitimer(signal.ITIMER_PROF, after)

    return Fault(kind="", arm=arm)


def full_disk(draw: random.Random, number: int) -> Fault:
    """Leave little room on the disk that the run writes to."""
    left_kb = draw.randint(0, 250)

    def before(lab: Lab) -> bool:
        free = shutil.disk_usage(lab.config.out).free // 1024
        size = max(0, free - left_kb) * 1024
        with (Path(lab.config.out) / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size) if size else None
        return True

    def after(lab: Lab) -> None:
        (Path(lab.config.out) / "filler").unlink()

    return Fault(kind="", expect="No space left", before=before, after=after)


def file_size_limit(draw: random.Random, number: int) -> Fault:
    """Let no file grow beyond a few KB: what a quota does."""
    limit = draw.randint(1, 40) * 1024

    def arm(child: Child) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return Fault(kind="", arm=arm, expect="File too large")


MS_RDONLY, MS_REMOUNT = 1, 32


def _remount(folder: Path, *, read_only: bool) -> bool:
    """Tell whether it could be: a disk stays writable while a file is open for writing."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = MS_REMOUNT | (MS_RDONLY if read_only else 0)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", flags, None) == 0:
        return True
    if ctypes.get_errno() != errno.EBUSY:
        raise OSError(ctypes.get_errno(), f"mount of {folder}")
    return False


def read_only_disk(draw: random.Random, number: int) -> Fault:
    """Make the disk read-only before the run, or between two of its steps."""
    at = number % 6

    def before(lab: Lab) -> bool:
        return bool(at) or _remount(Path(lab.config.out), read_only=True)

    def arm(child: Child) -> None:
        usual, calls, folder = Trainer.train_step, [0], Path(child.lab.config.out)

        def step(trainer: Trainer, *args: object, **named: object) -> object:
            calls[0] += 1
            if at and calls[0] >= at:
                _remount(folder, read_only=True)
            return usual(trainer, *args, **named)

        Trainer.train_step = step

    def after(lab: Lab) -> None:
        _remount(Path(lab.config.out), read_only=False)

    return Fault(kind="", arm=arm, expect="Read-only file system", before=before, after=after)


def damaged_checkpoint(draw: random.Random, number: int) -> Fault:
    """Flip a bit in, cut, or delete a file of the newest checkpoint; then kill later on."""
    how, at = ("flip", "cut", "delete")[number % 3], draw.randint(1, 4)

    def before(lab: Lab) -> bool:
        found = checkpoint.list_checkpoints(lab.run)
        if len(found) < 2 or checkpoint_steps(lab.run, whole=True) == lab.steps:
            _grow(lab)
            found = checkpoint.list_checkpoints(lab.run)
        if len(found) < 2:
            return False
        best = checkpoint.best(lab.run) if (found[-1].parent / "best.json").exists() else None
        files = [p for p in sorted(found[-1].iterdir()) if p.name != "manifest.json"]
        path = draw.choice(files)
        data = bytearray(path.read_bytes())
        if how == "flip":
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
        elif how == "cut":
            path.write_bytes(data[: draw.randrange(len(data))])
        else:
            path.unlink()
        if best == found[-1]:  # it will be measured and saved again
            (found[-1].parent / "best.json").unlink()
        return True

    def arm(child: Child) -> None:
        child.wrap(Trainer, "train_step", child.kill, at=at)

    return Fault(kind="", arm=arm, before=before, takes_newest=True)


def _grow(lab: Lab) -> None:
    """Let the run go on to its third save."""
    if checkpoint_steps(lab.run, whole=True) == lab.steps:
        lab.finish()
    lab.attempt(
        Fault(kind="", arm=lambda child: child.wrap(Trainer, "train_step", child.kill, at=7))
    )


def damaged_data(draw: random.Random, number: int) -> Fault:
    """Flip a bit in a data file, or cut it; it is put back afterwards."""
    kept: list[bytes] = []

    def before(lab: Lab) -> bool:
        if not checkpoint_steps(lab.run, whole=True):
            _grow(lab)
        kept.append(lab.data.read_bytes())
        data = bytearray(kept[-1])
        if number % 2:
            data[draw.randrange(len(data))] ^= 1
        else:
            data = data[: draw.randrange(len(data))]
        lab.data.write_bytes(data)
        return True

    def after(lab: Lab) -> None:
        lab.data.write_bytes(kept[-1])

    return Fault(kind="", expect="data", before=before, after=after)


def nan_gradients(draw: random.Random, number: int) -> Fault:
    """Make every gradient NaN from some step on."""
    at = draw.randint(1, 5)

    def arm(child: Child) -> None:
        usual, calls = Trainer._backward, [0]

        def backward(trainer: Trainer, micro_batches: list) -> dict:
            calls[0] += 1
            sums = usual(trainer, micro_batches)
            if calls[0] >= at:
                for parameter in trainer.model.parameters():
                    parameter.grad.fill_(float("nan"))
            return sums

        Trainer._backward = backward

    return Fault(kind="", arm=arm, expect="not finite", flags=("--train.max-bad-steps", "1"))


def no_memory(draw: random.Random, number: int) -> Fault:
    """Let torch's allocator fail in a forward or backward pass."""
    at = draw.randint(1, 6)

    def arm(child: Child) -> None:
        def fire() -> None:
            torch.empty(2**50, dtype=torch.uint8)

        owner, name = ((DecoderLayer, "forward"), (Trainer, "_gradient_norm"))[number % 2]
        child.wrap(owner, name, fire, at=at)

    return Fault(kind="", arm=arm, expect="--train.micro-batch-rows")


def jumping_clock(draw: random.Random, number: int) -> Fault:
    """Let every clock of Python jump by up to ten years, forth and back; then kill."""
    at = draw.randint(1, 8)

    def arm(child: Child) -> None:
        for name in ("time", "perf_counter", "monotonic"):
            usual = getattr(time, name)
            jumps = random.Random(number)
            setattr(time, name, lambda usual=usual, jumps=jumps: usual() + jumps.uniform(-3e8, 3e8))
        child.wrap(Trainer, "train_step", child.kill, at=at)

    return Fault(kind="", arm=arm)


def hanging_data(draw: random.Random, number: int) -> Fault:
    """Let the source of the data fall silent; then the run is asked to end, once."""
    at = draw.randint(2, 6)

    def arm(child: Child) -> None:
        usual, steps, calls = Loader._batches, [0], [0]

        def begun() -> None:
            steps[0] = 1

        child.wrap(Trainer, "train_step", begun, at=1)

        def batches(loader: Loader, rows: list) -> list:
            # Batches are made ahead of the first step; until then there's nothing to save.
            calls[0] += loader.split == "train"
            if steps[0] and calls[0] >= at:
                child.tell("fired")
                time.sleep(3600)
            return usual(loader, rows)

        Loader._batches = batches

    return Fault(kind="", arm=arm, expect="", signals=(signal.SIGTERM,))


def pipe_as_data(draw: random.Random, number: int) -> Fault:
    """Name a FIFO that nobody writes to as the data."""

    def before(lab: Lab) -> bool:
        pipe = lab.root / "pipe.jsonl"
        if not pipe.exists():
            os.mkfifo(pipe)
        return True

    return Fault(kind="", before=before, expect="pipe.jsonl", flags=(
        "--name", "piped", "--data.train", "{root}/pipe.jsonl"))  # fmt: skip


def lost_rank(draw: random.Random, number: int) -> Fault:
    """Kill one of two ranks at a step, in a backward pass or at a save."""
    who, at = number % 2, draw.randint(1, 6)
    owner, name = ((Trainer, "train_step"), (Trainer, "_gradient_norm"), (Trainer, "_update"))[
        number % 3
    ]

    def arm(child: Child) -> None:
        if child.rank == who:
            child.wrap(owner, name, child.kill, at=at)

    return Fault(kind="", arm=arm)


PLAN: dict[str, tuple[Maker, int, int]] = {
    "killed: data": (kill_before(Loader, "_batches", 6), 12, 1),
    "killed: forward": (kill_before(DecoderLayer, "forward", 20), 12, 1),
    "killed: backward": (in_backward, 12, 1),
    "killed: update": (kill_before(Muon, "_update", 12), 12, 1),
    "killed: validation": (in_validation, 12, 1),
    "killed: sampling": (in_sampling, 10, 1),
    "killed: between steps": (kill_before(Trainer, "train_step", 6), 12, 1),
    "killed: a file operation": (at_file_operation, 70, 3),
    "killed: half a file": (half_written, 27, 2),
    "killed: half a line": (half_a_line, 8, 1),
    "killed: any moment": (at_any_moment, 40, 1),
    "disk full": (full_disk, 20, 1),
    "file size limit": (file_size_limit, 10, 1),
    "disk read-only": (read_only_disk, 12, 1),
    "damaged checkpoint": (damaged_checkpoint, 24, 1),
    "damaged data": (damaged_data, 8, 1),
    "NaN gradients": (nan_gradients, 8, 1),
    "out of memory": (no_memory, 8, 1),
    "clocks jump": (jumping_clock, 8, 1),
    "data hangs": (hanging_data, 8, 1),
    "data is a pipe": (pipe_as_data, 2, 1),
    "a rank is lost": (lost_rank, 10, 1),
    "a rank is lost, sharded": (lost_rank, 10, 1),
}
"""Kind -> maker, how often, and how often in the short version."""


def measure(
    plan: dict[str, tuple[Maker, int]], *, root: Path, seed: int, told: Callable[[str], None]
) -> dict[str, Row]:
    """Do every injection of a plan, in a mixed order, and return the table's rows.

    Args:
        plan: kind -> maker, and how often.
        root: an empty folder.
        seed: of the order and of what each fault draws.
        told: called with each injection's place in the plan.
    """
    rows: dict[str, Row] = {kind: Row() for kind in plan}
    draw = random.Random(seed)
    todo = [(kind, number) for kind, (_, count) in plan.items() for number in range(count)]
    draw.shuffle(todo)
    labs: dict[str, Lab] = {}
    disk = root / "mounted"
    mounted = any(kind in NEEDS_DISK for kind in plan) and _mount(disk)
    try:
        for done, (kind, number) in enumerate(todo, start=1):
            where = _lab_of(kind)
            if where == "disk" and not mounted:
                continue
            if where not in labs:
                ranks = where in ("replicate", "shard")
                out = disk if where == "disk" else None
                labs[where] = Lab(
                    root / where,
                    world=2 if ranks else 1,
                    rows=rows,
                    out=out,
                    parallel="shard" if where == "shard" else "replicate",
                )
            fault = plan[kind][0](draw, number)
            labs[where].inject(dataclasses.replace(fault, kind=kind))
            told(f"{done}/{len(todo)} {kind} {rows[kind].problems[-1:] or ''}")
        for lab in labs.values():
            lab.finish()
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=False)
    return {kind: row for kind, row in rows.items() if row.injections or row.problems}


def _lab_of(kind: str) -> str:
    ranks = {"a rank is lost": "replicate", "a rank is lost, sharded": "shard"}
    return "disk" if kind in NEEDS_DISK else ranks.get(kind, "one")


def _mount(folder: Path) -> bool:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def table(rows: dict[str, Row]) -> str:
    """Return the table as text."""
    head = f"{'fault':<26} {'injections':>10} {'recovered':>10} {'lost':>6} {'curve identical':>16}"
    lines = [head]
    total = Row()
    for kind, row in rows.items():
        lines.append(_line(kind, row))
        for name in ("injections", "recovered", "lost", "identical"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
    lines.append(_line("all", total))
    for kind, row in rows.items():
        lines += [f"{kind}: {problem}" for problem in row.problems]
    return "\n".join(lines)


def _line(kind: str, row: Row) -> str:
    return f"{kind:<26} {row.injections:>10} {row.recovered:>10} {row.lost:>6} {row.identical:>16}"


def main() -> int:
    """Run the plan; 1 if anything was lost, did not recover, or differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few of each kind")
    parser.add_argument("--only", nargs="+", choices=PLAN, help="these kinds only")
    parser.add_argument("--times", type=int, help="injections of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures here")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan = {
        kind: (maker, args.times or (short if args.short else times))
        for kind, (maker, times, short) in PLAN.items()
        if not args.only or kind in args.only
    }
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows = measure(
            plan,
            root=Path(folder),
            seed=args.seed,
            told=lambda line: print(line, file=sys.stderr, flush=True),
        )
    figures = {kind: dataclasses.asdict(row) for kind, row in rows.items()}
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(figures, ensure_ascii=False) if args.json else table(rows))
    good = all(
        row.injections == row.recovered == row.identical and not row.lost and not row.problems
        for row in rows.values()
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
