"""`import_model`: read a foreign model, find a place for every tensor, save a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from minimind import checkpoint
from minimind.checkpoint.store import check_tensors
from minimind.config import ModelConfig
from minimind.errors import CheckpointError
from minimind.importing.directory import read_directory
from minimind.importing.gguf_file import read_gguf
from minimind.importing.source import Source
from minimind.importing.vocabulary import read_text
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer
from minimind.tokenizer.foreign import ForeignTokenizer

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Progress = Callable[[str], None]
"""Is told in a few words what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was imported.

    Attributes:
        directory: the checkpoint that was written.
        config: its shape.
        tokenizer: its tokenizer.
        tensors: how many; tied weights count once.
        parameters: numbers in them.
        dtype: of the weights as saved.
        notes: what the user should know about this one.
    """

    directory: Path
    config: ModelConfig
    tokenizer: Tokenizer
    tensors: int
    parameters: int
    dtype: str
    notes: tuple[str, ...]


def import_model(
    path: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    chat_template: Path | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Read a Hugging Face directory or a GGUF file and write a checkpoint directory.

    Args:
        path: a directory with config.json, weights and tokenizer.json, or a .gguf file.
        out: the checkpoint; it must not exist. Whole, or not there at all.
        dtype: `fp32`, `bf16` or `fp16`; None keeps that of the file, fp32 for quantised ones.
        chat_template: a Jinja file to use in place of the model's own.
        progress: is told what is being done.

    Raises:
        CheckpointError: the model is of another architecture or uses what ours doesn't have, a file
            is missing or damaged, a tensor is left over or missing, or `out` is taken.
        TokenizerError: the tokenizer can't be read or has more tokens than the model.
        MissingExtraError: a GGUF file needs the package gguf.
    """
    path, out = Path(path), Path(out)
    tell = progress or (lambda _: None)
    if out.exists():
        raise CheckpointError(f"{out} is there already: give another place, or delete it")
    template = None if chat_template is None else read_text(chat_template)
    source = _read(path, template, tell)
    tell("checking tensors")
    checkpoint.check_vocabulary(source.tokenizer, source.config.vocab_size)
    model = build(source, dtype=None if dtype is None else DTYPES[dtype])
    tell(f"writing {out}")
    checkpoint.save(out, model=model, tokenizer=source.tokenizer)
    return Imported(
        directory=out,
        config=source.config,
        tokenizer=source.tokenizer,
        tensors=len(model.state_dict()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(model.output_weight.dtype).removeprefix("torch."),
        notes=(*source.notes, *_template_notes(source.tokenizer)),
    )


def build(source: Source, *, dtype: torch.dtype | None = None) -> CausalLM:
    """Put the tensors of a source into a model.

    Raises:
        CheckpointError: a tensor is missing, left over, of another shape, or not of real numbers;
            or the weights say that the head isn't tied where the configuration says it is.
    """
    tensors = dict(source.tensors)
    with torch.device("meta"):
        model = CausalLM(source.config)
    if source.config.tie_word_embeddings and "lm_head.weight" in tensors:
        head = tensors.pop("lm_head.weight")
        embedding = tensors.get("model.embed_tokens.weight")
        if embedding is not None and not torch.equal(head, embedding):
            raise CheckpointError(
                f"{source.path}: tie_word_embeddings is true, but lm_head.weight is not the "
                "embedding; set it to false in config.json if the head is meant"
            )
    check_tensors(tensors, model.state_dict(), source.path)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{source.path}: {name} is {tensor.dtype}: quantised weights of this kind can't be "
                "imported; take the unquantised ones"
            )
    wanted = dtype or tensors["model.embed_tokens.weight"].dtype
    if wanted not in DTYPES.values():
        raise CheckpointError(f"{source.path}: weights are {wanted}: give --dtype fp32 or bf16")
    model.load_state_dict({n: tensor.to(wanted) for n, tensor in tensors.items()}, assign=True)
    return model.eval()


def _read(path: Path, template: str | None, tell: Progress) -> Source:
    if path.is_dir():
        return read_directory(path, template=template, progress=tell)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return read_gguf(path, template=template, progress=tell)
    raise CheckpointError(
        f"{path}: give a Hugging Face directory (config.json, weights, tokenizer.json) or a .gguf "
        "file that is on this machine"
    )


def _template_notes(tokenizer: Tokenizer) -> list[str]:
    if isinstance(tokenizer, ForeignTokenizer) and not tokenizer.has_chat_template:
        return [
            "it has no chat template: it continues text (`minimind generate`); for chat or SFT "
            "import with --chat-template FILE"
        ]
    return []
