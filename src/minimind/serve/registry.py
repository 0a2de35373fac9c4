"""The models of a server, by the names that requests use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minimind.errors import did_you_mean
from minimind.inference.backend import Backend
from minimind.serve.errors import ApiError
from minimind.serve.responses import ModelCard
from minimind.serve.scoring import Scorer
from minimind.tokenizer import Tokenizer

if TYPE_CHECKING:
    from minimind.inference.images import Eyes


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model, or one base with an adapter merged in.

    Attributes:
        id: what requests call it.
        backend: what generates.
        tokenizer: its text.
        scorer: gives log-probabilities of prompts; None where the backend can't.
        fingerprint: changes when the weights, the program or the backend do.
        created: seconds since 1970, from the files.
        longest_token: bytes of the longest token; bounds a text's tokens from below.
        parent: the model that an adapter belongs to.
        eyes: of a model that sees images.
        system: the system prompt of a conversation that has none, from kit.json; "" adds nothing.
    """

    id: str
    backend: Backend
    tokenizer: Tokenizer
    scorer: Scorer | None
    fingerprint: str
    created: int
    longest_token: int
    parent: str | None = None
    eyes: Eyes | None = None
    system: str = ""

    @property
    def card(self) -> ModelCard:
        """What /v1/models says."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": "minimind",
            "max_model_len": self.backend.context_length,
            "parent": self.parent,
            "input_modalities": ["text"] if self.eyes is None else ["text", "image"],
        }


class Registry:
    """The models, in the order in which they were given."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = dict(models)

    def __iter__(self):  # noqa: ANN204
        return iter(self._models.values())

    def get(self, name: str) -> Served:
        """Return a model.

        Raises:
            ApiError: 404; names the near one, or all.
        """
        if name in self._models:
            return self._models[name]
        near = did_you_mean(name, self._models)
        known = ", ".join(f"'{model}'" for model in self._models)
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise ApiError(
            404,
            f"The model '{shown}' does not exist.{near} This server has {known}.",
            param="model",
            code="model_not_found",
        )

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def adding(self, models: Mapping[str, Served]) -> Registry:
        """Return a registry with more models; the old one's stay the same objects."""
        return Registry({**self._models, **models})

    @property
    def backends(self) -> dict[str, Backend]:
        """The backends by model name."""
        return {name: served.backend for name, served in self._models.items()}

    def close(self) -> None:
        """End all backends at once."""
        for served in self._models.values():
            served.backend.close()
