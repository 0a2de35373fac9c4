"""Tool calls, out of the text that a model writes.

The models write Qwen's form, a JSON object with name and arguments on a line of its own between
`<tool_call>` and `</tool_call>`, after their text if there is any. A call is passed on when it is
whole and its JSON is an object with a name; what isn't stays text, so nothing that the model wrote
is lost.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made; `arguments` is the text of a JSON object."""

    index: int
    id: str
    name: str
    arguments: str


class ToolParser:
    """Splits a stream of text into text and tool calls.

    Attributes:
        calls: how many calls came so far.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._held = ""

    def feed(self, text: str) -> tuple[str, list[ToolCall]]:
        """Take new text; return the text and the calls that became certain."""
        self._held += text
        shown, calls = "", []
        while (begin := self._held.find(OPEN)) >= 0:
            end = self._held.find(CLOSE, begin)
            if end < 0:
                break
            block = self._held[begin + len(OPEN) : end]
            call = self._parse(block)
            before, self._held = self._held[:begin], self._held[end + len(CLOSE) :]
            shown += before.rstrip() if call else before + OPEN + block + CLOSE
            calls += [call] if call else []
        safe = self._certain() if begin < 0 else len(self._held[:begin].rstrip())
        shown, self._held = shown + self._held[:safe], self._held[safe:]
        # White space between and after calls is the format's, not the answer's.
        return (shown.lstrip() if self.calls and not shown.strip() else shown), calls

    def finish(self) -> str:
        """End the text; return what was held back for a call that never was whole."""
        rest, self._held = self._held, ""
        return "" if self.calls and not rest.strip() else rest

    def _certain(self) -> int:
        """Return how much of the held text can't be white space and the head of an opening tag."""
        partial = next((n for n in range(len(OPEN) - 1, 0, -1) if self._held.endswith(OPEN[:n])), 0)
        return len(self._held[: len(self._held) - partial].rstrip())

    def _parse(self, block: str) -> ToolCall | None:
        value = _object(block)
        name, arguments = value.get("name"), value.get("arguments", {})
        if isinstance(arguments, str):  # some write the JSON as a string
            arguments = _object(arguments) if arguments.strip() else {}
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return None
        if not isinstance(arguments, dict) or arguments is _NOTHING:
            return None
        text = json.dumps(arguments, ensure_ascii=False)
        call = ToolCall(self.calls, f"call_{secrets.token_hex(12)}", name, text)
        self.calls += 1
        return call


_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NOTHING: dict[str, Any] = {}


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object that `text` is, or `_NOTHING`."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair has no bytes
    except (ValueError, RecursionError):
        return _NOTHING
    return value if isinstance(value, dict) else _NOTHING


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
