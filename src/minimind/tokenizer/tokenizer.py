"""`Tokenizer`: text to token ids and back, and conversations to ids with their loss mask.

Byte-level BPE with Qwen2's pre-tokenizer pattern and no normaliser, so transformers, llama.cpp
(`tokenizer.ggml.pre = "qwen2"`) and onnxruntime users get the same ids from the same file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import tokenizers

from minimind.errors import TokenizerError
from minimind.tokenizer.chat import (
    CHAT_TEMPLATE,
    IMAGE_PAD,
    SPECIAL_TOKENS,
    Rendered,
    chat_parts,
)
from minimind.tokenizer.messages import Message, check_image_count

DEFAULT_DIRECTORY: Final = Path(__file__).parent / "default"

# What transformers writes for a model that states no limit; ours is the model's, not the text's.
_MAX_LENGTH: Final = 32_768


class Tokenizer:
    """A byte-level BPE tokenizer with the 16 special tokens of `SPECIAL_TOKENS` as ids 0 to 15."""

    def __init__(self, tokenizer_json: str, *, origin: str = "tokenizer.json") -> None:
        """Read a tokenizer from the content of its tokenizer.json.

        Raises:
            TokenizerError: it can't be read, or lacks the special tokens; names `origin`.
        """
        self._json = tokenizer_json
        try:
            content = json.loads(tokenizer_json)
            content["added_tokens"] = []
            # Without the added tokens: user text that spells a special token stays text.
            self._backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # tokenizers raises bare Exception
            raise TokenizerError(
                f"{origin}: not a readable tokenizer.json ({error}); make one with "
                "`minimind tokenizer train`"
            ) from error
        self._bytes = _bytes_of_tokens(self._backend, origin=origin)

    @classmethod
    def load(cls, path: str | Path = "default") -> Tokenizer:
        """Load a directory with a tokenizer.json, such a file, or the package's own (`"default"`).

        A directory that `minimind import` wrote gives a `ForeignTokenizer`.

        Raises:
            TokenizerError: there is none, or it can't be used.
        """
        file = DEFAULT_DIRECTORY if path == "default" else Path(path)
        if file.is_dir():
            from minimind.tokenizer.foreign import SETTINGS, ForeignTokenizer  # it builds on us

            if (file / SETTINGS).exists():
                return ForeignTokenizer.load_directory(file)
            file = file / "tokenizer.json"
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(
                f"{file}: can't read a tokenizer there ({error}); give a directory with a "
                "tokenizer.json, or 'default'"
            ) from error
        return cls(content, origin=str(file))

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `directory`.

        `transformers.AutoTokenizer.from_pretrained(directory)` gives the same ids.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        settings = json.dumps(_hugging_face_config(), ensure_ascii=False, indent=2) + "\n"
        (directory / "tokenizer.json").write_text(self._json, encoding="utf-8")
        (directory / "tokenizer_config.json").write_text(settings, encoding="utf-8")
        (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens, special tokens included."""
        return len(self._bytes)

    @property
    def endoftext_id(self) -> int:
        """Return the id that ends a document."""
        return 0

    @property
    def document_start_id(self) -> int:
        """Return the id that opens a document: the one that ends it, unless a model has its own."""
        return self.endoftext_id

    @property
    def bos_id(self) -> int | None:
        """Return the id that opens every text by the tokenizer's own rules; ours has none."""
        return None

    @property
    def pad_id(self) -> int:
        """Return the id that fills rows: `<|endoftext|>`."""
        return self.endoftext_id

    @property
    def im_start_id(self) -> int:
        """Return the id that starts a turn."""
        return 1

    @property
    def im_end_id(self) -> int:
        """Return the id that ends a turn."""
        return 2

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Return the ids that end a generation: `<|im_end|>` and `<|endoftext|>`."""
        return self.im_end_id, self.endoftext_id

    @property
    def control_ids(self) -> frozenset[int]:
        """Return the ids that steer and are never shown."""
        return CONTROL_IDS

    def encode(self, text: str) -> list[int]:
        """Encode plain text. Special tokens that it spells are encoded as the text they are.

        Half a surrogate pair (which JSON can smuggle in) has no bytes and becomes U+FFFD.
        """
        try:
            return self._backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):  # tokenizers calls such a text "not str"
            return self._backend.encode(_without_surrogates(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode many texts, in parallel where TOKENIZERS_PARALLELISM allows."""
        try:
            encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            clean = [_without_surrogates(text) for text in texts]
            encoded = self._backend.encode_batch_fast(clean, add_special_tokens=False)
        return [one.ids for one in encoded]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Decode ids; bytes that are no whole character become U+FFFD.

        Args:
            ids: token ids. Ids past the vocabulary (a model may have spare rows) decode to nothing.
            skip_special_tokens: leave out the control tokens; `<think>`, `<tool_call>` and
                `<tool_response>` with their ends are kept, as in Qwen3, because they structure
                what the reader sees.
        """
        hidden = self.control_ids if skip_special_tokens else frozenset()
        kept = (i for i in ids if i not in hidden)
        return b"".join(map(self._bytes_or_nothing, kept)).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """Return a decoder for ids that come one at a time; it never shows half a character."""
        return StreamDecoder(self)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for; they need not be whole characters.

        Raises:
            TokenizerError: there is no such id.
        """
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(
                f"token id {token_id}: the vocabulary has {self.vocab_size} tokens"
            )
        return self._bytes[token_id]

    def fingerprint(self) -> str:
        """Return the sha256 of the content of tokenizer.json (equal to the saved file's)."""
        return hashlib.sha256(self._json.encode("utf-8")).hexdigest()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] | None = None,
        images: Sequence[Sequence[int]] = (),
    ) -> Rendered:
        """Render a conversation to ids and the mask of what the assistant says, in one pass.

        Equal to transformers' `apply_chat_template` with the exported template, except that a
        special token spelled inside a message stays plain text here. Assistant messages are
        stripped of white space at both ends.

        Args:
            messages: the conversation, see `Message`.
            add_generation_prompt: end with the header of an assistant turn.
            tools: JSON schemas of functions, listed in the system block in Qwen's manner.
            images: the ids of each image that the messages show, in order; they stand where its
                `<|image_pad|>` would.

        Raises:
            DataError: a message is malformed, and its index; or the messages show more or fewer
                images than there are.
        """
        check_image_count(messages, len(images))
        waiting = iter(images)
        ids: list[int] = []
        mask: list[bool] = []
        for part in chat_parts(messages, tools, add_generation_prompt=add_generation_prompt):
            new = [SPECIAL_TOKENS.index(part.text)] if part.special else self.encode(part.text)
            if part.special and part.text == IMAGE_PAD:
                new = list(next(waiting))
            ids += new
            mask += [part.learn] * len(new)
        return Rendered(ids=ids, mask=mask)

    def _bytes_or_nothing(self, token_id: int) -> bytes:
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""


class StreamDecoder:
    """Decodes ids one at a time: `text = decoder(token_id)`, and at the end `decoder.flush()`.

    A character whose bytes are spread over several tokens is given when it is whole; until then
    the answer is `""`. All pieces joined, `flush()` included, equal `Tokenizer.decode`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, token_id: int) -> str:
        """Take one id; return the text that became certain."""
        return self._utf8.decode(self._tokenizer._bytes_or_nothing(token_id))

    def flush(self) -> str:
        """End the stream: an unfinished character comes out as U+FFFD. Afterwards start anew."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


# Tokens that steer and are never shown. The others of the 16 are visible structure.
VISIBLE_TOKENS: Final = frozenset(SPECIAL_TOKENS[3:9])
CONTROL_IDS: Final = frozenset(
    i for i, token in enumerate(SPECIAL_TOKENS) if token not in VISIBLE_TOKENS
)


def _bytes_of_tokens(backend: tokenizers.Tokenizer, *, origin: str) -> list[bytes]:
    """Return the bytes of each id of a byte-level vocabulary."""
    vocab = backend.get_vocab(with_added_tokens=False)
    by_id = {token_id: token for token, token_id in vocab.items()}
    if tuple(by_id.get(i) for i in range(len(SPECIAL_TOKENS))) != SPECIAL_TOKENS:
        raise TokenizerError(
            f"{origin}: ids 0 to {len(SPECIAL_TOKENS) - 1} must be minimind's special tokens "
            f"({', '.join(SPECIAL_TOKENS[:3])}, ...); make a tokenizer with "
            "`minimind tokenizer train`, or bring another model in with `minimind import`"
        )
    if sorted(by_id) != list(range(len(by_id))):
        raise TokenizerError(f"{origin}: the ids of the vocabulary have gaps")
    byte_of = {char: byte for byte, char in enumerate(byte_characters())}
    missing = [char for char in byte_of if char not in vocab]
    if missing:
        raise TokenizerError(
            f"{origin}: {len(missing)} of the 256 byte tokens are missing, so some text could not "
            "be encoded; make a tokenizer with `minimind tokenizer train`"
        )
    table = [token.encode() for token in SPECIAL_TOKENS]
    for token_id in range(len(SPECIAL_TOKENS), len(by_id)):
        table.append(bytes(byte_of[char] for char in by_id[token_id]))
    return table


def byte_characters() -> list[str]:
    """Return, for each byte, the printable character that stands for it in tokenizer.json.

    Source: GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the rest is moved up
    past U+0100 in order.
    """
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return [chr(byte if byte in itself else next(moved)) for byte in range(256)]


def _without_surrogates(text: str) -> str:
    """Join surrogate pairs to the character they mean; replace halves by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _hugging_face_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(token_id): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": token not in VISIBLE_TOKENS,
            }
            for token_id, token in enumerate(SPECIAL_TOKENS)
        },
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _MAX_LENGTH,
        "split_special_tokens": False,
    }
