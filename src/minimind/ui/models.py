"""What the page says of a server's models."""

from __future__ import annotations

from collections.abc import Sequence

from minimind.ui.client import Model
from minimind.ui.page import LONGEST_ANSWER
from minimind.ui.words import Language, word


def choices(models: Sequence[Model], language: Language) -> tuple[tuple[str, str], ...]:
    """Return (what is shown, id) of each; an adapter says whose it is."""

    def name(model: Model) -> str:
        if model.parent is None:
            return model.id
        return word("adapter_of", language, id=model.id, parent=model.parent)

    return tuple((name(model), model.id) for model in models)


def about(models: Sequence[Model], chosen: str | None, language: Language, *, url: str) -> str:
    """Return the line below the choice."""
    if not models:
        return word("no_models", language)
    context = _context(models, chosen)
    if context is None:
        return word("ready", language, url=url)
    return word("ready_context", language, url=url, context=context)


def sees(models: Sequence[Model], chosen: str | None) -> bool:
    """Tell whether the chosen model reads images."""
    return any(model.sees for model in models if model.id == chosen)


def longest(models: Sequence[Model], chosen: str | None) -> int:
    """Return how many tokens an answer can have at most."""
    return _context(models, chosen) or LONGEST_ANSWER


def _context(models: Sequence[Model], chosen: str | None) -> int | None:
    return next((model.context for model in models if model.id == chosen), None)
