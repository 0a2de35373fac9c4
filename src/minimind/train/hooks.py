"""Hooks, `(Trainer, StepReport) -> None`: what happens between steps. Log, validate, sample, save.

Hooks run on the main rank only, in the order they are given; their time is not counted into
tokens/s. `Save` comes last, so that what it writes includes all that the others did.
After the last step each is called with `trainer.ending` set, perhaps a second time for that step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from minimind import checkpoint
from minimind.config import SaveConfig
from minimind.data.batch import IGNORE, Batch
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer
from minimind.train.metrics import MetricsLog
from minimind.train.trainer import StepReport, Trainer

DATA_WAIT_SHOWN = 0.05
"""From this share of the time on, waiting for data is shown beside the loss."""


class _Every:
    """Tells whether a hook is due: every `steps` steps (0: never) and at the end, once a step."""

    def __init__(self, steps: int, *, at_end: bool = True) -> None:
        self._steps, self._at_end = steps, at_end
        self._done = -1

    def regular(self, trainer: Trainer) -> bool:
        return self._steps > 0 and trainer.step % self._steps == 0

    def due(self, trainer: Trainer) -> bool:
        wanted = self.regular(trainer) or (self._at_end and trainer.ending)
        if trainer.step == self._done or not wanted:
            return False
        self._done = trainer.step
        return True


class Log:
    """Writes metrics.jsonl and shows progress: a bar in a terminal, plain lines elsewhere.

    Args:
        metrics: where lines go.
        every: steps between lines. A skipped step is always a line.
        console: where progress is shown.
        flops_per_token: forward and backward, for MFU.
        peak_flops: the device's bf16 matrix rate, for MFU.
        label: what the bar is called.
    """

    def __init__(
        self,
        metrics: MetricsLog,
        *,
        every: int,
        console: Console,
        flops_per_token: float | None = None,
        peak_flops: float | None = None,
        label: str = "train",
    ) -> None:
        self.metrics, self.console, self.label = metrics, console, label
        self._every = _Every(every)
        self._flops_per_token, self._peak_flops = flops_per_token, peak_flops
        self._tokens, self._seconds, self._data_seconds = 0, 0.0, 0.0
        self._noted = -1
        self._progress: Progress | None = None

    def __call__(self, trainer: Trainer, report: StepReport, /) -> None:
        """Note the step; write a line when it is due."""
        # The hooks run twice for the last step when the data ends before the steps do.
        again = trainer.step == self._noted
        self._noted = trainer.step
        if not again:
            self._tokens += report.tokens
            self._seconds += report.seconds
            self._data_seconds += report.data_seconds
        due = self._every.due(trainer)
        if (due and not (again and report.skipped)) or (report.skipped and not again):
            self._write(trainer, report)
        if trainer.ending and self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _write(self, trainer: Trainer, report: StepReport) -> None:
        rate = self._tokens / max(self._seconds, 1e-9)
        figures: dict[str, float | int | None] = {
            "loss": report.loss,
            "mean_loss": trainer.losses.line(
                regular=self._every.regular(trainer) or report.skipped
            ),
            "lr": report.lr,
            "grad_norm": report.grad_norm,
            "tokens": trainer.counters.tokens,
            "learnt_tokens": trainer.counters.learnt_tokens,
            "tokens_per_second": rate,
            "seconds": trainer.counters.seconds,
            # Of the time since the last line: a device that waits for data is seen here.
            "data_wait_seconds": self._data_seconds,
            "data_wait_share": self._data_seconds / max(self._seconds, 1e-9),
            **report.metrics,
        }
        if self._flops_per_token and self._peak_flops:
            world_peak = self._peak_flops * trainer.world.size
            figures["mfu"] = rate * self._flops_per_token / world_peak
        if trainer.counters.skipped_steps:
            figures["skipped_steps"] = trainer.counters.skipped_steps
        self.metrics.write(figures, step=report.step)
        seconds_per_step = self._seconds * report.tokens / max(1, self._tokens)
        self._show(trainer, report, figures, seconds_per_step)
        self._tokens, self._seconds, self._data_seconds = 0, 0.0, 0.0

    def _show(
        self,
        trainer: Trainer,
        report: StepReport,
        figures: dict[str, float | int | None],
        seconds_per_step: float,
    ) -> None:
        parts = [f"loss {report.loss:.4f}", f"{figures['tokens_per_second']:,.0f} tokens/s"]
        # A name with a slash is a detail, for the file and the tracker only.
        shown = {name: value for name, value in report.metrics.items() if "/" not in name}
        parts += [f"{name} {value:.3f}" for name, value in shown.items()]
        if (mfu := figures.get("mfu")) is not None:
            parts.append(f"MFU {mfu:.1%}")
        if (share := figures["data_wait_share"]) and share > DATA_WAIT_SHOWN:
            parts.append(f"{share:.0%} waiting for data")
        if report.skipped:
            parts.append(f"step skipped, {trainer.counters.skipped_steps} so far")
        text = " · ".join(parts)
        if not self.console.is_terminal:
            left = seconds_per_step * (trainer.steps - trainer.step)
            self.console.print(
                f"{self.label} {trainer.step}/{trainer.steps} · {text} · {_duration(left)} left",
                highlight=False,
                soft_wrap=True,
            )
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[figures]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._progress.start()
            self.console.show_cursor(True)  # an aborted run must not leave a terminal without one
            self._task = self._progress.add_task(self.label, total=trainer.steps, figures="")
        self._progress.update(self._task, completed=trainer.step, total=trainer.steps, figures=text)


class Validate:
    """Measures the objective on held-out batches.

    Args:
        batches: the same ones each time.
        every: steps between validations; 0: only at the end.
        metrics: where `validation_loss` and `validation_bits_per_byte` go.
        console: where they are shown.
        byte_lengths: (V,) bytes of text of each token, from `token_byte_lengths`; None where bits
            per byte mean nothing (pairs, distillation).
        also: further held-out batches by name, for `validation_NAME_loss` and so on.

    Attributes:
        last: step and loss of the last validation on `batches`.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        *,
        every: int,
        metrics: MetricsLog,
        console: Console | None = None,
        byte_lengths: Tensor | None = None,
        also: Mapping[str, Sequence[Batch]] | None = None,
    ) -> None:
        self.batches, self.metrics, self.console = batches, metrics, console
        self.sets = {"": batches, **{f"{name}_": more for name, more in (also or {}).items()}}
        self.bytes = {
            name: 0
            if byte_lengths is None
            else sum(text_bytes(batch, byte_lengths) for batch in those)
            for name, those in self.sets.items()
        }
        self._every = _Every(every)
        self.last: tuple[int, float] | None = None

    def __call__(self, trainer: Trainer, report: StepReport, /) -> None:
        """Validate when it is due."""
        if not self.batches or not self._every.due(trainer):
            return
        figures = {
            f"{name}{figure}": value
            for name, batches in self.sets.items()
            for figure, value in evaluate(trainer, batches, text_bytes=self.bytes[name]).items()
        }
        self.last = (report.step, figures["loss"])
        named = {f"validation_{name}": value for name, value in figures.items()}
        self.metrics.write({**named, "seconds": trainer.counters.seconds}, step=report.step)
        if self.console is not None:
            text = " · ".join(f"{name} {value:.4f}" for name, value in figures.items())
            self.console.print(
                f"validation at step {report.step} · {text}", highlight=False, soft_wrap=True
            )


@torch.no_grad()
def evaluate(
    trainer: Trainer,
    batches: Sequence[Batch],
    *,
    text_bytes: int = 0,
    model: CausalLM | None = None,
) -> dict[str, float]:
    """Return the mean loss of the trainer's objective over `batches`, and its metrics.

    Eager on purpose: another shape without gradients would be compiled anew. With `text_bytes`
    (bytes of the labels' text) and a loss in nats, `bits_per_byte` too. Another `model` than the
    trainer's may be measured.
    """
    model = (model or trainer.whole_model()).eval()
    totals: dict[str, float] = {"loss": 0.0, "count": 0.0}
    for batch in batches:
        with trainer.autocast():
            loss = trainer.objective(model, batch.to(trainer.device))
        parts = {"loss": loss.sum, "count": loss.count, **loss.metrics}
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    model.train()
    count = max(totals.pop("count"), 1.0)
    means = {name: total / count for name, total in totals.items()}
    if text_bytes:
        means["bits_per_byte"] = totals["loss"] / math.log(2) / text_bytes
    return means


def token_byte_lengths(tokenizer: Tokenizer) -> Tensor:
    """Return (V,) int64: bytes of text that each token stands for; 0 for special tokens."""
    special = {*tokenizer.stop_ids, *tokenizer.control_ids}
    return torch.tensor(
        [
            0 if token in special else len(tokenizer.token_bytes(token))
            for token in range(tokenizer.vocab_size)
        ]
    )


def text_bytes(batch: Batch, byte_lengths: Tensor) -> int:
    """Return the bytes of text that the labels of `batch` stand for."""
    return int(byte_lengths[batch.labels[batch.labels != IGNORE]].sum())


class Sample:
    """Lets the model continue some prompts and appends what it says to samples.txt.

    Args:
        generate: prompt -> continuation; seeds itself, so that training is not disturbed.
        prompts: what is continued.
        every: steps between samples; 0: never.
        path: the file.
    """

    def __init__(
        self, generate: Callable[[str], str], *, prompts: Sequence[str], every: int, path: Path
    ) -> None:
        self.generate, self.prompts, self.path = generate, prompts, path
        self._every = _Every(every, at_end=every > 0)

    def __call__(self, trainer: Trainer, report: StepReport, /) -> None:
        """Sample when it is due."""
        if not self.prompts or not self._every.due(trainer):
            return
        model = trainer.whole_model().eval()
        devices = [trainer.device] if trainer.device.type == "cuda" else []
        with torch.random.fork_rng(devices), trainer.autocast(), _any_kernel():
            texts = [self.generate(prompt) for prompt in self.prompts]
        model.train()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"## step {report.step}\n")
            for prompt, text in zip(self.prompts, texts, strict=True):
                file.write(f"> {prompt}\n{text}\n\n")


@contextmanager
def _any_kernel() -> Iterator[None]:
    """Leave `train.deterministic` aside: CUDA has no deterministic sum to draw by (`cumsum`)."""
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True)


class Save:
    """Saves every `every` steps, at the end and on a signal; keeps the last ones and the best.

    Args:
        save: saves now and returns the checkpoint's directory.
        run: the run's directory.
        config: how often, and what is kept.
        validation: the hook whose loss says which is best; None keeps no best.
    """

    def __init__(
        self,
        save: Callable[[Trainer], Path],
        *,
        run: Path,
        config: SaveConfig,
        validation: Validate | None = None,
    ) -> None:
        self.save, self.run, self.config, self.validation = save, run, config, validation
        self._every = _Every(config.every)

    def __call__(self, trainer: Trainer, report: StepReport, /) -> None:
        """Save when it is due, or when this step's validation is the best so far."""
        best_loss = self._new_best_loss(report.step)
        if not self._every.due(trainer) and best_loss is None:
            return
        trainer.last_checkpoint = self.save(trainer)
        if best_loss is not None:
            checkpoint.record_best(self.run, step=report.step, validation_loss=best_loss)
        checkpoint.prune(
            self.run,
            keep_last=self.config.keep_last,
            keep_best=self.config.keep_best,
            newest=trainer.step,
        )

    def _new_best_loss(self, step: int) -> float | None:
        """Return this step's validation loss if there is one and it is the lowest so far."""
        if not self.config.keep_best or self.validation is None or self.validation.last is None:
            return None
        validated_step, loss = self.validation.last
        best_loss = checkpoint.best_loss(self.run)
        improved = (
            validated_step == step
            and math.isfinite(loss)
            and (best_loss is None or loss < best_loss)
        )
        return loss if improved else None


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
