"""A foreign chat template, run as transformers runs it but in Jinja's immutable sandbox."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from minimind.errors import DataError, TokenizerError
from minimind.tokenizer.messages import Message


class _GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}`, by which some templates mark answers: no-op."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own attribute)

    def parse(self, parser: Parser) -> list[Node]:
        """Return what is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _RefusedError(Exception):
    """The template called `raise_exception`."""


class ChatTemplate:
    """A Jinja chat template and the special tokens that it names.

    Attributes:
        source: its text.
    """

    def __init__(self, source: str, *, tokens: Mapping[str, str], origin: str) -> None:
        """Compile a template.

        Raises:
            TokenizerError: it isn't one.
        """
        self.source, self._tokens, self._origin = source, dict(tokens), origin
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True,
            extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
        )  # fmt: skip
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        try:
            self._compiled = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TokenizerError(f"{origin}: its chat template is no Jinja ({error})") from error

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return the text of a conversation.

        Raises:
            DataError: the template refuses it, or fails on it.
        """
        try:
            return self._compiled.render(
                messages=list(messages),
                tools=list(tools) if tools else None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )
        except _RefusedError as error:
            raise DataError(f"the model's chat template refuses this: {error}") from error
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self._origin}: the model's chat template fails on this conversation: {error}"
            ) from error


def _refuse(message: str) -> None:
    raise _RefusedError(message)


def _now(layout: str) -> str:
    return datetime.datetime.now().strftime(layout)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Write JSON as transformers does: nothing is escaped for HTML or as ASCII."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
