"""A Hugging Face export loaded by transformers (and peft), beside our model with the same weights.

Both compute in fp32 from the numbers in the file, so whatever their dtype, logits must agree.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minimind.errors import DataError, require
from minimind.export.common import Check, Progress
from minimind.export.loading import Source
from minimind.export.verify import (
    CHAT,
    check_greedy,
    check_logits,
    check_token_ids,
    greedy_budget,
    make_probe,
    our_greedy,
    our_logits,
)
from minimind.model import CausalLM, load_lora_state_dict

LOGITS_BOUND = 1e-3
READER = "transformers"


def verify(
    source: Source, directory: Path, *, tensors: dict[str, Tensor], progress: Progress
) -> tuple[Check, ...]:
    """Load the export as its users do and compare keys, config, ids, logits, a continuation."""
    transformers = require("transformers", extra="reference")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    progress("verifying", 0, 3)
    checks: list[Check] = []
    if source.lora is None:
        theirs, loaded = _load(transformers, directory)
        checks += [loaded, _check_config(theirs, directory)]
    else:
        theirs, _ = _load(transformers, source.base or directory)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of peft, about transformers
            peft = require("peft", extra="reference")
            theirs = peft.PeftModel.from_pretrained(theirs, str(directory)).eval()
        checks.append(_check_adapter(theirs, tensors))
    if not all(check.passed for check in checks):
        return tuple(checks)
    ours = with_weights(source, tensors)
    progress("verifying", 1, 3)
    checks += _check_tokenizer(source, transformers, directory)
    progress("verifying", 2, 3)
    checks += _check_numbers(source, ours, theirs)
    progress("verifying", 3, 3)
    return tuple(checks)


def with_weights(source: Source, tensors: dict[str, Tensor]) -> CausalLM:
    """Return our model with these weights (or adapters) in fp32; it shares what is not replaced."""
    state = {name: tensor.float() for name, tensor in tensors.items()}
    if source.lora is not None:
        load_lora_state_dict(source.model, state)
        return source.model
    with torch.device("meta"):
        model = CausalLM(source.model.config)
    model.load_state_dict(state, assign=True)
    return model.eval()


def _load(transformers: Any, directory: Path) -> tuple[Any, Check]:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        str(directory), dtype=torch.float32, output_loading_info=True
    )
    problems = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    count = len(model.state_dict())
    detail = f"{count} weights found their place, none missing or left over"
    if problems:
        detail = f"transformers reports {problems}"
    figures: dict[str, float | int | str] = {"weights": count}
    return model.eval(), Check(name="weights", passed=not problems, detail=detail, figures=figures)


def _check_config(model: Any, directory: Path) -> Check:
    """Compare config.json with the one that transformers writes of the model it read."""
    with tempfile.TemporaryDirectory() as temp:
        model.config.save_pretrained(temp)
        theirs = json.loads((Path(temp) / "config.json").read_text(encoding="utf-8"))
    ours = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if "num_local_experts" in theirs:  # 5's own name of what 4 and published files call as we do
        theirs["num_experts"] = theirs.pop("num_local_experts")
    # It was read as fp32 whatever it is; the version is that of the writer.
    ignored = {"transformers_version", "dtype"}
    odd = sorted(
        name for name in (ours.keys() | theirs.keys()) - ignored
        if name not in ours or name not in theirs or ours[name] != theirs[name]
    )  # fmt: skip
    detail = f"{len(ours)} fields are those that transformers writes"
    if odd:
        shown = {name: (ours.get(name, "absent"), theirs.get(name, "absent")) for name in odd}
        detail = f"config.json differs from transformers' own (ours, theirs): {shown}"
    figures: dict[str, float | int | str] = {"fields": len(ours)}
    return Check(name="config", passed=not odd, detail=detail, figures=figures)


def _check_adapter(model: Any, tensors: dict[str, Tensor]) -> Check:
    held = {name for name, _ in model.named_parameters() if ".lora_" in name}
    read = {name.replace(".default.weight", ".weight") for name in held}
    passed = read == tensors.keys()
    detail = f"peft took all {len(tensors)} adapter matrices"
    if not passed:
        detail = f"peft has {sorted(read ^ tensors.keys())[:4]} that differ from what was written"
    figures: dict[str, float | int | str] = {"adapters": len(tensors)}
    return Check(name="adapter", passed=passed, detail=detail, figures=figures)


def _check_tokenizer(source: Source, transformers: Any, directory: Path) -> list[Check]:
    reader = transformers.AutoTokenizer.from_pretrained(str(directory))
    encode: Callable[[str], list[int]] = lambda text: reader.encode(  # noqa: E731
        text, add_special_tokens=False
    )
    checks = [check_token_ids(source.tokenizer, encode, reader=READER)]
    try:
        ours = source.tokenizer.render(CHAT, add_generation_prompt=True).ids
    except DataError:  # an imported model may have no chat format
        return checks
    theirs = reader.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)
    same = ours == list(theirs["input_ids"])
    detail = f"{len(CHAT)} messages are the same {len(ours)} tokens"
    if not same:
        detail = f"transformers renders {reader.decode(theirs['input_ids'])!r}"
    return [*checks, Check(name="chat template", passed=same, detail=detail)]


@torch.no_grad()
def _check_numbers(source: Source, ours: CausalLM, theirs: Any) -> list[Check]:
    probe = make_probe(source.model.config, source.tokenizer)
    read: np.ndarray = theirs(torch.tensor([probe.ids])).logits[0].float().numpy()
    logits = check_logits(our_logits(ours, probe.ids), read, bound=LOGITS_BOUND, reader=READER)
    if not logits.passed:
        return [logits]
    made = our_greedy(ours, probe.prompt, source.tokenizer.stop_ids)
    prompt = torch.tensor([probe.prompt])
    out = theirs.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=greedy_budget(ours.config, probe.prompt),
        do_sample=False,
    )
    continued = out[0, len(probe.prompt) :].tolist()
    if continued and continued[-1] in source.tokenizer.stop_ids:
        continued.pop()
    greedy = check_greedy(
        ours, probe.prompt, made, continued,
        tolerance=float(logits.figures["largest_difference"]), reader=READER,
    )  # fmt: skip
    return [logits, greedy]
