"""A tiny run that can be hurt: forked, faulted, and compared with the run that nobody hurt.

Used by `bench/faults.py`. Each attempt is `minimind train run.toml --resume` in a forked process
(torch is imported once), which tells through a file which checkpoints it reported as saved. What it
left is looked at from outside, as a user would after a crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from minimind import checkpoint, cli
from minimind.config import (
    DataConfig,
    InitConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SaveConfig,
    TrainConfig,
)
from minimind.errors import CheckpointError
from minimind.settings import dump_run_config
from minimind.tokenizer import SPECIAL_TOKENS, train_tokenizer
from minimind.train.metrics import read_metrics

PATIENCE = 120.0
"""An attempt that computes nothing for so many seconds hangs; a busy machine alone is no hang."""

CLOCKED = {"seconds", "tokens_per_second", "data_wait_seconds", "data_wait_share"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One injection.

    Attributes:
        kind: row of the table.
        arm: called in the child before the run; installs what goes wrong there.
        expect: `killed`, `done`, or words that the error message has to have.
        before: called by the parent before the attempt; False: can't be done now.
        after: called by the parent when the attempt is over.
        flags: more flags of the command line.
        signals: sent by the parent once the fault has fired.
        takes_newest: the fault itself destroys the newest checkpoint.
    """

    kind: str
    arm: Callable[[Child], None] = lambda child: None
    expect: str = "killed"
    before: Callable[[Lab], bool] = lambda lab: True
    after: Callable[[Lab], None] = lambda lab: None
    flags: tuple[str, ...] = ()
    signals: tuple[int, ...] = ()
    takes_newest: bool = False


class Child:
    """What a fault can do inside the process that trains."""

    def __init__(self, lab: Lab, told: int, *, rank: int) -> None:
        self.lab, self.rank, self._told = lab, rank, told

    def tell(self, word: str) -> None:
        """Tell the parent, in a way that a kill can't undo."""
        os.write(self._told, f"{word}\n".encode())

    def kill(self) -> None:
        """End like a power switch does."""
        self.tell("fired")
        os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: object, name: str, fire: Callable[[], None], *, at: int) -> None:
        """Call `fire` before the `at`-th call of `owner.name`."""
        usual, calls = getattr(owner, name), [0]

        def wrapped(*args: object, **named: object) -> object:
            calls[0] += 1
            if calls[0] == at:
                fire()
            return usual(*args, **named)

        setattr(owner, name, wrapped)


@dataclass(slots=True)
class Row:
    """A row of the table."""

    injections: int = 0
    recovered: int = 0
    lost: int = 0
    identical: int = 0
    problems: list[str] = field(default_factory=list)


class Lab:
    """One run that is hurt again and again until it is complete, then another.

    Args:
        root: a folder of its own.
        world: how many processes train (gloo).
        rows: results by kind, shared between labs.
        out: where runs are written; None: below `root`.
        parallel: how the processes share the model.
        steps: optimizer steps of a run.
    """

    def __init__(
        self,
        root: Path,
        *,
        world: int,
        rows: dict[str, Row],
        out: Path | None = None,
        parallel: Literal["replicate", "shard"] = "replicate",
        steps: int = 12,
    ) -> None:
        self.root, self.world, self.rows, self.steps = root, world, rows, steps
        self.number, self.reported = 0, 0
        # A run that is asked to end validates and samples then, where an uninterrupted one doesn't.
        self.asked_to_end = False
        self.pending: list[str] = []
        config = _tiny_run(root, steps=steps, out=out or root / "runs")
        self.config = replace(config, train=replace(config.train, parallel=parallel))
        code = self.attempt(Fault(kind="", expect="done")).codes[0]
        if code != 0:
            raise RuntimeError(f"the run without a fault ended with {code}: {self.errors()}")
        self.expected = self._outcome()
        self._next_run()

    @property
    def run(self) -> Path:
        """Return the directory of the run that is being hurt."""
        return Path(self.config.out) / f"run-{self.number}"

    @property
    def data(self) -> Path:
        """Return the file that it reads."""
        return Path(self.config.data.train[0])

    def inject(self, fault: Fault) -> None:
        """Do one injection, look at what is left, and finish the run if it is complete."""
        row = self.rows.setdefault(fault.kind, Row())
        for _ in range(5):
            if not fault.before(self):
                self.finish()
                continue
            attempt = self.attempt(fault)
            fault.after(self)
            if attempt.fired or any(attempt.codes) or fault.expect == "done":
                break
            self._close()  # the run was over before the fault came
        else:
            row.problems.append("never fired")
            return
        row.injections += 1
        self.asked_to_end |= bool(fault.signals)
        if fault.takes_newest:
            self.reported = min(self.reported, checkpoint_steps(self.run, whole=True))
        problem = self._unexpected(fault, attempt) or self._inspect()
        row.lost += problem is not None and "lost" in problem
        row.recovered += problem is None
        if problem is not None:
            row.problems.append(problem)
        self.pending.append(fault.kind)
        if attempt.codes == [0] * self.world and not fault.flags:
            self._close()

    def finish(self) -> None:
        """Let the run end without a fault, and compare it."""
        attempt = self.attempt(Fault(kind="", expect="done"))
        if any(attempt.codes):
            for kind in self.pending:
                self.rows[kind].problems.append(f"can't be resumed: {self.errors()[-400:]}")
            self.pending = []
            self._next_run()
            return
        self._close()

    def errors(self) -> str:
        """Return what the last attempt wrote to standard error."""
        return "".join(path.read_text() for path in sorted(self.root.glob("stderr-*")))

    def _close(self) -> None:
        """Compare a complete run with the one that nobody hurt."""
        found = self._outcome()
        compared = {name: value for name, value in self.expected.items() if self._counts(name)}
        compared["curve"], found["curve"] = map(
            self._comparable, (compared["curve"], found["curve"])
        )
        differing = [name for name, value in compared.items() if found[name] != value]
        for kind in self.pending:
            self.rows[kind].identical += not differing
            if differing:
                self.rows[kind].problems.append(f"{self.run.name} differs in {differing}")
        self.pending = []
        self._next_run()

    def _next_run(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        self.number, self.reported, self.asked_to_end = self.number + 1, 0, False

    def _counts(self, name: str) -> bool:
        return not (self.asked_to_end and name in {"samples", "best"})

    def _comparable(self, curve: Any) -> list[dict[str, float]]:
        return [line for line in curve if "loss" in line or not self.asked_to_end]

    def attempt(self, fault: Fault) -> Attempt:
        """Run once with a fault (or without) until it ends."""
        told, port = self.root / "told", _free_port()
        told.unlink(missing_ok=True)
        self._write_settings()  # before a limit or a full disk can meet this file
        pids = [self._fork(fault, rank, told, port) for rank in range(self.world)]
        codes, to_send, hung = {}, list(fault.signals), False
        used, since = 0, time.monotonic()
        while len(codes) < len(pids):
            for pid in set(pids) - codes.keys():
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            words = told.read_text().split("\n") if told.exists() else []
            if to_send and "fired" in words:
                time.sleep(0.3)
                os.kill(pids[0], to_send.pop(0))
            now = sum(_ticks(pid) for pid in set(pids) - codes.keys())
            if abs(now - used) > 2:
                used, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE and not hung:
                hung = True
                for pid in set(pids) - codes.keys():
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        words = told.read_text().split("\n") if told.exists() else []
        saved = [int(word.removeprefix("saved ")) for word in words if word.startswith("saved ")]
        self.reported = max([self.reported, *saved])
        return Attempt([codes[pid] for pid in pids], fired="fired" in words, hung=hung)

    def _fork(self, fault: Fault, rank: int, told: Path, port: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            errors = os.open(self.root / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(errors, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if self.world > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
                os.environ |= {"WORLD_SIZE": str(self.world), "MASTER_ADDR": "127.0.0.1"}
            child = Child(self, os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND), rank=rank)
            _tell_saves(child)
            fault.arm(child)
            flags = [flag.format(root=self.root) for flag in fault.flags]
            code = cli.main(["train", str(self._settings), "--resume", *flags])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    @property
    def _settings(self) -> Path:
        return self.root / "settings.toml"

    def _write_settings(self) -> None:
        text = dump_run_config(replace(self.config, name=self.run.name))
        self._settings.write_text(text, encoding="utf-8")

    def _unexpected(self, fault: Fault, attempt: Attempt) -> str | None:
        errors = self.errors()
        if attempt.hung:
            return "hung"
        if fault.expect == "killed":
            codes = attempt.codes
            others = [code for code in codes if code >= 0]
            # After the last step a rank needs nobody any more, and ends well.
            complete = any(line["step"] == self.steps for line in _curve(self.run))
            told = "--resume" in errors and 0 not in others
            if self.world > 1 and ("Traceback" in errors or not (told or complete)):
                return f"the other rank ended with {others}: {errors[-300:]}"
            return None if any(code < 0 for code in codes) else f"ended with {codes}"
        if fault.expect == "done":
            return None if attempt.codes == [0] else f"{attempt.codes}: {errors[-300:]}"
        complete = checkpoint_steps(self.run, whole=True) == self.steps
        if attempt.codes == [-signal.SIGTERM] and complete:
            return None  # what is asked to end while it closes its files ends as any program does
        if attempt.codes[0] not in (1, 2, 130) or "Traceback" in errors:
            return f"no clear end ({attempt.codes}): {errors[-300:]}"
        return None if fault.expect in errors else f"the message lacks {fault.expect!r}: {errors}"

    def _inspect(self) -> str | None:
        """Return what is wrong with the run's directory as it lies there, or None."""
        newest = checkpoint_steps(self.run, whole=True)
        if newest < self.reported:
            return f"lost: step {self.reported} was reported as saved, {newest} is there"
        try:
            record = self.run / "checkpoints" / "best.json"
            if record.exists():
                checkpoint.resolve(f"{self.run}:best", trainer_state=True)
        except CheckpointError as error:
            return f"lost the best: {error}"
        wanted, found = (
            [line for line in self._comparable(curve) if line["step"] <= newest]
            for curve in (self.expected["curve"], _curve(self.run))
        )
        return None if found[: len(wanted)] == wanted else "the curve before the fault differs"

    def _outcome(self) -> dict[str, object]:
        newest = checkpoint.resolve(self.run, trainer_state=True)
        samples = self.run / "samples.txt"
        state = checkpoint.load_trainer_state(newest)
        return {
            "curve": _curve(self.run),
            "weights": (newest / "model.safetensors").read_bytes(),
            "optimizer": {(parameter, name): value.numpy().tobytes()
                          for parameter, values in state.get("optimizer", {}).items()
                          for name, value in values.items()},
            "best": checkpoint.best(self.run).name,
            "samples": samples.read_text(encoding="utf-8"),
            "leftovers": sorted(path.name for path in self.run.rglob(".*")),
        }  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended."""

    codes: list[int]
    fired: bool
    hung: bool


def checkpoint_steps(run: Path, *, whole: bool) -> int:
    """Return the step of the newest (whole) checkpoint, 0 without one."""
    found = checkpoint.list_checkpoints(run)
    if not whole or not found:
        return checkpoint.step_of(found[-1]) if found else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return checkpoint.step_of(checkpoint.resolve(run, trainer_state=True))
        except CheckpointError:
            return 0


def _tell_saves(child: Child) -> None:
    usual = checkpoint.save

    def save(*args: object, **named: object) -> Path:
        path = usual(*args, **named)
        child.tell(f"saved {checkpoint.step_of(path)}")
        return path

    checkpoint.save = save


def _curve(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    lines = read_metrics(path) if path.exists() else []
    return [{name: v for name, v in line.items() if name not in CLOCKED} for line in lines]


def _ticks(pid: int) -> int:
    """Return the processor time of a process in hundredths of a second."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return 0
    fields = path.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _free_port() -> int:
    """Return a port below those that Linux gives to whoever asks for any."""
    while True:
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port := random.SystemRandom().randrange(20_000, 32_000)))
            return port


def _tiny_run(root: Path, *, steps: int, out: Path) -> RunConfig:
    """A run of a tenth of a second with all that a run does: log, validate, sample, save."""
    root.mkdir(parents=True, exist_ok=True)
    tokenizer = root / "tokenizer"
    tokenizer.mkdir()
    train_tokenizer([], vocab_size=256 + len(SPECIAL_TOKENS)).save(tokenizer)
    draw, data = random.Random(7), root / "data.jsonl"
    words = "春夏秋冬山水花鸟人天地日月风云"
    rows = ["".join(draw.choices(words, k=draw.randint(5, 40))) + str(n) for n in range(300)]
    data.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return RunConfig(
        out=str(out),
        model=ModelConfig(
            vocab_size=256 + len(SPECIAL_TOKENS), hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, intermediate_size=32,
            max_position_embeddings=64,
        ),
        init=InitConfig(tokenizer=str(tokenizer)),
        data=DataConfig(train=(str(data),), sequence_length=64, validation_share=0.05),
        optim=OptimConfig(lr=3e-3),
        train=TrainConfig(steps=steps, batch_rows=4, micro_batch_rows=2, device="cpu",
                          precision="fp32", compile=False),
        save=SaveConfig(every=2, keep_last=2),
        log=LogConfig(every=1, validate_every=6, validate_rows=4, sample_every=8, prompts=("春",)),
    )  # fmt: skip
