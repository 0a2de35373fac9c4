"""A training run whose budget is seconds, steps or tokens: for benchmarks of recipes."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from minimind.config import DataConfig, RunConfig

SCHEDULE_STEPS = 1000
"""Resolution of the schedule over the budget."""


class TimedRun:
    """A training run that ends by the clock.

    Args:
        config: model, data, optimizer.
        tokenizer: fits the model.
        seconds: the budget.
        clock: what measures it, the wall's or this process's own on the processor.
        steps: the budget in steps instead.
        tokens: the budget in tokens instead.
        then: share of the budget, and the run whose rows are read from there on.
        averages: decays of running means of the weights that are measured as well.
        float8: round the layers' products to 8 bits, emulated.
        held_out: what `validate` reads; None: the held-out text of what is trained on.
    """

    def __init__(
        self,
        config: RunConfig,
        tokenizer: Any,
        *,
        seconds: float,
        clock: Literal["wall", "cpu"] = "wall",
        steps: int | None = None,
        tokens: int | None = None,
        then: tuple[float, RunConfig] | None = None,
        averages: Sequence[float] = (),
        float8: bool = False,
        held_out: DataConfig | None = None,
    ) -> None:
        from minimind.train import NextToken, Trainer, build_optimizer, build_schedule
        from minimind.train.average import WeightAverage
        from minimind.train.device import pick_device
        from minimind.train.start import fresh_model

        self.config, self.tokenizer, self.seconds = config, tokenizer, seconds
        self._clock = time.perf_counter if clock == "wall" else time.process_time
        self.steps, self.tokens, self._then = steps, tokens, then
        self._held_out = replace(held_out or config.data, pack=True, document_mask=True)
        self.elapsed, self.computed, self._since, self._padding = 0.0, 0.0, 0.0, 0
        self._batches = self._read(config)
        model = fresh_model(config).to(pick_device(config.train))
        if float8:
            from minimind.train.float8 import use_float8

            use_float8(model, emulate=True)
        curve = build_schedule(config.optim, steps=SCHEDULE_STEPS)
        self.trainer = Trainer(
            model=model,
            objective=NextToken(),
            optimizer=build_optimizer(model, config.optim),
            schedule=lambda _step: curve(int(self.progress * SCHEDULE_STEPS)),
            config=config.train,
            steps=sys.maxsize,
            clip_grad_norm=config.optim.clip_grad_norm,
        )
        self._averages = {decay: WeightAverage(model, decay) for decay in averages}

    def _read(self, config: RunConfig) -> Iterator[Any]:
        """Return the micro-batches of each step."""
        from minimind.data import make_loader

        loader = make_loader(
            config.data,
            self.tokenizer,
            batch_rows=config.train.batch_rows,
            micro_batch_rows=config.train.micro_batch_rows,
            seed=config.seed,
        )
        return iter(loader)

    @property
    def progress(self) -> float:
        """Return the share of the budget that is used up, at this moment."""
        if self.steps is not None:
            return min(0.999, self.trainer.step / self.steps)
        if self.tokens is not None:
            return min(0.999, self.trainer.counters.tokens / self.tokens)
        running = self._clock() - self._since if self._since else 0.0
        return min(0.999, (self.elapsed + running) / self.seconds)

    @property
    def finished(self) -> bool:
        """Tell whether the budget is used up."""
        if self.steps is not None:
            return self.trainer.step >= self.steps
        if self.tokens is not None:
            return self.trainer.counters.tokens >= self.tokens
        return self.elapsed >= self.seconds

    def warm_up(self) -> None:
        """Compile: two steps whose learning rate is zero, then forget their moments."""
        schedule, self.trainer.schedule = self.trainer.schedule, lambda _step: 0.0
        for micro_batches in itertools.islice(self._batches, 2):
            self.trainer.train_step(micro_batches)
        self.trainer.schedule = schedule
        self.trainer.optimizer.load_state_dict({})
        self.trainer.step, self.trainer.counters.tokens = 0, 0
        self.trainer.counters.learnt_tokens = 0

    def train(self, seconds: float, *, until_share: float = 1.0) -> None:
        """Train for a turn, to a share of the budget, or to its end, whichever is first."""
        counted = self.steps is not None or self.tokens is not None
        until = seconds if counted else min(seconds, self.seconds - self.elapsed)
        self._since, computed = self._clock(), time.process_time()
        while (now := self._clock() - self._since) < until and not (counted and self.finished):
            if until_share < 1 and self.progress >= until_share:
                break
            if self._then is not None and self.progress >= self._then[0]:
                self._batches, self._then = self._read(self._then[1]), None
            self.trainer.train_step(next(self._batches))
            for average in self._averages.values():
                average.update()
        self.elapsed += now
        self.computed += time.process_time() - computed
        self._since = 0.0

    def figures(self) -> dict[str, float]:
        """Return how far it is."""
        counters = self.trainer.counters
        return {
            "finished": float(self.finished),
            "steps": self.trainer.step,
            "processor_seconds": self.computed,
            "learnt_tokens_per_second": counters.learnt_tokens / max(self.elapsed, 1e-9),
            # Of the processor, all threads: what other programs take away doesn't count.
            "processor_seconds_per_step": self.computed / max(1, self.trainer.step),
            "padding_share": 1 - counters.learnt_tokens / max(1, counters.tokens),
        }

    def validate(self, n_bytes: int) -> dict[str, float]:
        """Return bits per byte of the held-out text, packed with boundaries for every arm."""
        from minimind.train.hooks import evaluate

        batches, size = self._held_out_batches(self._held_out, n_bytes)
        tokens = sum(batch.learnt_tokens for batch in batches)
        figures = evaluate(self.trainer, batches, text_bytes=size)
        return {
            "bits_per_byte": figures["bits_per_byte"],
            "held_out_bytes": size,
            "bytes_per_token": size / tokens,
            **self._loads(batches),
            **{
                f"bits_per_byte_mean_{decay:g}": evaluate(
                    self.trainer, batches, text_bytes=size, model=average.model
                )["bits_per_byte"]
                for decay, average in self._averages.items()
            },
        }

    def validate_sources(self, n_bytes: int) -> dict[str, float]:
        """Return bits per byte of each file's own held-out text, at most `n_bytes` of each."""
        from minimind.train.hooks import evaluate

        figures = {}
        for file in self._held_out.train:
            alone = replace(self._held_out, train=(file,), weights=None)
            batches, size = self._held_out_batches(alone, n_bytes)
            if batches:
                name = f"bits_per_byte_of_{Path(file).name.split('.')[0]}"
                found = evaluate(self.trainer, batches, text_bytes=size)
                figures[name] = found["bits_per_byte"]
        return figures

    def _held_out_batches(self, data: DataConfig, n_bytes: int) -> tuple[list[Any], int]:
        """Return the first `n_bytes` or so of held-out text, and how many they are."""
        from minimind.data import validation_batches
        from minimind.train.hooks import text_bytes, token_byte_lengths

        lengths = token_byte_lengths(self.tokenizer)
        # Batches come in a fixed order of documents, whatever the tokenizer: the first `n_bytes`.
        rows = max(1, n_bytes // data.sequence_length)
        batches, sizes = [], []
        for batch in validation_batches(data, self.tokenizer, rows=rows, micro_batch_rows=4):
            if sum(sizes) >= n_bytes:
                break
            batches.append(batch)
            sizes.append(text_bytes(batch, lengths))
        return batches, sum(sizes)

    def _loads(self, batches: list[Any]) -> dict[str, float]:
        """Return how unevenly held-out tokens fall on experts: the worst layer, and the mean."""
        from minimind.inference.experts import expert_loads

        if self.config.model.moe is None:
            return {}
        loads = expert_loads(self.trainer.model, batches)
        ratios = [max(layer) / max(min(layer), 1e-9) for layer in loads.tolist()]
        return {
            "max_over_min_load": max(ratios),
            "mean_max_over_min": statistics.mean(ratios),
            "unused_experts": sum(load == 0 for layer in loads.tolist() for load in layer),
        }
