"""Small stand-ins that are real: a tokenizer of bare bytes and the smallest model shape."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from typing import Any

import pytest

from minimind.config import ModelConfig
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer


def byte_tokenizer() -> Tokenizer:
    """A tokenizer without merges: one token a byte, plus the special tokens."""
    return train_tokenizer([], vocab_size=256 + len(SPECIAL_TOKENS))


def tiny_config(**changes: Any) -> ModelConfig:
    """A model that trains a step in milliseconds; fits `byte_tokenizer`."""
    shape = {
        "vocab_size": 256 + len(SPECIAL_TOKENS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    return ModelConfig(**(shape | changes))


def free_ports(count: int) -> list[int]:
    """Return ports for programs that have to be told one; all differ.

    Linux gives whoever asks for any port one from 32,768 up: below, only another call of this can
    take them before the programs do.
    """
    draw, found = random.SystemRandom(), set()
    while len(found) < count:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port := draw.randrange(20_000, 32_000)))
            found.add(port)
    return list(found)


def join_ranks(ranks) -> None:
    """Wait for processes of `torch.multiprocessing`; those that hang are killed, and it fails."""
    deadline = time.monotonic() + 900
    while not ranks.join(timeout=5):
        if time.monotonic() > deadline:
            for process in ranks.processes:
                process.kill()
            pytest.fail(f"{len(ranks.processes)} ranks hang")
