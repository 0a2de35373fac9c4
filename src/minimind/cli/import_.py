"""`minimind import DIR_OR_GGUF OUT`: bring a model of another maker in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional

if TYPE_CHECKING:
    from minimind.importing import Imported


@dataclass(frozen=True, kw_only=True)
class Args:
    """Read a Qwen3, Qwen2 or Llama-shaped model of another maker into a checkpoint of ours.

    Afterwards `minimind chat OUT`, `generate OUT`, evaluation and `train sft --init.checkpoint OUT`
    work as with a model trained here, and transformers loads OUT as what the model was.

    Attributes:
        source: a Hugging Face directory (config.json, safetensors or .bin, tokenizer.json) or a
            .gguf file, on this machine.
        out: the checkpoint directory to write; it must not exist.
        dtype: of the weights; auto keeps the file's, fp32 for a quantised GGUF.
        chat_template: a Jinja file to use in place of the model's own chat template.
    """

    source: Positional[Path]
    out: Positional[Path]
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    chat_template: Path | None = None


def main(argv: list[str]) -> None:
    """Run `minimind import`."""
    args = tyro.cli(Args, args=argv, prog="minimind import")
    from minimind.importing import import_model

    notes = Console(stderr=True, highlight=False)
    imported = import_model(
        args.source,
        args.out,
        dtype=None if args.dtype == "auto" else args.dtype,
        chat_template=args.chat_template,
        progress=lambda message: notes.print(message, style="dim"),
    )
    Console(highlight=False).print(summary(imported), soft_wrap=True, markup=False)


def summary(imported: Imported) -> str:
    """Return what the user should know about what was imported."""
    config, tokenizer = imported.config, imported.tokenizer

    def named(token_id: int) -> str:
        return f"{token_id} {tokenizer.token_bytes(token_id).decode(errors='replace')}"

    heads = f"{config.num_attention_heads} / {config.num_key_value_heads}"
    lines = [
        f"{imported.directory}: {config.model_type}, {imported.parameters / 1e6:,.1f}M parameters "
        f"in {imported.tensors} tensors, {imported.dtype}",
        f"  shape      hidden {config.hidden_size}, {config.num_hidden_layers} layers, heads / kv "
        f"{heads} of {config.head_dim}, feed-forward {config.intermediate_size}, context "
        f"{config.max_position_embeddings:,}",
        f"  tokenizer  {tokenizer.vocab_size:,} tokens of {config.vocab_size:,} embeddings",
        f"  documents  open with {named(tokenizer.document_start_id)}, end with "
        f"{named(tokenizer.endoftext_id)}",
        f"  stops at   {', '.join(map(named, tokenizer.stop_ids))}",
        *(f"  note       {note}" for note in imported.notes),
        f"try: minimind chat {imported.directory}",
    ]
    return "\n".join(lines)
