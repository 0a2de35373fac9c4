"""What a quickstart writes down and says: settings, stages, seconds, commands."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.eval.results import Evaluation, StageRecord, Stages, read_json, write_json
from minimind.quickstart.config import QuickstartConfig, said


class Records:
    """The records below a quickstart's folder, and its words on the console."""

    def __init__(self, config: QuickstartConfig, console: Console) -> None:
        self.config, self.console, self.out = config, console, config.out
        self.began = time.perf_counter()
        self.stages = Stages.load(self.out / "stages.json")

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
        before, now = read_json(path), self.config.identity
        for key in dict.fromkeys((*before, *now)):
            if (then := before.get(key)) == now.get(key):
                continue
            flag = f"--{key.replace('_', '-')}"
            had = f"without {flag}" if then is None else f"with {flag} {said(then)}"
            wanted = "without it" if now.get(key) is None else said(now[key])
            wanted = f"with {wanted}" if then is None else wanted
            raise ConfigError(
                f"{self.out} holds a {self.config.verb} {had}, not {wanted}. Continue it with the "
                "same settings, give another --out, or --fresh"
            )

    def _described(self) -> Stages:
        import torch

        from minimind.doctor.checks import usable_cores
        from minimind.model.accounting import count_parameters
        from minimind.settings import load_model_config
        from minimind.train.device import pick_device

        shape = replace(load_model_config(self.config.model), vocab_size=self.config.vocab_size)
        device = pick_device(TrainConfig()).type
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
                "repeat": self.config.command,
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

    def _warn(self, text: str) -> None:
        self.console.print(text, style="yellow", highlight=False, markup=False)

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
