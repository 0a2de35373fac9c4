"""Data -> tokenizer -> pretrain -> SFT -> preferences -> DPO -> evaluation, each resumable.

Nothing trains here: a stage does what the command that it prints does. What is done is written to
`stages.json`, so that a quickstart that was interrupted continues where it was.

    runs/quickstart/
      data/  tokenizer/  pretrain/  sft/  preferences.jsonl  dpo/
      settings.json  plan.json  spent.json  stages.json  eval.json
      report.html  report.md  report.zh-CN.md  report-*.svg
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from minimind.config import TrainConfig
from minimind.eval.results import StageRecord, read_json
from minimind.quickstart.config import QUESTIONS_HELD_OUT, TEXT_HELD_OUT
from minimind.quickstart.corpus import passes_of
from minimind.quickstart.planning import Planning
from minimind.quickstart.text import check_text
from minimind.quickstart.words import WHY


class Quickstart(Planning):
    """Does the stages that are not done yet."""

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
        self._say_budget()
        return True

    # ------------------------------------------------------------ the stages

    def _data(self) -> StageRecord:
        from minimind.data.build import build
        from minimind.data.ledger import read_ledger

        check_text(self.config)
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

    def _pretrain(self) -> StageRecord | None:
        plan = read_json(self._at("plan.json"))
        return self._train("pretrain", self._layers, [
            *self._pretrain_flags(plan.get("micro-batch", {})),
            "--train.steps", plan["pretrain steps"],
            *self._pretrain_minutes(plan),
        ])  # fmt: skip

    def _sft(self) -> StageRecord | None:
        plan = self._catch_up()
        return self._train("sft", ("sft",), [
            "--init.checkpoint", self._at("pretrain"),
            *self._sft_flags(plan.get("micro-batch", {})),
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

        planned = read_json(self._at("plan.json")).get("seconds", {})
        evaluation = evaluate(
            self.out, say=self._say, seed=self.config.seed,
            seconds=planned.get("evaluation", math.inf), own_text=bool(self.config.text),
        )  # fmt: skip
        evaluation.save(self._at("eval.json"))
        self._fill_in_figures(evaluation)
        return self._done("evaluation", {"measures": sum(map(len, evaluation.results.values()))})

    # ------------------------------------------------------------ training

    def _was_read(self, name: str, tokens: int) -> tuple[dict[str, Any], ...]:
        """Return how often a stage read its text, where the plan has measured it."""
        corpus = read_json(self._at("plan.json")).get("corpus", {})
        return tuple(passes_of(corpus[name], tokens)) if name in corpus else ()

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
            read=self._was_read(name, int(last["tokens"])),
        )  # fmt: skip
