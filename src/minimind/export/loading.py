"""What an export starts from: a checkpoint with its adapters merged, or the adapters themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from minimind import checkpoint
from minimind.checkpoint.store import read_json
from minimind.config import LoraConfig
from minimind.errors import ExportError
from minimind.model import CausalLM, lora_config_from_adapter, merge_lora
from minimind.tokenizer import Tokenizer

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint that was read for an export.

    Attributes:
        directory: the checkpoint directory.
        model: fp32, on the CPU, in eval mode.
        tokenizer: its tokenizer.
        lora: settings of its adapters where the model still has them, else None.
        base: the checkpoint below the adapters; None for a whole model.
        merged: adapters were merged into the weights.
    """

    directory: Path
    model: CausalLM
    tokenizer: Tokenizer
    lora: LoraConfig | None = None
    base: Path | None = None
    merged: bool = False

    @property
    def run_directory(self) -> Path:
        """Return RUN of RUN/checkpoints/step-N; for a lone checkpoint the directory itself."""
        inside = self.directory.parent.name == "checkpoints"
        return self.directory.parent.parent if inside else self.directory

    @property
    def name(self) -> str:
        """Return what the model is called unless the user names it."""
        return self.run_directory.resolve().name


def refuse_eyes(source: Source, *, format: str) -> None:
    """Refuse a model that sees where a format holds language models only.

    Raises:
        ExportError: says what can be exported instead.
    """
    if source.model.config.vision is not None:
        raise ExportError(
            f"{source.directory} sees images, and a {format} export would lose its projector: "
            "export the checkpoint that it was given eyes from, or use `minimind export hf`"
        )


def read_source(path: str | Path, *, keep_adapter: bool = False) -> Source:
    """Read a checkpoint whole and check it; adapters are merged unless they are to be kept.

    Raises:
        CheckpointError: there is none, or it is damaged.
        TokenizerError: its tokenizer has more tokens than the model has embeddings.
        ExportError: an adapter was asked for, and the checkpoint is a whole model.
    """
    directory = checkpoint.resolve(path)
    model, tokenizer = checkpoint.load(directory, dtype=torch.float32)
    checkpoint.refuse_quantized(model, directory, verb="exported")
    if not (directory / ADAPTER_CONFIG).exists():
        if keep_adapter:
            raise ExportError(
                f"--adapter keep: {directory} is a whole model, not adapters; leave the flag out"
            )
        return Source(directory=directory, model=model, tokenizer=tokenizer)
    base = checkpoint.base_of(directory)
    if not keep_adapter:
        merge_lora(model)
        model.eval()
        return Source(directory=directory, model=model, tokenizer=tokenizer, base=base, merged=True)
    values = read_json(directory / ADAPTER_CONFIG)
    lora = lora_config_from_adapter(values)
    return Source(directory=directory, model=model, tokenizer=tokenizer, lora=lora, base=base)
