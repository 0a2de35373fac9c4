"""How minutes become steps: real steps are timed, and the time that is left is divided."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from minimind.data.passes import parts_of
from minimind.errors import ConfigError
from minimind.eval.results import MANY_PASSES, StageRecord, read_json, write_json
from minimind.quickstart.config import (
    PROBLEMS_PER_SECOND,
    QUESTIONS_HELD_OUT,
    SFT_WEIGHTS,
    TEXT_HELD_OUT,
)
from minimind.quickstart.corpus import (
    FEWEST_SFT_STEPS,
    FEWEST_STEPS,
    most_steps,
    passes_of,
    sft_step,
)
from minimind.quickstart.records import Records
from minimind.quickstart.text import data_flags
from minimind.quickstart.words import PASSES

SHORT_SECONDS = 120.0
"""So long the fewest steps may take in any case: somebody tries it out."""


class Planning(Records):
    """Decides how long the stages are, and the flags that follow from it."""

    def _plan(self) -> StageRecord:
        """Time real steps (they fill torch.compile's cache too) and divide what time is left."""
        split = self._split()
        corpus = self._corpus(split)
        seconds: dict[str, float] = {}
        if self.config.steps is None:
            rate, step_seconds = self._measured(split)
            left = max(30.0, self.config.minutes * 60 - self._spent_so_far())
            sft_seconds = step_seconds * sft_step(corpus)
            self._check_enough(left, rate=rate, step_seconds=step_seconds, sft_seconds=sft_seconds)
            most = most_steps(corpus["sft"])
            seconds = self._divided(left, most_sft=most * sft_seconds)
            steps = max(FEWEST_STEPS, int(seconds["pretrain"] / step_seconds))
            sft_steps = round(min(most, max(FEWEST_SFT_STEPS, seconds["sft"] / sft_seconds)))
            problems = max(120, int(seconds["preferences"] * PROBLEMS_PER_SECOND))
        else:
            rate, steps, sft_steps, problems = 0, self.config.steps, self.config.steps, 120
        details = {
            "tokens per second": round(rate),
            "pretrain steps": steps,
            "sft steps": sft_steps,
            "problems": problems,
        }
        plan = {**details, "micro-batch": split, "seconds": seconds, "corpus": corpus}
        write_json(self._at("plan.json"), plan)
        record = self._done("plan", details)
        for name, planned in (("pretrain", steps), ("sft", sft_steps)):
            tokens = planned * corpus[name]["tokens a step"]
            self._say_passes(name, tokens, passes_of(corpus[name], tokens))
        return record

    def _divided(self, left: float, *, most_sft: float) -> dict[str, float]:
        """Return the seconds of each stage; what SFT can't use without end goes to pretraining."""
        seconds = {name: left * part for name, part in self.config.shares.items()}
        spare = max(0.0, seconds["sft"] - most_sft)
        seconds |= {"pretrain": seconds["pretrain"] + spare, "sft": seconds["sft"] - spare}
        return {name: round(value, 1) for name, value in seconds.items()}

    def _check_enough(
        self, left: float, *, rate: float, step_seconds: float, sft_seconds: float
    ) -> None:
        """Refuse minutes in which nothing is learnt, before they are spent.

        Raises:
            ConfigError: the fewest steps that are ever planned take longer than what is left.
        """
        fewest = FEWEST_STEPS * step_seconds + FEWEST_SFT_STEPS * sft_seconds
        if fewest > max(left, SHORT_SECONDS):
            flag = "--budget" if self.config.verb == "speedrun" else "--minutes"
            raise ConfigError(
                f"{self.config.model} trains {rate:,.0f} tokens a second here, a step takes "
                f"{step_seconds:,.0f} s: the fewest that make sense, {FEWEST_STEPS} of pretraining "
                f"and {FEWEST_SFT_STEPS} of SFT, are {fewest / 60:,.0f} minutes, and of "
                f"{self.config.minutes:g} are {left / 60:,.0f} left. Go on with a longer {flag}, "
                "or begin anew with a smaller --model"
            )

    def _corpus(self, split: Mapping[str, Any]) -> dict[str, Any]:
        """Return what pretraining and SFT read: tokens of a step, and of one pass over each path.

        `self.jsonl` isn't in it: the few conversations that say who the model is are meant to be
        read many times.
        """
        from minimind.settings import load_run_config
        from minimind.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(self._at("tokenizer"))
        stages = {
            "pretrain": (self._layers, self._pretrain_flags(split)),
            "sft": (("sft",), self._sft_flags(split)),
        }
        corpus = {}
        for name, (layers, flags) in stages.items():
            run = load_run_config(layers, list(map(str, flags)))
            parts = parts_of(run.data, tokenizer)
            corpus[name] = {
                "tokens a step": run.train.batch_rows * run.data.sequence_length,
                "parts": [asdict(p) for p in parts if Path(p.what).name != "self.jsonl"],
            }
        return corpus

    def _say_passes(self, stage: str, tokens: int, read: Sequence[Mapping[str, Any]]) -> None:
        """Say how often a stage reads its text, and warn where that is too often."""
        words = PASSES[self.config.language]
        for part in read:
            if part["passes"] is None:
                known = words["unknown"]
            else:
                known = words[part["how"]].format(
                    unique=part["unique tokens"], passes=part["passes"]
                )
            about = words["read"].format(
                stage=stage, tokens=round(tokens * part["share"]), what=part["what"]
            )
            self._say(f"{about}{known}")
        if any((part["passes"] or 0) > MANY_PASSES for part in read):
            pretrain = "more" if self.config.verb == "speedrun" else "no more"
            more = words[pretrain if stage == "pretrain" else "sft"]
            self._warn(words["many"].format(stage=stage, many=MANY_PASSES) + more)

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
        corpus = plan.get("corpus", {})
        fitting = int(seconds["sft"] * done.steps / done.seconds / sft_step(corpus))
        plan |= {
            "seconds": seconds,
            "sft steps": round(min(max(FEWEST_SFT_STEPS, fitting), most_steps(corpus.get("sft")))),
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
        """As many tokens a step as in pretraining, but no more rows than the preset `sft` has.

        There are few conversations: of 512 rows a step, four passes over them would be 18 steps.
        """
        from minimind.settings import load_run_config

        before, sft = load_run_config(self._layers), load_run_config(["sft"])
        ratio = before.data.sequence_length / sft.data.sequence_length
        batch = max(1, min(int(before.train.batch_rows * ratio), sft.train.batch_rows))
        flags: list[object] = ["--train.batch-rows", batch]
        if split:
            rows = int(split.get("micro_batch_rows", before.train.micro_batch_rows) * ratio)
            flags += _flags({**split, "micro_batch_rows": max(1, min(rows, batch))})
        return flags

    def _sft_flags(self, split: Mapping[str, Any]) -> list[object]:
        return [
            "--data.train", self._at("data/sft.jsonl"), self._at("data/self.jsonl"),
            "--data.weights", *SFT_WEIGHTS,
            "--data.validation-share", QUESTIONS_HELD_OUT,
            *self._sft_rows(split),
        ]  # fmt: skip

    def _pretrain_flags(self, split: Mapping[str, Any]) -> list[object]:
        return [
            *_flags(split),
            "--model.vocab-size", self.config.vocab_size,
            "--init.tokenizer", self._at("tokenizer"),
            *data_flags(self.config, self._at("data/pretrain")),
            "--data.validation-share", TEXT_HELD_OUT,
        ]  # fmt: skip

    def _pretrain_minutes(self, plan: Mapping[str, Any]) -> list[object]:
        """Return the flag that holds pretraining to its time, where a time was planned.

        The rate that it was planned with is that of a few steps; most of the budget hangs on it.
        """
        seconds = plan["seconds"].get("pretrain")
        return [] if seconds is None else ["--train.minutes", round(seconds / 60, 2)]

    def _measured(self, split: Mapping[str, Any]) -> tuple[float, float]:
        """Return tokens per second and seconds per step of pretraining, by real steps of it.

        Where these would take too much of the minutes, micro-batches are timed instead.
        """
        from minimind.quickstart.trial import slow_rate
        from minimind.settings import load_run_config

        flags = self._pretrain_flags(split)
        config = load_run_config(self._layers, list(map(str, flags)))
        rate = slow_rate(config, minutes=self.config.minutes)
        if rate is None:
            rate = self._timed_steps(flags)
        else:
            self._say(
                f"a step of {config.train.batch_rows} rows takes long here: micro-batches are timed"
            )
        return rate, config.train.batch_rows * config.data.sequence_length / rate

    def _timed_steps(self, flags: Sequence[object]) -> float:
        """Return tokens per second of a few real steps with these settings."""
        from statistics import median

        from minimind.quickstart.trial import STEPS, UNTIMED_STEPS
        from minimind.settings import load_run_config
        from minimind.train.metrics import read_metrics
        from minimind.train.run import run

        trial = self.out / ".trial"
        shutil.rmtree(trial, ignore_errors=True)
        words = [*flags, "--train.steps", STEPS, "--log.every", 1,
                 "--log.validate-rows", 16, "--name", trial.name, "--out", self.out]  # fmt: skip
        config = load_run_config(self._layers, list(map(str, words)))
        result = run(config, console=Console(quiet=True))
        if result.stopped_by is not None:
            raise KeyboardInterrupt
        lines = [r for r in read_metrics(trial / "metrics.jsonl") if "tokens_per_second" in r]
        shutil.rmtree(trial)
        return median(line["tokens_per_second"] for line in lines[UNTIMED_STEPS:])


def _flags(settings: Mapping[str, Any]) -> list[object]:
    """Return training settings as the flags that a command would have."""
    return [
        word
        for name, value in settings.items()
        for word in (f"--train.{name.replace('_', '-')}", value)
    ]
