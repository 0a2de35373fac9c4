"""`minimind generate CHECKPOINT PROMPT | --file FILE`: complete one prompt, or a file of them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from minimind.errors import DataError, UserError

if TYPE_CHECKING:
    from minimind.inference import SamplingParams
    from minimind.model import CausalLM
    from minimind.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """How tokens are chosen.

    Attributes:
        temperature: below 1 is more certain, above more varied; 0 always takes the likeliest token.
        top_k: only the k likeliest tokens; 0 is off.
        top_p: only the likeliest tokens that together have this probability; 1 is off.
        min_p: only tokens at least this fraction as likely as the likeliest; 0 is off.
        repetition_penalty: makes tokens that occurred less likely; 1 is off.
        max_new_tokens: at most so many tokens in an answer.
        seed: makes an answer repeatable.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.1
    max_new_tokens: int = 256
    seed: int | None = None

    def params(self, *, stop_ids: tuple[int, ...]) -> SamplingParams:
        """Return the engine's parameters."""
        from minimind.inference import SamplingParams

        return SamplingParams(**vars(self), stop_ids=stop_ids)


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Where and how the model runs.

    Attributes:
        device: auto takes a GPU where there is one.
        precision: of the weights, or of the activations of quantised ones; bf16 halves the memory,
            auto keeps what was saved.
        compile: make single answers 2-3 times as fast on a CPU; takes about 20 s before the first
            one (less from the second start on), and a C++ compiler.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False

    def load(self, checkpoint: str) -> tuple[CausalLM, Tokenizer]:
        """Load a checkpoint for these flags."""
        import torch

        from minimind.inference import load
        from minimind.inference.decode import compile_decoding

        device = self.device
        if device == "auto":
            gpus = ("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())
            device = next((name for name, there in gpus if there), "cpu")
        dtypes = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}
        dtype = dtypes[self.precision]
        model, tokenizer = load(checkpoint, device=device, dtype=dtype)
        if self.compile:
            with Console(stderr=True).status("compiling the decoding step"):
                compile_decoding(model.eval())
        return model, tokenizer


@dataclass(frozen=True, kw_only=True)
class Args:
    """Complete one prompt, or a file of them.

    Attributes:
        checkpoint: a checkpoint directory, a run directory (its newest), or RUN:best.
        prompt: the text to continue; with --chat the message to answer.
        file: prompts: one a line (.txt), or JSON lines with "prompt", "text" or "messages".
        chat: treat prompts as user messages, for models after SFT.
        out: write results here as JSON lines instead of to the terminal.
        n: answers for each prompt.
        json: print results as JSON lines.
        batch_rows: prompts decoded side by side.
    """

    checkpoint: tyro.conf.Positional[str]
    prompt: tyro.conf.Positional[str | None] = None
    file: Path | None = None
    chat: bool = False
    out: Path | None = None
    n: int = 1
    json: bool = False
    batch_rows: int = 64
    sampling: Annotated[SamplingFlags, tyro.conf.arg(name="")] = field(
        default_factory=SamplingFlags
    )
    model: Annotated[ModelFlags, tyro.conf.arg(name="")] = field(default_factory=ModelFlags)


def _row_of(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error}); a .txt file holds plain prompts") from error
    if isinstance(row, dict):
        for key in ("prompt", "text", "messages", "conversations"):
            wanted = str if key in ("prompt", "text") else list
            if isinstance(row.get(key), wanted):
                return {"prompt": row[key]} | ({"id": row["id"]} if "id" in row else {})
    raise DataError(f'{where}: wants "prompt" or "text" (a string) or "messages" (a list)')


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Read a prompt file; each row has `prompt` (text or messages), and `id` where given.

    Raises:
        DataError: the file can't be read, is empty, or a line isn't a prompt; it is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--file {path}: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise DataError(f"--file {path}: there is no prompt in it")
    if path.suffix in {".jsonl", ".json", ".ndjson"}:
        return [_row_of(line, f"{path}:{number}") for number, line in numbered]
    return [{"prompt": line} for _, line in numbered]


def _prompt_rows(args: Args) -> list[dict[str, Any]]:
    if (args.prompt is None) == (args.file is None):
        raise UserError("give one prompt, or --file with many")
    for flag, value in (("n", args.n), ("batch-rows", args.batch_rows)):
        if value < 1:
            raise UserError(f"--{flag} {value}: must be at least 1")
    if args.n > 1 and args.sampling.temperature == 0:
        raise UserError(f"--n {args.n} with --temperature 0 gives the same answer every time")
    rows: list[dict[str, Any]]
    rows = read_prompts(args.file) if args.file else [{"prompt": args.prompt}]
    for row in rows:
        if args.chat and isinstance(row["prompt"], str):
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    return rows


def _stream_one(model: CausalLM, tokenizer: Tokenizer, prompt: Any, params: SamplingParams) -> None:
    from minimind.inference.api import prompt_ids, text_pieces
    from minimind.inference.engine import Engine

    out = Console(highlight=False)
    if isinstance(prompt, str):
        out.out(prompt, end="", style="dim")
    ids = Engine(model).stream(prompt_ids(tokenizer, prompt), params)
    for piece in text_pieces(tokenizer, ids):
        out.out(piece, end="")
        out.file.flush()
    out.out("")


def _complete_all(
    args: Args,
    model: CausalLM,
    tokenizer: Tokenizer,
    params: SamplingParams,
    rows: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    from rich.progress import Progress

    from minimind.inference.api import prompt_ids
    from minimind.inference.engine import Engine

    work = [(row, sample) for row in rows for sample in range(args.n)]
    started = time.perf_counter()
    notes = Console(stderr=True)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        bar = progress.add_task("answers", total=len(work))
        completions = Engine(model).complete(
            [prompt_ids(tokenizer, row["prompt"]) for row, _ in work],
            params,
            batch_rows=args.batch_rows,
            on_finished=lambda _: progress.advance(bar),
        )
    seconds = time.perf_counter() - started
    tokens = sum(len(completion.ids) for completion in completions)
    notes.print(
        f"{len(work):,} answers, {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s",
        style="dim",
    )
    return [
        row
        | {
            "completion": tokenizer.decode(completion.ids, skip_special_tokens=True),
            "finish_reason": completion.finish_reason,
            "tokens": len(completion.ids),
            "sample": sample,
        }
        for (row, sample), completion in zip(work, completions, strict=True)
    ]


def main(argv: list[str]) -> int:
    """Run `minimind generate`."""
    args = tyro.cli(Args, args=argv, prog="minimind generate")
    rows = _prompt_rows(args)
    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: the folder {args.out.parent} does not exist")
    params = args.sampling.params(stop_ids=())
    model, tokenizer = args.model.load(args.checkpoint)
    params = args.sampling.params(stop_ids=tuple(tokenizer.stop_ids))
    if len(rows) == args.n == 1 and args.out is None and not args.json:
        _stream_one(model, tokenizer, rows[0]["prompt"], params)
        return 0
    results = _complete_all(args, model, tokenizer, params, rows)
    lines = "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results)
    if args.out is not None:
        args.out.write_text(lines, encoding="utf-8")
    elif args.json:
        sys.stdout.write(lines)
    else:
        for result in results:
            prompt = result["prompt"]
            shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            Console(highlight=False).out(f"> {shown}\n{result['completion']}\n")
    return 0
