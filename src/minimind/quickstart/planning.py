"""How minutes become steps: real steps are timed, and the time that is left is divided."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from minimind.eval.results import StageRecord, read_json, write_json
from minimind.quickstart.config import PROBLEMS_PER_SECOND, TEXT_HELD_OUT
from minimind.quickstart.records import Records


class Planning(Records):
    """Decides how long the stages are, and the flags that follow from it."""

    def _plan(self) -> StageRecord:
        """Time real steps (they fill torch.compile's cache too) and divide what time is left."""
        split = self._split()
        seconds: dict[str, float] = {}
        if self.config.steps is None:
            rate, step_seconds = self._measured(split)
            left = max(30.0, self.config.minutes * 60 - self._spent_so_far())
            seconds = {name: round(left * part, 1) for name, part in self.config.shares.items()}
            steps = max(20, int(seconds["pretrain"] / step_seconds))
            sft_steps = max(10, int(seconds["sft"] / step_seconds))
            problems = max(120, int(seconds["preferences"] * PROBLEMS_PER_SECOND))
        else:
            rate, steps, sft_steps, problems = 0, self.config.steps, self.config.steps, 120
        details = {
            "tokens per second": round(rate),
            "pretrain steps": steps,
            "sft steps": sft_steps,
            "problems": problems,
        }
        write_json(self._at("plan.json"), {**details, "micro-batch": split, "seconds": seconds})
        return self._done("plan", details)

    def _catch_up(self) -> dict[str, Any]:
        """Plan SFT and the problems again by what pretraining left of the minutes; once a run.

        Pretraining is most of the budget, and what it takes beside its steps (starting, saving) is
        not in the plan. At least half of what was planned is kept: a model that hardly saw a
        conversation is no use, minutes or not.
        """
        plan = read_json(self._at("plan.json"))
        done = self.stages.get("pretrain")
        begun = "caught up" in plan or (self._at("sft") / "run.toml").exists()
        if begun or not plan.get("seconds") or done is None or not done.steps:
            return plan
        after = [name for name in plan["seconds"] if name != "pretrain"]
        planned = sum(plan["seconds"][name] for name in after)
        left = self.config.minutes * 60 - self._spent_so_far()
        factor = min(1.5, max(0.5, left / planned))
        seconds = plan["seconds"] | {n: round(plan["seconds"][n] * factor, 1) for n in after}
        plan |= {
            "seconds": seconds,
            "sft steps": max(10, int(seconds["sft"] * done.steps / done.seconds)),
            "problems": max(120, int(seconds["preferences"] * PROBLEMS_PER_SECOND)),
            "caught up": round(factor, 3),
        }
        write_json(self._at("plan.json"), plan)
        return plan

    def _say_budget(self) -> None:
        """Say what each stage was given and took, where the minutes were divided."""
        path = self._at("plan.json")
        planned = read_json(path).get("seconds", {}) if path.exists() else {}
        if not planned:
            return
        taken = {record.name: record.seconds for record in self.stages.stages}
        parts = [
            f"{name} {taken.get(name, 0):.0f} of {seconds:.0f}" for name, seconds in planned.items()
        ]
        before = sum(seconds for name, seconds in taken.items() if name not in planned)
        self._say(
            f"seconds taken of those planned: data, tokenizer and plan {before:.0f}; "
            f"{', '.join(parts)}; {sum(taken.values()) / 60:.1f} of {self.config.minutes:g} minutes"
        )

    @property
    def _layers(self) -> tuple[str, ...]:
        return ("pretrain", self.config.model, *self.config.layers)

    def _split(self) -> dict[str, Any]:
        """Return the settings of a micro-batch that fits the device; none where the preset's do."""
        from minimind.settings import load_run_config
        from minimind.train.fit import fitted

        config = load_run_config(self._layers, ["--model.vocab-size", str(self.config.vocab_size)])
        train = fitted(config).train
        names = ("micro_batch_rows", "gradient_checkpointing")
        return {
            name: getattr(train, name) for name in names
            if getattr(train, name) != getattr(config.train, name)
        }  # fmt: skip

    def _sft_rows(self, split: Mapping[str, Any]) -> list[object]:
        """As many tokens a step as in pretraining, where the plan's seconds a step come from."""
        from minimind.settings import load_run_config

        before, sft = load_run_config(self._layers), load_run_config(["sft"])
        ratio = before.data.sequence_length / sft.data.sequence_length
        flags: list[object] = ["--train.batch-rows", int(before.train.batch_rows * ratio)]
        if split:
            rows = split.get("micro_batch_rows", before.train.micro_batch_rows)
            flags += _flags({**split, "micro_batch_rows": max(1, int(rows * ratio))})
        return flags

    def _pretrain_flags(self, split: Mapping[str, Any]) -> list[object]:
        return [
            *_flags(split),
            "--model.vocab-size", self.config.vocab_size,
            "--init.tokenizer", self._at("tokenizer"),
            "--data.train", self._at("data/pretrain"),
            "--data.validation-share", TEXT_HELD_OUT,
        ]  # fmt: skip

    def _pretrain_minutes(self, plan: Mapping[str, Any]) -> list[object]:
        """Return the flag that holds pretraining to its time, where a time was planned.

        The rate that it was planned with is one of fourteen steps; most of the budget hangs on it.
        """
        seconds = plan["seconds"].get("pretrain")
        return [] if seconds is None else ["--train.minutes", round(seconds / 60, 2)]

    def _measured(self, split: Mapping[str, Any]) -> tuple[float, float]:
        """Return tokens per second and seconds per step of a few real pretraining steps."""
        from statistics import median

        from minimind.settings import load_run_config
        from minimind.train.metrics import read_metrics
        from minimind.train.run import run

        trial = self.out / ".trial"
        shutil.rmtree(trial, ignore_errors=True)
        flags = [*self._pretrain_flags(split), "--train.steps", 14, "--log.every", 1,
                 "--log.validate-rows", 16, "--name", trial.name, "--out", self.out]  # fmt: skip
        config = load_run_config(self._layers, list(map(str, flags)))
        result = run(config, console=Console(quiet=True))
        if result.stopped_by is not None:
            raise KeyboardInterrupt
        lines = [r for r in read_metrics(trial / "metrics.jsonl") if "tokens_per_second" in r]
        shutil.rmtree(trial)
        rate = median(line["tokens_per_second"] for line in lines[4:])
        return rate, config.train.batch_rows * config.data.sequence_length / rate


def _flags(settings: Mapping[str, Any]) -> list[object]:
    """Return training settings as the flags that a command would have."""
    return [
        word
        for name, value in settings.items()
        for word in (f"--train.{name.replace('_', '-')}", value)
    ]
