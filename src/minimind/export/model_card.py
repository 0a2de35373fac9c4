"""The model card of an export: what it is, what it was made of, how good it is, how to run it.

Everything is read from what the run left on disk: `ledger.json` of each stage, followed back to the
first one, and `eval.json`. What isn't there is said to be missing, never made up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.checkpoint import KitCard, fingerprint, read_card
from minimind.config import ModelConfig
from minimind.data.ledger import FILE_NAME
from minimind.export.loading import Source
from minimind.model.accounting import count_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One run on the way to the model.

    Attributes:
        name: the run's.
        ledger: content of its ledger.json; None where it can't be found.
        note: why it can't.
    """

    name: str
    ledger: dict[str, Any] | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the card tells.

    Attributes:
        stages: newest first.
        scores: measures by name, as in eval.json; None where the run has none.
        base: what the adapters belong on.
        kit: the domain that it was trained for, with its disclaimer.
    """

    name: str
    config: ModelConfig
    licence: str | None
    stages: tuple[Stage, ...]
    scores: dict[str, dict[str, Any]] | None
    base: str | None
    kit: KitCard | None = None


def collect(
    source: Source, *, name: str, licence: str | None, base_name: str | None = None
) -> Facts:
    """Read what the run left on disk; `base_name` is what the adapters call their base."""
    return Facts(
        name=name,
        config=source.model.config,
        licence=licence,
        stages=tuple(_stages(source.directory)),
        scores=_scores(source.run_directory),
        base=(base_name or str(source.base)) if source.lora else None,
        kit=read_card(source.directory),
    )


def render(facts: Facts, *, adapter: bool = False) -> str:
    """Return README.md."""
    parts = [_front_matter(facts, adapter=adapter), f"# {facts.name}\n", _shape(facts)]
    if facts.kit is not None:
        parts.append(_domain(facts.kit))
    parts += [_usage(facts, adapter=adapter), _scores_section(facts), _data_section(facts)]
    return "\n".join(parts)


def _front_matter(facts: Facts, *, adapter: bool) -> str:
    lines = ["---", f"license: {facts.licence or 'other'}"]
    if facts.licence is None:
        lines.append("license_name: not-chosen")
    lines += ["language:", "- zh", f"library_name: {'peft' if adapter else 'transformers'}"]
    lines += ["pipeline_tag: text-generation", "tags:", "- minimind"]
    if facts.base:
        lines.append(f"base_model: {json.dumps(facts.base)}")
    return "\n".join([*lines, "---", ""])


def _shape(facts: Facts) -> str:
    config = facts.config
    total = count_parameters(config).total
    kind = f"LoRA adapters for `{facts.base}`, " if facts.base else "A language model "
    return (
        f"{kind}trained with MiniMind: {total / 1e6:,.1f}M "
        f"parameters, {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.num_attention_heads} heads ({config.num_key_value_heads} for keys and values), "
        f"vocabulary {config.vocab_size:,}, context {config.max_position_embeddings:,} tokens. "
        f"Architecture `{config.model_type}`.\n\n"
        "A small model: it writes in the manner of its training data and doesn't know the world. "
        "Don't rely on what it says.\n"
    )


def _domain(kit: KitCard) -> str:
    system = f"\nSystem prompt it is served with:\n\n> {kit.system}\n" if kit.system else ""
    return f"## Domain: {kit.title or kit.name}\n\n**{kit.disclaimer}**\n{system}"


def _usage(facts: Facts, *, adapter: bool) -> str:
    if adapter:
        return f"""## Use

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("DIR")  # reads {facts.base}
tokenizer = AutoTokenizer.from_pretrained("DIR")
```

`DIR` is this directory. vLLM: `vllm serve BASE --enable-lora --lora-modules {facts.name}=DIR`.
"""
    return """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("DIR")
tokenizer = AutoTokenizer.from_pretrained("DIR")
messages = [{"role": "user", "content": "你好"}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**prompt, max_new_tokens=128, do_sample=True, temperature=0.7, top_p=0.9)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```

`DIR` is this directory. vLLM: `vllm serve DIR`. llama.cpp and Ollama read a GGUF file, which
`minimind export gguf` makes.
"""


def _scores_section(facts: Facts) -> str:
    if not facts.scores:
        return "## Scores\n\nNone: the run has not been evaluated.\n"
    rows = [
        "## Scores\n",
        "| measure | value | 95 % interval | n | chance |",
        "|---|---|---|---|---|",
    ]
    for name, measure in facts.scores.items():
        low, high = measure.get("low"), measure.get("high")
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        chance = "" if measure.get("chance") is None else f"{measure['chance']:.3f}"
        count = f"{measure['n']:,} {measure['unit']}"
        rows.append(f"| {name} | {measure['value']:.3f} | {interval} | {count} | {chance} |")
    return "\n".join(rows) + "\n"


def _data_section(facts: Facts) -> str:
    licence = facts.licence or "not chosen by whoever exported it"
    parts = [f"## Licence and data\n\nThe weights: {licence}. The data keep their own licences:\n"]
    for stage in facts.stages:
        parts.append(f"### {stage.name}\n")
        parts.append(stage.note + "\n" if stage.ledger is None else _files(stage.ledger))
    return "\n".join(parts)


def _files(ledger: dict[str, Any]) -> str:
    rows = ["| file | bytes | sha256 | licence | sources |", "|---|---|---|---|---|"]
    for entry in ledger["data"]:
        sources = "; ".join(
            f"{source['source']} ({source['licence']}, {source['upstream']})"
            for source in entry["sources"]
        )
        rows.append(
            f"| {Path(entry['path']).name} | {entry['bytes']:,} | {entry['sha256'][:12]} | "
            f"{', '.join(entry['licences'])} | {sources or 'not recorded'} |"
        )
    used = ", ".join(f"{count:,} {what}" for what, count in ledger.get("used", {}).items())
    return "\n".join(rows) + (f"\n\nRead: {used}.\n" if used else "\n")


def _stages(directory: Path) -> list[Stage]:
    """Follow the ledgers from a checkpoint back to the run that started from random weights."""
    stages: list[Stage] = []
    here: Path | None = directory
    while here is not None and len(stages) < 16:
        run = here.parent.parent if here.parent.name == "checkpoints" else here
        ledger = _read_json(run / FILE_NAME)
        if not isinstance(ledger, dict) or "data" not in ledger:
            stages.append(Stage(
                name=run.resolve().name, ledger=None,
                note="What it was trained on is not recorded beside the checkpoint.",
            ))  # fmt: skip
            break
        stages.append(Stage(name=run.resolve().name, ledger=ledger))
        origin = (ledger.get("from") or {}).get("checkpoint")
        if not origin:
            break
        here = _find(origin, run)
        if here is None:
            stages.append(Stage(
                name=Path(origin["path"]).name, ledger=None,
                note=f"It started from {origin['path']}, which is not there any more.",
            ))  # fmt: skip
    return stages


def _find(origin: dict[str, Any], run: Path) -> Path | None:
    """Return the checkpoint that a run started from, also when the runs moved together."""
    named = Path(str(origin["path"]))
    moved = run.parent.joinpath(*named.parts[-3:])
    for path in (named, moved):
        try:
            if path.is_dir() and fingerprint(path) == origin.get("sha256"):
                return path
        except OSError:
            continue
    return None


def _scores(run: Path) -> dict[str, dict[str, Any]] | None:
    """Return the measures of a run: its own eval.json, or its part of the one a folder up."""
    for folder in (run, run.parent):
        content = _read_json(folder / "eval.json")
        results = content.get("results") if isinstance(content, dict) else None
        if not isinstance(results, dict):
            continue
        own = results.get(run.resolve().name)
        if own is None and folder == run and len(results) == 1:
            own = next(iter(results.values()))
        if own:
            return own
    return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
