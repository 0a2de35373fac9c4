"""What a run starts from: weights, tokenizer, and the frozen model that an objective may hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from minimind import checkpoint
from minimind.config import RunConfig, VisionConfig
from minimind.data import Batch, Loader, make_loader, validation_batches
from minimind.data.image_loader import ImageLoader, image_validation_batches
from minimind.data.images import vision_config
from minimind.errors import CheckpointError, ConfigError, TokenizerError
from minimind.model import CausalLM, inject_lora, merge_lora, stretch
from minimind.model.upcycle import upcycle
from minimind.model.vision import open_eyes, train_only_projector
from minimind.settings import load_run_config
from minimind.tokenizer import Tokenizer
from minimind.train.distributed import World
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
        model, tokenizer = checkpoint.load(resumed, dtype=torch.float32)
        _choose_trained(model, config)
        return model, tokenizer
    if config.init.checkpoint is None:
        if config.init.upcycle is not None:
            raise ConfigError(
                "init.upcycle makes experts of a dense model: --init.checkpoint RUN_OR_CHECKPOINT; "
                "for fresh ones set [model.moe]"
            )
        if config.lora is not None:
            raise ConfigError("[lora] needs a base: --init.checkpoint RUN_OR_CHECKPOINT")
        if config.vision is not None:
            raise ConfigError(
                "[vision] gives eyes to a model that reads: --init.checkpoint RUN_OR_CHECKPOINT"
            )
        tokenizer = Tokenizer.load(config.init.tokenizer or "default")
        _check_fit(tokenizer, config)
        return fresh_model(config), tokenizer
    if config.lora is not None and config.init.rope_scaling is not None:
        raise ConfigError(
            "[lora] saves only adapters, so init.rope_scaling would be lost: stretch the base in a "
            "run without [lora] first, then start from that"
        )
    if config.lora is not None and config.init.upcycle is not None:
        raise ConfigError(
            "[lora] saves only adapters, so the experts of init.upcycle would be lost: upcycle in "
            "a run without [lora] first, then start from that"
        )
    model, tokenizer = _load_start(config)
    if config.vision is not None and model.config.vision is None:
        open_eyes(model, vision_config(config.vision))
    if config.lora is not None:
        inject_lora(model, config.lora)
    _choose_trained(model, config)
    return model, tokenizer


def _choose_trained(model: CausalLM, config: RunConfig) -> None:
    """Freeze what `[vision]` says is not trained."""
    if config.vision is not None and config.vision.train == "projector":
        train_only_projector(model)


def fresh_model(config: RunConfig) -> CausalLM:
    """Return a model of random weights (see `CausalLM`, `InitConfig.zero_projections`)."""
    model = CausalLM(config.model)
    if config.init.zero_projections:
        for name, weight in model.named_parameters():
            if name.removesuffix(".weight").endswith(("o_proj", "down_proj")):
                torch.nn.init.zeros_(weight)
    return model


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
    if config.init.upcycle is not None:
        model = upcycle(model, config.init.upcycle, noise=config.init.upcycle_noise)
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


def build_loader(
    config: RunConfig, tokenizer: Tokenizer, model: CausalLM, *, world: World, rejects: Path | None
) -> Loader | ImageLoader:
    """Return what `[data]` asks for.

    Raises:
        ConfigError: rows with images, and the model has no eyes.
        DataError: a data file is missing.
    """
    rows, micro = config.train.batch_rows, config.train.micro_batch_rows
    if config.data.kind == "image":
        return ImageLoader(
            config.data, tokenizer, vision=eyes_of(model), batch_rows=rows, micro_batch_rows=micro,
            seed=config.seed, rank=world.rank, world_size=world.size, rejects=rejects,
        )  # fmt: skip
    return make_loader(
        config.data, tokenizer, batch_rows=rows, micro_batch_rows=micro, seed=config.seed,
        rank=world.rank, world_size=world.size, rejects=rejects,
    )  # fmt: skip


def build_validation(
    config: RunConfig, tokenizer: Tokenizer, model: CausalLM
) -> dict[str, list[Batch]]:
    """Return the held-out rows that the run is measured on, `""`, and further sets by name.

    Without a set `""` the data leaves none.
    """
    rows, micro = config.log.validate_rows, config.train.micro_batch_rows
    if config.data.kind == "image":
        return image_validation_batches(
            config.data, tokenizer, vision=eyes_of(model), rows=rows, micro_batch_rows=micro
        )
    held_out = validation_batches(config.data, tokenizer, rows=rows, micro_batch_rows=micro)
    return {"": held_out} if held_out else {}


def eyes_of(model: CausalLM) -> VisionConfig:
    """Return the part of a model's shape that says how it sees.

    Raises:
        ConfigError: it doesn't see.
    """
    if model.config.vision is None:
        raise ConfigError(
            "data.kind = 'image', but the model has no eyes: add [vision] (the preset `vision`), "
            "or start from a checkpoint that was trained with it"
        )
    return model.config.vision


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
