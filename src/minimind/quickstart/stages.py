"""Data -> tokenizer -> pretrain -> SFT -> preferences -> DPO -> evaluation, each resumable.

Nothing trains here: a stage does what the command that it prints does. What is done is written to
`stages.json`, so that a quickstart that was interrupted continues where it was.

    runs/quickstart/
      data/  tokenizer/  pretrain/  sft/  preferences.jsonl  dpo/
      settings.json  plan.json  spent.json  stages.json  eval.json
      report.html  report.md  report.zh-CN.md  report-*.svg
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.eval.results import Evaluation, StageRecord, Stages, read_json, write_json
from minimind.quickstart.words import WHY, Language

Shares = Mapping[str, float]

SHARE: Shares = {
    "pretrain": 0.58, "sft": 0.16, "preferences": 0.07, "dpo": 0.06, "evaluation": 0.13,
}  # fmt: skip
"""Shares of the minutes that are left after data, tokenizer and plan."""

LONG_SHARE: Shares = {
    "pretrain": 0.84, "sft": 0.07, "preferences": 0.03, "dpo": 0.02, "evaluation": 0.04,
}  # fmt: skip
"""The same of a run of hours: instructions and preferences are few, and are soon read."""

PROBLEMS_PER_SECOND = 10.0
"""Problems that `nano` answers twice in a second on 2 CPU cores (docs/LOG.md)."""

SFT_WEIGHTS = (0.9, 0.1)
"""Shares of sft.jsonl and of self.jsonl, the few conversations that tell the model what it is."""

TEXT_HELD_OUT = 0.01
"""Share of the documents that no stage reads; bits per byte are measured on these."""

QUESTIONS_HELD_OUT = 0.1
"""Share of instructions and problems that no stage reads: by the hash of the user's words, so a
problem is on the same side in pretraining text, SFT and DPO."""


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Settings of one quickstart.

    Attributes:
        out: the folder of everything.
        minutes: wall-clock of all stages together, installation not included.
        model: the preset of the model's size.
        layers: further presets that pretraining is laid with.
        tokenizer: one to use instead of training one; `default` is the package's.
        shares: of the minutes, for each stage.
        sources: what `minimind data build --sources` is asked for.
        data: a folder that `minimind data build` wrote; None builds one.
        vocab_size: tokens of the tokenizer; the model's is set to it.
        seed: of every random choice.
        steps: pretraining steps, instead of measuring this machine.
        language: of the explanations; the report is written in both.
    """

    out: Path = Path("runs/quickstart")
    minutes: float = 11.0
    model: str = "nano"
    layers: tuple[str, ...] = ()
    tokenizer: str | None = None
    shares: Shares = field(default_factory=lambda: SHARE)
    sources: str = "embedded"
    data: Path | None = None
    vocab_size: int = 6144
    seed: int = 42
    steps: int | None = None
    language: Language = "zh"

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ConfigError(f"--minutes {self.minutes}: must be more than 0")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"--steps {self.steps}: must be at least 1")

    @property
    def identity(self) -> dict[str, Any]:
        """Return what must stay the same for a quickstart to be continued."""
        plain = asdict(self)
        names = ["model", "sources", "vocab_size", "seed", "steps"]
        names += ["tokenizer"] if self.tokenizer else []
        return {key: plain[key] for key in names}


class Quickstart:
    """Does the stages that are not done yet."""

    def __init__(self, config: QuickstartConfig, console: Console) -> None:
        self.config, self.console, self.out = config, console, config.out
        self.began = time.perf_counter()
        self.stages = Stages.load(self.out / "stages.json")

    def run(self) -> bool:
        """Do every stage that is not done.

        Returns:
            True when all are done; False when a signal ended a training stage, which saved itself.

        Raises:
            ConfigError: the folder holds a quickstart with other settings.
        """
        work: Mapping[str, Callable[[], StageRecord | None]] = {
            "data": self._data,
            "tokenizer": self._tokenizer,
            "plan": self._plan,
            "pretrain": self._pretrain,
            "sft": self._sft,
            "preferences": self._preferences,
            "dpo": self._dpo,
            "evaluation": self._evaluation,
        }
        self._check_same()
        for number, (name, do) in enumerate(work.items(), start=1):
            if done := self.stages.get(name):
                self._say(f"{number}/{len(work)} {name}: done earlier in {done.seconds:.0f} s")
                continue
            self.console.rule(f"[bold]{number}/{len(work)} {name}", align="left")
            self.console.print(WHY[name][self.config.language], style="italic", highlight=False)
            started = time.perf_counter()
            try:
                record = do()
            finally:
                seconds = self._spend(name, time.perf_counter() - started)
            if record is None:
                return False
            self.stages = self.stages.adding(replace(record, seconds=seconds))
            self.stages.save(self.out / "stages.json")
        return True

    # ------------------------------------------------------------ the stages

    def _data(self) -> StageRecord:
        from minimind.data.build import build
        from minimind.data.ledger import read_ledger

        if self.config.data is not None:
            self._say(f"{self.config.data} is taken as it is")
            shutil.copytree(self.config.data, self._at("data"), dirs_exist_ok=True)
        else:
            words = ("--sources", self.config.sources, "--out", self._at("data"))
            self._command("data", "build", *words)
            with self._progress("sources") as advance:
                build(
                    [self.config.sources],
                    self._at("data"),
                    on_progress=lambda source, state: advance(f"{source.name}: {state}"),
                )
        entries = read_ledger(self._at("data"))
        texts = [entry for entry in entries if entry.kind == "pretrain"]
        details = {
            "documents": sum(entry.documents for entry in texts),
            "hanzi": sum(entry.hanzi for entry in texts),
            "bytes": sum(entry.bytes for entry in texts),
            "instructions": sum(entry.documents for entry in entries if entry.kind == "sft"),
        }
        return self._done("data", details)

    def _tokenizer(self) -> StageRecord:
        from minimind.eval.held_out import split_text
        from minimind.tokenizer import Tokenizer, train_tokenizer

        if self.config.tokenizer is not None:
            tokenizer = Tokenizer.load(self.config.tokenizer)
            tokenizer.save(self._at("tokenizer"))
            return self._done("tokenizer", {"vocabulary": tokenizer.vocab_size})
        self._command(
            "tokenizer", "train", self._at("data/pretrain"),
            "--vocab-size", self.config.vocab_size, "--out", self._at("tokenizer"),
        )  # fmt: skip
        split = split_text([str(self._at("data/pretrain"))], share=TEXT_HELD_OUT)
        tokenizer = train_tokenizer(
            split.training,
            vocab_size=self.config.vocab_size,
            progress=self._say if self.console.is_terminal else None,
        )
        tokenizer.save(self._at("tokenizer"))
        texts = [document.text for document in split.held_out]
        tokens = sum(map(len, tokenizer.encode_batch(texts)))
        details = {
            "vocabulary": tokenizer.vocab_size,
            "characters per token": round(sum(map(len, texts)) / tokens, 3),
        }
        return self._done("tokenizer", details)

    def _plan(self) -> StageRecord:
        """Time real steps (they fill torch.compile's cache too) and divide what time is left."""
        split = self._split()
        if self.config.steps is None:
            rate, step_seconds = self._measured(split)
            left = max(30.0, self.config.minutes * 60 - self._spent_so_far())
            share = self.config.shares
            steps = max(20, int(left * share["pretrain"] / step_seconds))
            sft_steps = max(10, int(left * share["sft"] / step_seconds))
            problems = max(120, int(left * share["preferences"] * PROBLEMS_PER_SECOND))
        else:
            rate, steps, sft_steps, problems = 0, self.config.steps, self.config.steps, 120
        details = {
            "tokens per second": round(rate),
            "pretrain steps": steps,
            "sft steps": sft_steps,
            "problems": problems,
        }
        write_json(self._at("plan.json"), {**details, "micro-batch": split})
        return self._done("plan", details)

    def _pretrain(self) -> StageRecord | None:
        plan = read_json(self._at("plan.json"))
        return self._train("pretrain", self._layers, [
            *self._pretrain_flags(plan["micro-batch"]), "--train.steps", plan["pretrain steps"],
        ])  # fmt: skip

    def _sft(self) -> StageRecord | None:
        plan = read_json(self._at("plan.json"))
        return self._train("sft", ("sft",), [
            "--init.checkpoint", self._at("pretrain"),
            "--data.train", self._at("data/sft.jsonl"), self._at("data/self.jsonl"),
            "--data.weights", *SFT_WEIGHTS,
            "--data.validation-share", QUESTIONS_HELD_OUT,
            *self._sft_rows(plan["micro-batch"]),
            "--train.steps", plan["sft steps"],
        ])  # fmt: skip

    def _preferences(self) -> StageRecord:
        from minimind import checkpoint
        from minimind.train.device import pick_device
        from minimind.train.preferences import (
            PreferenceConfig,
            make_preferences,
            read_problems,
            write_preferences,
        )

        limit = read_json(self._at("plan.json"))["problems"]
        out = self._at("preferences.jsonl")
        settings = PreferenceConfig(
            samples=2,
            max_new_tokens=128,
            limit=limit,
            held_out_share=QUESTIONS_HELD_OUT,
            seed=self.config.seed,
        )
        self._command(
            "data", "preferences", self._at("sft"), "--problems", self._at("data/problems.jsonl"),
            "--out", out, "--limit", limit, "--samples", settings.samples,
            "--max-new-tokens", settings.max_new_tokens, "--seed", self.config.seed,
            "--held-out-share", QUESTIONS_HELD_OUT,
        )  # fmt: skip
        model, tokenizer = checkpoint.load(self._at("sft"), device=pick_device(TrainConfig()))
        problems, _ = read_problems(self._at("data/problems.jsonl"))
        with self._progress("answers", total=min(limit, len(problems)) * settings.samples) as go:
            made = make_preferences(
                model, tokenizer, problems=problems, config=settings, on_answer=lambda _: go("")
            )
        write_preferences(made, out, checkpoint=str(self._at("sft")), config=settings)
        return self._done("preferences", {"pairs": len(made.rows), **made.counts})

    def _dpo(self) -> StageRecord | None:
        return self._train("dpo", ("dpo",), [
            "--init.checkpoint", self._at("sft"),
            "--data.train", self._at("preferences.jsonl"),
            "--data.validation-share", QUESTIONS_HELD_OUT,
            # Rows of every length would be compiled again and again: not worth it for seconds.
            "--train.no-compile",
        ])  # fmt: skip

    def _evaluation(self) -> StageRecord:
        from minimind.quickstart.evaluation import evaluate

        evaluation = evaluate(self.out, say=self._say, seed=self.config.seed)
        evaluation.save(self._at("eval.json"))
        self._fill_in_figures(evaluation)
        return self._done("evaluation", {"measures": sum(map(len, evaluation.results.values()))})

    # ------------------------------------------------------------ training

    def _train(
        self, name: str, presets: tuple[str, ...], flags: list[object]
    ) -> StageRecord | None:
        """Run or continue one training stage; None when a signal ended it."""
        from minimind.settings import load_run_config
        from minimind.train.metrics import read_metrics
        from minimind.train.run import run

        words = [*map(str, flags), "--name", name, "--out", str(self.out)]
        words += ["--seed", str(self.config.seed)]
        resume = (self._at(name) / "run.toml").exists()
        self._command("train", *presets, *words, *(["--resume"] if resume else []))
        result = run(load_run_config(list(presets), words), resume=resume, console=self.console)
        if result.stopped_by is not None:
            return None
        lines = [line for line in read_metrics(self._at(name) / "metrics.jsonl") if "loss" in line]
        last = lines[-1]
        return StageRecord(
            name=name, seconds=0, tokens=int(last["tokens"]), steps=int(last["step"]),
            figure="training loss", before=lines[0]["loss"], after=last["loss"],
        )  # fmt: skip

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
        if rows := split.get("micro_batch_rows"):
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

    # ------------------------------------------------------------ bookkeeping

    def _check_same(self) -> None:
        path = self._at("settings.json")
        if not path.exists():
            if self.out.is_dir() and any(self.out.iterdir()):
                raise ConfigError(f"{self.out} holds other files: give a new or an empty --out")
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(path, self.config.identity)
        if not self._at("stages.json").exists():
            self.stages = self._described()
            self.stages.save(self._at("stages.json"))
        for key, then in read_json(path).items():
            now = self.config.identity.get(key)
            if now != then:
                raise ConfigError(
                    f"{self.out} holds a quickstart with --{key.replace('_', '-')} {then}, not "
                    f"{now}. Continue it with the same settings, give another --out, or --fresh"
                )

    def _described(self) -> Stages:
        import torch

        from minimind.doctor.checks import usable_cores
        from minimind.model.accounting import count_parameters
        from minimind.settings import load_model_config
        from minimind.train.device import pick_device

        shape = replace(load_model_config(self.config.model), vocab_size=self.config.vocab_size)
        device = pick_device(TrainConfig()).type
        flags = {"out": self.out, "minutes": self.config.minutes, **self.config.identity}
        words = [f"--{k.replace('_', '-')} {v}" for k, v in flags.items() if v is not None]
        bigger = "minimind train pretrain 64m --data.train YOUR.jsonl --train.tokens 1_300_000_000"
        return Stages(
            preset=self.config.model,
            device=f"cpu ({usable_cores()} cores)" if device == "cpu" else device,
            torch=torch.__version__,
            seed=self.config.seed,
            parameters=count_parameters(shape).total,
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
            commands={
                "chat": f"minimind chat {self.out}/dpo",
                "repeat": f"minimind quickstart {' '.join(words)} --fresh",
                "bigger": bigger,
            },
        )

    def _fill_in_figures(self, evaluation: Evaluation) -> None:
        """Give the training stages the held-out figures that they are about."""
        for name, figure, before, after in (
            ("pretrain", "bits_per_byte", "start", "pretrain"),
            ("sft", "answer_loss", "pretrain", "sft"),
            ("dpo", "dpo_loss", "sft", "dpo"),
        ):
            record = self.stages.get(name)
            was, now = evaluation.get(before, figure), evaluation.get(after, figure)
            if record and was and now:
                record = replace(record, figure=figure, before=was.value, after=now.value)
                self.stages = self.stages.adding(record)

    def _at(self, name: str) -> Path:
        return self.out / name

    def _say(self, text: str) -> None:
        self.console.print(text, style="dim", highlight=False, markup=False)

    def _command(self, *words: object) -> None:
        line = shlex.join(["minimind", *map(str, words)])
        self.console.print(f"$ {line}", style="cyan", highlight=False, markup=False, soft_wrap=True)

    def _done(self, name: str, details: Mapping[str, float | str]) -> StageRecord:
        shown = (f"{k} {v:,}" if not isinstance(v, str) else f"{k} {v}" for k, v in details.items())
        self._say(" · ".join(shown))
        return StageRecord(name=name, seconds=0, details=details)

    def _spend(self, name: str, seconds: float) -> float:
        """Add to the wall-clock of a stage, interrupted tries included; return its sum."""
        path = self._at("spent.json")
        spent = read_json(path) if path.exists() else {}
        spent[name] = spent.get(name, 0.0) + seconds
        write_json(path, spent)
        return spent[name]

    def _spent_so_far(self) -> float:
        path = self._at("spent.json")
        earlier = sum(read_json(path).values()) if path.exists() else 0.0
        return max(earlier, time.perf_counter() - self.began)

    def _progress(self, what: str, *, total: int | None = None) -> Any:
        return _Bar(self.console, what, total)


class _Bar:
    """A progress bar as a context manager; entering it gives the function that moves it on."""

    def __init__(self, console: Console, what: str, total: int | None) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task(what, total=total)

    def __enter__(self) -> Callable[[str], None]:
        self.bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def _advance(self, text: str) -> None:
        self.bar.update(self.task, advance=1, description=text or None)


def _flags(settings: Mapping[str, Any]) -> list[object]:
    """Return training settings as the flags that a command would have."""
    return [
        word
        for name, value in settings.items()
        for word in (f"--train.{name.replace('_', '-')}", value)
    ]
