"""Sampling, decoding with a KV cache, conversations: everything after a checkpoint is loaded."""

from minimind.inference.api import generate, load, text_pieces
from minimind.inference.conversation import Conversation
from minimind.inference.decode import Completion, FinishReason
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.inference.session import Session

__all__ = [
    "Completion",
    "Conversation",
    "Engine",
    "FinishReason",
    "SamplingParams",
    "Session",
    "generate",
    "load",
    "text_pieces",
]
