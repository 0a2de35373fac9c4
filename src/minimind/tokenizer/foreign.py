"""`ForeignTokenizer`: the vocabulary and the chat format that an imported model was trained with.

Its tokenizer.json does the encoding and its chat template, run in a sandbox, the rendering. What
our code asks of a tokenizer beyond that (which ids open and end a document, end a turn, stay
hidden) is decided once, at import, and lies in `minimind_tokenizer.json` beside the other files.

Two kinds of BPE can be read, because each token of them stands for known bytes: byte-level ones
(GPT-2, Qwen, SmolLM, Llama 3) and sentencepiece's with byte fallback (Llama 2, TinyLlama). The
latter put a space before the first word, which `decode` shows: a continuation needs it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import tokenizers

from minimind.errors import DataError, TokenizerError
from minimind.tokenizer.chat import Rendered
from minimind.tokenizer.messages import Message, check_messages, count_images
from minimind.tokenizer.roles import Roles, named_tokens, read_backend
from minimind.tokenizer.template import ChatTemplate
from minimind.tokenizer.tokenizer import Tokenizer, byte_characters

SETTINGS: Final = "minimind_tokenizer.json"
_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class ForeignTokenizer(Tokenizer):
    """A tokenizer of another family, with its chat template and its own control tokens."""

    def __init__(
        self,
        tokenizer_json: str,
        *,
        config: Mapping[str, Any],
        roles: Roles,
        template: str | None = None,
        origin: str = "tokenizer.json",
    ) -> None:
        """Read a tokenizer from the content of its files.

        Args:
            tokenizer_json: content of tokenizer.json.
            config: content of tokenizer_config.json.
            roles: see `find_roles`.
            template: content of chat_template.jinja; None for a model without a chat format.
            origin: what errors call it.

        Raises:
            TokenizerError: it can't be read, is of another kind, or the template has an error.
        """
        self._json, self._config, self._roles = tokenizer_json, dict(config), roles
        self._whole, content = read_backend(tokenizer_json, origin=origin)
        special = {t["content"]: int(t["id"]) for t in content["added_tokens"] if t["special"]}
        content["added_tokens"] = [t for t in content["added_tokens"] if not t["special"]]
        # Without the control tokens: text that spells one stays text.
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        self._special, self._control = special, frozenset(special.values())
        self._bytes = _bytes_of_vocabulary(self._whole, origin=origin)
        self._template = None
        if template is not None:
            self._template = ChatTemplate(template, tokens=named_tokens(config), origin=origin)

    @classmethod
    def load_directory(cls, directory: Path) -> ForeignTokenizer:
        """Load what `save` wrote.

        Raises:
            TokenizerError: a file is missing or damaged.
        """
        try:
            values = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
            roles = Roles(**(values | {"stop_ids": tuple(values["stop_ids"])}))
            tokenizer_json = (directory / "tokenizer.json").read_text(encoding="utf-8")
            config = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
            path = directory / _TEMPLATE
            template = path.read_text(encoding="utf-8") if path.exists() else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenizerError(
                f"{directory}: its imported tokenizer can't be read ({error}); import it again"
            ) from error
        return cls(tokenizer_json, config=config, roles=roles, template=template,
                   origin=str(directory))  # fmt: skip

    def save(self, directory: str | Path) -> None:
        """Write the files that transformers reads, as they came, and minimind_tokenizer.json."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        files = {
            "tokenizer.json": self._json,
            _CONFIG: json.dumps(self._config, ensure_ascii=False, indent=2) + "\n",
            SETTINGS: json.dumps(asdict(self._roles), indent=2) + "\n",
        }
        if self._template is not None:
            files[_TEMPLATE] = self._template.source
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")

    @property
    def endoftext_id(self) -> int:
        """Return the id that ends a document."""
        return self._roles.document_end_id

    @property
    def document_start_id(self) -> int:
        """Return the id that opens a document: its beginning-of-text token, or the end's."""
        return self._roles.document_start_id

    @property
    def bos_id(self) -> int | None:
        """Return the id that the tokenizer puts before every text, if it does."""
        return self._roles.bos_id

    @property
    def pad_id(self) -> int:
        """Return the id that fills rows."""
        return self._roles.pad_id

    @property
    def im_start_id(self) -> int:
        """Refuse: how a turn starts is the template's affair."""
        raise TokenizerError("an imported tokenizer has no <|im_start|> of ours: use render()")

    @property
    def im_end_id(self) -> int:
        """Refuse: how a turn ends is the template's affair."""
        raise TokenizerError("an imported tokenizer has no <|im_end|> of ours: use stop_ids")

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Return the ids that end a generation."""
        return self._roles.stop_ids

    @property
    def control_ids(self) -> frozenset[int]:
        """Return the ids of the tokens that its tokenizer.json calls special."""
        return self._control

    @property
    def has_chat_template(self) -> bool:
        """Tell whether conversations can be rendered."""
        return self._template is not None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] | None = None,
        images: Sequence[Sequence[int]] = (),
    ) -> Rendered:
        """Render a conversation by the model's own template; the ids are transformers'.

        A template marks no answers, so the mask is made by rendering message by message: an answer
        is what its message adds to the prompt that asks for it. With `add_generation_prompt` the
        result is a prompt, of which nothing is learnt.

        Raises:
            DataError: a message is malformed or spells a control token, the template refuses the
                conversation, or it rewrites earlier turns, so that no mask can be made.
            TokenizerError: the model has no chat template.
        """
        if images or count_images(messages):
            raise DataError("this model was imported: it has no format for images")
        check_messages(messages)
        self._refuse_control_tokens(messages)
        ids = self._ids(messages, tools, prompt=add_generation_prompt)
        mask = [False] * len(ids)
        if not add_generation_prompt:
            for index, message in enumerate(messages):
                if message["role"] == "assistant":
                    begin, end = self._answer_span(messages, tools, index, ids)
                    mask[begin:end] = [True] * (end - begin)
        return Rendered(ids=ids, mask=mask)

    def _ids(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None,
        *,
        prompt: bool = False,
    ) -> list[int]:
        if self._template is None:
            raise TokenizerError(
                "this model has no chat template (a base model: it continues text). Import it "
                "again with --chat-template FILE, or use `minimind generate` without --chat"
            )
        text = self._template.render(messages, tools, add_generation_prompt=prompt)
        return self._whole.encode(text, add_special_tokens=False).ids

    def _answer_span(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None,
        index: int,
        ids: list[int],
    ) -> tuple[int, int]:
        """Return where the answer `messages[index]` lies in `ids`, the end of its turn included."""
        before = self._ids(messages[:index], tools, prompt=True) if index else []
        upto = self._ids(messages[: index + 1], tools)
        if ids[: len(upto)] != upto or upto[: len(before)] != before or len(before) == len(upto):
            raise DataError(
                f"messages[{index}]: the model's chat template renders this answer differently "
                "from the prompt before it or the turns after it (it rewrites earlier turns, or "
                "the answer begins with white space), so what is learnt can't be told: train on "
                "single-turn conversations or import with --chat-template FILE"
            )
        end = len(upto)
        while end > len(before) and not self.token_bytes(upto[end - 1]).strip():
            end -= 1
        ends_in_control = end > len(before) and upto[end - 1] in self._control
        return len(before), end if ends_in_control else len(upto)

    def _refuse_control_tokens(self, messages: Sequence[Message]) -> None:
        """Refuse what would end a turn or start a system message from inside a message."""
        for index, message in enumerate(messages):
            text = json.dumps(message, ensure_ascii=False)
            for token in self._special:
                if token in text:
                    raise DataError(
                        f"messages[{index}] spells the control token {token!r}, which this model's "
                        "format can't hold as text: take it out"
                    )


def _bytes_of_vocabulary(backend: tokenizers.Tokenizer, *, origin: str) -> list[bytes]:
    """Return the bytes of each id; ids that no token has stand for nothing."""
    content = json.loads(backend.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise TokenizerError(
            f"{origin}: its vocabulary is of the kind {model['type']}; BPE can be imported"
        )
    byte_level = '"ByteLevel"' in json.dumps([content["pre_tokenizer"], content["decoder"]])
    if not byte_level and not model.get("byte_fallback"):
        raise TokenizerError(
            f"{origin}: a BPE that is neither byte-level nor has byte fallback: which bytes a "
            "token stands for can't be told"
        )
    byte_of = {char: byte for byte, char in enumerate(byte_characters())}
    plain = {token["content"] for token in content["added_tokens"]}
    vocab = backend.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocab.values()) + 1)
    for token, token_id in vocab.items():
        if token in plain:
            table[token_id] = token.encode()
        elif byte_level:
            table[token_id] = b"".join(
                bytes([byte_of[c]]) if c in byte_of else c.encode() for c in token
            )
        elif match := _BYTE_TOKEN.fullmatch(token):
            table[token_id] = bytes([int(match[1], 16)])
        else:
            table[token_id] = token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()
    return table
