"""What a run starts from: weights, tokenizer, and the frozen model that an objective may hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from minimind import checkpoint
from minimind.config import RunConfig
from minimind.errors import CheckpointError, ConfigError, TokenizerError
from minimind.model import CausalLM, inject_lora, merge_lora, stretch
from minimind.settings import load_run_config
from minimind.tokenizer import Tokenizer
from minimind.train.objective import DPO, Distill, NextToken, Objective


def pin_origins(config: RunConfig, stored: Path | None) -> RunConfig:
    """Name the exact checkpoints that `init.checkpoint` and `objective.teacher` stand for now.

    A run directory means its newest checkpoint, which may be another one tomorrow. A resume takes
    what the run began with.
    """
    before = load_run_config([str(stored)]) if stored is not None else None

    def pin(given: str | None, old: str | None) -> str | None:
        if given is None:
            return None
        inside = Path(given.removesuffix(":best"))
        if old is not None and Path(old).is_relative_to(inside):
            return old
        return str(checkpoint.resolve(given))

    init = dataclasses.replace(
        config.init,
        checkpoint=pin(config.init.checkpoint, before.init.checkpoint if before else None),
    )
    objective = dataclasses.replace(
        config.objective,
        teacher=pin(config.objective.teacher, before.objective.teacher if before else None),
    )
    return dataclasses.replace(config, init=init, objective=objective)


def model_and_tokenizer(config: RunConfig, *, resumed: Path | None) -> tuple[CausalLM, Tokenizer]:
    """Return the model that is trained: of a resume, of a checkpoint, or with random weights."""
    if resumed is not None:
        return checkpoint.load(resumed, dtype=torch.float32)
    if config.init.checkpoint is None:
        if config.lora is not None:
            raise ConfigError("[lora] needs a base: --init.checkpoint RUN_OR_CHECKPOINT")
        tokenizer = Tokenizer.load(config.init.tokenizer or "default")
        _check_fit(tokenizer, config)
        return CausalLM(config.model), tokenizer
    if config.lora is not None and config.init.rope_scaling is not None:
        raise ConfigError(
            "[lora] saves only adapters, so init.rope_scaling would be lost: stretch the base in a "
            "run without [lora] first, then start from that"
        )
    model, tokenizer = _load_start(config)
    if config.lora is not None:
        inject_lora(model, config.lora)
    return model, tokenizer


def _load_start(config: RunConfig) -> tuple[CausalLM, Tokenizer]:
    """Load `init.checkpoint`, adapters merged, context stretched, as plain fp32 weights."""
    path = Path(config.init.checkpoint or "")
    model, tokenizer = checkpoint.load(path, dtype=torch.float32)
    checkpoint.refuse_quantized(model, path, verb="trained, with adapters or without")
    if (path / "adapter_config.json").exists():
        if config.lora is not None:
            raise CheckpointError(
                f"{path} holds adapters; adapters on adapters can't be saved. Start from its base, "
                f"{checkpoint.base_of(path)}, or train without [lora]: adapters are merged then"
            )
        merge_lora(model)
    if config.init.tokenizer is not None:
        other = Tokenizer.load(config.init.tokenizer)
        if other.fingerprint() != tokenizer.fingerprint():
            raise TokenizerError(
                f"init.tokenizer = {config.init.tokenizer!r} is not the tokenizer that {path} was "
                "trained with, so its ids mean other text: leave init.tokenizer out"
            )
    if config.init.rope_scaling is not None:
        stretched = CausalLM(stretch(model.config, config.init.rope_scaling))
        stretched.load_state_dict(model.state_dict())
        model = stretched
    return model, tokenizer


def _check_fit(tokenizer: Tokenizer, config: RunConfig) -> None:
    wanted = config.model.vocab_size
    if tokenizer.vocab_size != wanted:
        name = config.init.tokenizer or "default"
        raise TokenizerError(
            f"the tokenizer {name!r} has {tokenizer.vocab_size:,} tokens, the model has "
            f"model.vocab_size = {wanted:,}. Either --model.vocab-size {tokenizer.vocab_size}, or "
            f"--init.tokenizer DIR with one of {wanted:,} tokens "
            f"(minimind tokenizer train --vocab-size {wanted})"
        )


def build_objective(config: RunConfig, tokenizer: Tokenizer, *, device: torch.device) -> Objective:
    """Return what `[objective]` asks for, with its reference or teacher loaded.

    Raises:
        ConfigError: no model was named for the reference or the teacher.
        TokenizerError: the teacher knows other tokens.
    """
    settings = config.objective
    if settings.kind == "dpo":
        if config.init.checkpoint is None:
            raise ConfigError("dpo prefers among answers: --init.checkpoint says of which model")
        reference, _ = _load_start(dataclasses.replace(config, lora=None))
        return DPO(
            reference=reference.to(device),
            beta=settings.beta,
            label_smoothing=settings.label_smoothing,
        )
    if settings.kind == "distill":
        if settings.teacher is None:
            raise ConfigError(
                "distill learns from a teacher: --objective.teacher RUN_OR_CHECKPOINT"
            )
        teacher, teachers = checkpoint.load(settings.teacher, device=device, dtype=torch.float32)
        if teachers.fingerprint() != tokenizer.fingerprint():
            raise TokenizerError(
                f"the teacher {settings.teacher} has another tokenizer than the student: its "
                "distribution is over other tokens. Train the student with the teacher's: "
                f"--init.tokenizer {settings.teacher}"
            )
        return Distill(teacher=teacher, temperature=settings.temperature, alpha=settings.alpha)
    return NextToken()


def origin_record(config: RunConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what the run's ledger says of the models that it starts from."""

    def weights(path: str | None) -> dict[str, str] | None:
        return (
            None if path is None else {"path": path, "sha256": checkpoint.fingerprint(Path(path))}
        )

    return {
        "checkpoint": weights(config.init.checkpoint),
        "teacher": weights(config.objective.teacher),
        "tokenizer_sha256": tokenizer.fingerprint(),
    }
