"""A checkpoint is a directory, and its format is Hugging Face's.

RUN/checkpoints/step-000200/
    config.json  generation_config.json  model.safetensors      as transformers and vLLM read them
    tokenizer.json  tokenizer_config.json  chat_template.jinja
    run.toml            the resolved configuration: running it again repeats the run
    trainer_state.pt    optimizer, step, RNG, loader cursor; loaded with weights_only=True
    manifest.json       size and sha256 of each file
Quantised ones have original.json: the checkpoint that they were made from.
Runs with a domain kit have kit.json (`checkpoint.kit`).
LoRA runs have adapter_config.json and adapter_model.safetensors (PEFT) in place of the model.
"""

from minimind.checkpoint.huggingface import config_from_hf, generation_config, hf_config
from minimind.checkpoint.kit import KitCard, read_card
from minimind.checkpoint.quantized import original_of, refuse_quantized
from minimind.checkpoint.runs import (
    DamagedCheckpointWarning,
    best,
    best_loss,
    checkpoint_path,
    list_checkpoints,
    prune,
    record_best,
    resolve,
    step_of,
)
from minimind.checkpoint.store import (
    base_of,
    check_vocabulary,
    fingerprint,
    load,
    load_trainer_state,
    save,
    weights_size,
)

__all__ = [
    "DamagedCheckpointWarning",
    "KitCard",
    "base_of",
    "best",
    "best_loss",
    "check_vocabulary",
    "checkpoint_path",
    "config_from_hf",
    "fingerprint",
    "generation_config",
    "hf_config",
    "list_checkpoints",
    "load",
    "load_trainer_state",
    "original_of",
    "prune",
    "read_card",
    "record_best",
    "refuse_quantized",
    "resolve",
    "save",
    "step_of",
    "weights_size",
]
