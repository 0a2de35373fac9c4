"""Text to token ids and back; conversations to ids with their loss mask; training a vocabulary."""

from minimind.tokenizer.chat import SPECIAL_TOKENS, Rendered
from minimind.tokenizer.messages import Message
from minimind.tokenizer.tokenizer import StreamDecoder, Tokenizer
from minimind.tokenizer.train import train_tokenizer

__all__ = [
    "SPECIAL_TOKENS",
    "Message",
    "Rendered",
    "StreamDecoder",
    "Tokenizer",
    "train_tokenizer",
]
