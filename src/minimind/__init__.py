"""MiniMind: from raw Chinese text to a chat model that you trained yourself.

The public names are those in `__all__`; each is imported when it is first used, so that
`import minimind` (and `minimind --help`) does not wait for torch.

    model, tokenizer = minimind.load("runs/pretrain")
    print(minimind.generate(model, tokenizer, "从前有一座山"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minimind.config import LoraConfig, ModelConfig, RunConfig
    from minimind.errors import MiniMindError
    from minimind.inference import Engine, SamplingParams
    from minimind.inference.api import generate, load
    from minimind.model import CausalLM
    from minimind.settings import load_model_config, load_run_config
    from minimind.tokenizer import Tokenizer, train_tokenizer
    from minimind.train import DPO, Distill, NextToken, Trainer
    from minimind.train.run import run

__all__ = [
    "DPO",
    "CausalLM",
    "Distill",
    "Engine",
    "LoraConfig",
    "MiniMindError",
    "ModelConfig",
    "NextToken",
    "RunConfig",
    "SamplingParams",
    "Tokenizer",
    "Trainer",
    "generate",
    "load",
    "load_model_config",
    "load_run_config",
    "run",
    "train_tokenizer",
]

_HOME = {
    "minimind.config": ("LoraConfig", "ModelConfig", "RunConfig"),
    "minimind.errors": ("MiniMindError",),
    "minimind.inference": ("Engine", "SamplingParams"),
    "minimind.inference.api": ("generate", "load"),
    "minimind.model": ("CausalLM",),
    "minimind.settings": ("load_model_config", "load_run_config"),
    "minimind.tokenizer": ("Tokenizer", "train_tokenizer"),
    "minimind.train": ("DPO", "Distill", "NextToken", "Trainer"),
    "minimind.train.run": ("run",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'minimind' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, whether they were used already or not."""
    return sorted({*globals(), *__all__})
