"""kit.json beside a checkpoint: the domain that it was trained for, and what goes with it.

It comes from `[kit]` of the run. Servers take the system prompt from it, model cards the
disclaimer; both work for a directory that came from elsewhere, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from minimind.config import KitConfig
from minimind.errors import CheckpointError

FILE = "kit.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KitCard:
    """What kit.json says. Empty texts say nothing.

    Attributes:
        name: of the kit.
        title: for people.
        disclaimer: in model cards.
        system: the system prompt where a request has none.
    """

    name: str = ""
    title: str = ""
    disclaimer: str = ""
    system: str = ""


def card_of(kit: KitConfig) -> KitCard:
    """Return what a run's kit says of itself."""
    return KitCard(name=kit.name, title=kit.title, disclaimer=kit.disclaimer, system=kit.system)


def card_json(card: KitCard) -> str:
    """Return the content of kit.json."""
    return json.dumps(asdict(card), ensure_ascii=False, indent=1) + "\n"


def read_card(directory: Path) -> KitCard | None:
    """Return what a checkpoint's kit.json says; None if it has none.

    Raises:
        CheckpointError: the file is there and can't be read, or says something else.
    """
    path = directory / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    known = set(KitCard.__slots__)
    if not isinstance(content, dict) or not all(
        key in known and isinstance(value, str) for key, value in content.items()
    ):
        raise CheckpointError(
            f"{path} is no kit.json: an object of texts with {', '.join(sorted(known))}"
        )
    return KitCard(**content)
