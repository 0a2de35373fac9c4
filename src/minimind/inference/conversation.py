"""A conversation: messages in, text out, old turns dropped when the context is full."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from minimind.errors import DataError
from minimind.inference.api import text_pieces
from minimind.inference.sampling import SamplingParams
from minimind.inference.session import Session
from minimind.model import CausalLM
from minimind.model.vision import SeenImage
from minimind.tokenizer import Message, Tokenizer


class Conversation:
    """The messages so far, and the cache that has read them.

    Attributes:
        messages: system message (if any) and turns, oldest first.
        session: the decoding row; `session.reused` and `session.finish_reason` tell of the last
            answer.
        dropped: how many old turns the last prompt had to leave out; they are gone.
        tokens: how many tokens the last answer has.
    """

    def __init__(self, model: CausalLM, tokenizer: Tokenizer, *, system: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.context = model.config.max_position_embeddings
        self.session = Session(model)
        self.dropped = 0
        self.tokens = 0
        self.messages: list[Message] = []
        self.reset(system=system)

    @property
    def system(self) -> str | None:
        """The system message."""
        if self.messages and self.messages[0]["role"] == "system":
            return self.messages[0]["content"]
        return None

    def reset(self, *, system: str | None = None) -> None:
        """Forget every turn and begin with `system`."""
        self.messages = [{"role": "system", "content": system}] if system else []

    def reply(
        self, text: str, params: SamplingParams, *, images: Sequence[SeenImage] = ()
    ) -> Generator[str]:
        """Answer `text`, shown with `images`, piece by piece, never half a character.

        What was said stays in `messages`, also when the iterator is closed or interrupted. The
        iterator starts working when it is first asked.

        Raises:
            DataError: `text` alone doesn't fit the context; the messages are as they were.
        """
        before = list(self.messages)
        self.messages.append(message_with(text, images))
        try:
            prompt = self._fit(params.max_new_tokens)
        except DataError:
            self.messages = before
            raise
        answer, self.tokens = [], 0
        try:
            for piece in text_pieces(self.tokenizer, self._counted(prompt, params)):
                answer.append(piece)
                yield piece
        finally:
            if answer:
                self.messages.append({"role": "assistant", "content": "".join(answer)})
            else:
                self.messages.pop()  # a question without an answer would spoil the alternation

    def _counted(self, prompt: list[int], params: SamplingParams) -> Iterator[int]:
        for token in self.session.stream(prompt, params):
            self.tokens += 1
            yield token

    def _fit(self, max_new_tokens: int) -> list[int]:
        """Return the prompt, with old turns dropped until an answer has room."""
        room = min(max_new_tokens, self.context // 4)
        first = 1 if self.system is not None else 0
        self.dropped = 0
        while True:
            ids = self.tokenizer.render(
                self.messages, add_generation_prompt=True, images=shown_in(self.messages)
            ).ids
            if len(ids) + room <= self.context or len(self.messages) == first + 1:
                break
            del self.messages[first : first + 2]
            self.dropped += 1
        if len(ids) >= self.context:
            raise DataError(
                f"the message needs {len(ids):,} tokens with its markup, the model's context is "
                f"{self.context:,}: shorten it"
            )
        return ids


def message_with(text: str, images: Sequence[SeenImage]) -> Message:
    """Return a user's message that shows images; it holds them for as long as it is there."""
    if not images:
        return {"role": "user", "content": text}
    parts: list[dict[str, object]] = [{"type": "image", "seen": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def shown_in(messages: Sequence[Message]) -> list[list[int]]:
    """Return the ids of the images that messages of `message_with` show, in order."""
    contents = [m["content"] for m in messages if isinstance(m.get("content"), list)]
    return [part["seen"].ids for content in contents for part in content if "seen" in part]
