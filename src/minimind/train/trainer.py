"""The loop. A stage differs in its batches and its objective, never here.

One step: every micro-batch's summed loss is backpropagated; gradients are summed over the ranks;
then one pass divides them by the total count and clips them; then the update.
Between steps run hooks: log, validate, sample, save.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from minimind.config import TrainConfig
from minimind.data.batch import Batch
from minimind.errors import TrainingDivergedError
from minimind.model import CausalLM
from minimind.model.varlen import starts_on
from minimind.train.average import WeightAverage
from minimind.train.device import AUTOCAST_DTYPE, pick_precision
from minimind.train.distributed import World
from minimind.train.float8 import use_float8
from minimind.train.metrics import LossMean
from minimind.train.objective import Loss, Objective
from minimind.train.optim import Optimizer
from minimind.train.rng import rng_state, set_rng_state
from minimind.train.schedule import Schedule
from minimind.train.signals import GracefulStop, Interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one optimizer step did.

    Attributes:
        step: number of this step, from 1.
        loss: mean over what the objective counts; NaN if it was not finite.
        tokens: slots in the step over all ranks, padding included.
        learnt_tokens: those that carry a label.
        grad_norm: before clipping.
        lr: learning rate of the optimizer's first part.
        seconds: wall-clock of the step with its data, without the hooks.
        data_seconds: the part of it that was spent waiting for the data.
        skipped: the weights did not change: loss or gradient not finite, or nothing to learn.
        metrics: the objective's metrics, divided by the same count as the loss.
    """

    step: int
    loss: float
    tokens: int
    learnt_tokens: int
    grad_norm: float
    lr: float
    seconds: float
    skipped: bool = False
    data_seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


class Loader(Protocol):
    """Yields the micro-batches of one step at a time, and remembers where it is."""

    def __iter__(self) -> Iterator[list[Batch]]: ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step that was yielded."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        ...


@dataclass(slots=True, kw_only=True)
class Counters:
    """What a run adds up over its whole life, resumes included."""

    tokens: int = 0
    learnt_tokens: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0


class Trainer:
    """Trains `model` on `objective`; see `fit`.

    Args:
        model: on its device, weights in fp32; what requires a gradient is trained.
        objective: maps the model and a micro-batch to sums.
        optimizer: from `build_optimizer`.
        schedule: step -> factor of the peak learning rate.
        config: precision, compilation, gradient checkpointing, patience with bad steps.
        steps: the run ends after this many optimizer steps in all.
        loader: micro-batches of each step. None: call `train_step` yourself.
        hooks: called in order after every step, on the main rank only.
        clip_grad_norm: larger gradients are scaled down to this norm; infinity never clips.
        world: the processes that share each step.
    """

    def __init__(
        self,
        *,
        model: CausalLM,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        config: TrainConfig,
        steps: int,
        loader: Loader | None = None,
        hooks: Sequence[Hook] = (),
        clip_grad_norm: float = 1.0,
        world: World | None = None,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.schedule, self.config, self.steps = schedule, config, steps
        self.loader, self.hooks = loader, list(hooks)
        self.clip_grad_norm = clip_grad_norm
        self.world = world or World()
        self.device = next(model.parameters()).device
        self.precision = pick_precision(config, self.device)
        if self.precision == "fp8":
            use_float8(model)
        # A summed loss is already thousands of times a mean one, so a small first scale does.
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=2.0**6, enabled=self.precision == "fp16"
        )
        self.step = 0
        self.counters = Counters()
        self.losses = LossMean()
        self.last_checkpoint: Path | None = None
        self.ending = False
        self._bad_in_a_row = 0
        self._stop = GracefulStop()
        model.set_gradient_checkpointing(config.gradient_checkpointing)
        model.set_fused_projections(on=config.fuse_projections)
        self.average = WeightAverage(model, config.average_decay) if config.average_decay else None
        self._loss: Callable[[CausalLM, Batch], Loss] = (
            # One kernel a shape, whatever was seen before: a resume meets shapes in another order.
            torch.compile(objective, dynamic=False)
            if config.compile and not self.world.compiles_layers
            else objective
        )

    def fit(self) -> StepReport | None:
        """Train until `steps`, the end of the data, or SIGINT/SIGTERM.

        A signal lets the current step finish and the hooks see `ending`, so that the run is saved;
        a second signal aborts at once. Hooks are called a last time with `ending` set.

        Returns:
            The last step's report; None if there was nothing to do.

        Raises:
            TrainingDivergedError: `max_bad_steps` non-finite steps in a row.
        """
        assert self.loader is not None, "fit() needs a loader; train_step() doesn't"
        report = None
        if self.step >= self.steps:
            return report
        with self._stop:
            started = time.perf_counter()
            batches = iter(self.loader)
            while (micro_batches := self._awaited(batches)) is not None:
                waited = time.perf_counter() - started
                report = self.train_step(micro_batches, started=started, data_seconds=waited)
                self.ending = self.ending or self.step >= self.steps
                self._run_hooks(report)
                if self.ending:
                    return report
                started = time.perf_counter()
            # The data ended before the step budget did, or a signal came while waiting for it.
            self.ending = True
            if report is not None:
                self._run_hooks(report)
        return report

    def _awaited(self, batches: Iterator[list[Batch]]) -> list[Batch] | None:
        """Return the next step's micro-batches, or None at the end of the data or on a signal."""
        assert self.loader is not None
        before = self.loader.state_dict()
        try:
            # A source that fell silent must not hold up the end. Several ranks end after a step,
            # together.
            with self._stop.interruptible(on=self.world.size == 1):
                return next(batches, None)
        except Interrupted:
            # The step may have been taken already: it isn't trained on, so a resume must get it.
            self.loader.load_state_dict(before)
            return None

    def train_step(
        self,
        micro_batches: Sequence[Batch],
        *,
        started: float | None = None,
        data_seconds: float = 0.0,
    ) -> StepReport:
        """Do one optimizer step over `micro_batches` (this rank's share).

        Args:
            micro_batches: any split of the step's rows gives the same step.
            started: `time.perf_counter()` from when the step's time counts.
            data_seconds: how long of it the micro-batches were waited for.
        """
        started = time.perf_counter() if started is None else started
        self.model.train()
        self.optimizer.zero_grad()
        self.optimizer.set_lr_factor(self.schedule(self.step))
        sums = self._backward(self.world.even(micro_batches))
        self.world.sum_gradients(self.optimizer.parameters)
        for part in self.optimizer.parts:
            self.scaler.unscale_(part)
        norm = self._gradient_norm()
        counted = {  # before the host waits: behind that a GPU waits for the host
            "tokens": float(sum(batch.input_ids.numel() for batch in micro_batches)),
            "learnt_tokens": float(sum(batch.learnt_tokens for batch in micro_batches)),
        }
        totals, norm = self._to_host(sums, norm)
        totals |= counted | {"stop": float(self._stop.number is not None)}
        totals = self.world.sum_values(totals)
        self.ending = totals.pop("stop") > 0
        tokens, learnt = int(totals.pop("tokens")), int(totals.pop("learnt_tokens"))
        count = totals.pop("count")
        means = {name: total / max(count, 1.0) for name, total in totals.items()}
        norm /= max(count, 1.0)
        skipped = not self._update(count, loss=means["loss"], norm=norm)
        if self.average is not None and not skipped:
            self.average.update()
        self.step += 1
        seconds = time.perf_counter() - started
        self.counters.tokens += tokens
        self.counters.learnt_tokens += learnt
        self.counters.seconds += seconds
        self._check_divergence(bad=skipped and count > 0)
        report = StepReport(
            step=self.step,
            loss=means.pop("loss"),
            tokens=tokens,
            learnt_tokens=learnt,
            grad_norm=norm,
            lr=self.optimizer.lr,
            seconds=seconds,
            data_seconds=data_seconds,
            skipped=skipped,
            metrics=means,
        )
        self.losses.add(report)
        return report

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context of this run, for hooks that run the model too."""
        dtype = AUTOCAST_DTYPE.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact resume needs beside the weights (builtins and tensors only)."""
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": rng_state(),
            "loader": self.loader.state_dict() if self.loader is not None else {},
            "counters": asdict(self.counters),
            "losses": self.losses.state_dict(),
            "bad_in_a_row": self._bad_in_a_row,
            "average": self.average.state_dict() if self.average is not None else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; the weights are loaded into the model beforehand."""
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.loader is not None:
            self.loader.load_state_dict(state["loader"])
        self.counters = Counters(**state["counters"])
        self.losses.load_state_dict(state.get("losses", {}))
        self._bad_in_a_row = state["bad_in_a_row"]
        if self.average is not None:
            self.average.load_state_dict(state.get("average", {}))
        set_rng_state(state["rng"])

    def _backward(self, micro_batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Add up the gradients and the sums of the micro-batches, on the device."""
        zero = torch.zeros((), device=self.device)
        sums: dict[str, Tensor] = {"loss": zero, "count": zero}
        for batch in micro_batches:
            with self.autocast():
                loss = self._loss(self.model, self._on_device(batch))
            self.scaler.scale(loss.sum).backward()
            parts = {"loss": loss.sum.detach(), "count": loss.count, **loss.metrics}
            for name, value in parts.items():
                sums[name] = sums.get(name, zero) + value
        return sums

    def _on_device(self, batch: Batch) -> Batch:
        """Return the micro-batch on the device; flash attention is told where documents start."""
        moved = batch.to(self.device)
        if self.config.attention != "flash" or batch.document_ids is None:
            return moved
        return replace(moved, document_starts=starts_on(self.device, batch.document_ids))

    def _gradient_norm(self) -> Tensor:
        gradients = [p.grad for p in self.optimizer.parameters if p.grad is not None]
        return self.world.norm(gradients).to(self.device)

    def _to_host(self, sums: dict[str, Tensor], norm: Tensor) -> tuple[dict[str, float], float]:
        """Read everything in one transfer: the only time in a step that the host waits."""
        *values, norm_value = torch.stack(
            [value.float() for value in (*sums.values(), norm)]
        ).tolist()
        return dict(zip(sums, values, strict=True)), norm_value

    def _update(self, count: float, *, loss: float, norm: float) -> bool:
        """Divide, clip and update; return False if the step had to be skipped."""
        good = count > 0 and math.isfinite(loss) and math.isfinite(norm)
        if good:
            clip = min(1.0, self.clip_grad_norm / (norm + 1e-6))
            gradients = [p.grad for p in self.optimizer.parameters if p.grad is not None]
            if gradients:  # together: a GPU has nothing to do while a hundred are launched
                torch._foreach_mul_(gradients, clip / count)  # pyright: ignore[reportPrivateImportUsage]
            for part in self.optimizer.parts:
                self.scaler.step(part)
        self.scaler.update()
        return good

    def _check_divergence(self, *, bad: bool) -> None:
        if not bad:
            self._bad_in_a_row = 0
            return
        self._bad_in_a_row += 1
        self.counters.skipped_steps += 1
        if self._bad_in_a_row >= self.config.max_bad_steps:
            where = self.last_checkpoint or "none was saved yet"
            raise TrainingDivergedError(
                f"loss or gradient was not finite for {self._bad_in_a_row} steps in a row, up to "
                f"step {self.step}. The last good checkpoint: {where}. Start again from it with a "
                "lower --optim.lr and --optim.muon-lr, or look at the data of these steps"
            )

    def _run_hooks(self, report: StepReport) -> None:
        if self.world.is_main:
            for hook in self.hooks:
                hook(self, report)
        self.world.after_hooks(self)

    def whole_model(self) -> CausalLM:
        """Return the model with all its weights, for a hook: averaged, if the run averages.

        They may be spread over the ranks.
        """
        return self.average.model if self.average is not None else self.world.whole(self.model)

    @property
    def stopped_by(self) -> int | None:
        """Return the number of the signal that ended the run, or None."""
        return self._stop.number


Hook = Callable[[Trainer, StepReport], None]
"""Called between steps; `trainer.ending` tells that no step follows."""
