"""What a loader's position is good for: the rows that it was made with, and no others."""

from __future__ import annotations

from typing import Any

from minimind.config import DataConfig
from minimind.data.files import identity_of
from minimind.data.stream import Mixture
from minimind.errors import DataError
from minimind.tokenizer import Tokenizer


def what_makes_rows(
    config: DataConfig, mixed: Mixture, tokenizer: Tokenizer, *, split: str, seed: int
) -> dict[str, Any]:
    """Return what must be the same for a position to mean the same rows."""
    return {
        "data files (name, bytes)": [identity_of(origin) for origin in mixed.origins],
        "data weights": list(mixed.weights),
        "data.epochs_caps": config.epochs_caps, "data.curriculum": config.curriculum,
        "data.kind": config.kind, "data.sequence_length": config.sequence_length,
        "data.pack": config.pack, "data.document_mask": config.document_mask,
        "data.shuffle_mb": config.shuffle_mb, "data split": split,
        "data.validation_share": config.validation_share,
        "explicit data.validation": config.validation is not None, "seed": seed,
        "tokenizer": tokenizer.fingerprint(),
    }  # fmt: skip


def check_position(state: dict[str, Any], *, version: int, identity: dict[str, Any]) -> None:
    """Refuse a position among other rows.

    Args:
        state: of a loader's `state_dict`, with its `version` and `identity`.
        version: of the states that the loader writes.
        identity: what the loader's rows are made of; see `what_makes_rows`.

    Raises:
        DataError: names what differs, then and now.
    """
    if state.get("version") != version:
        raise DataError(
            f"the loader's state has version {state.get('version')}, not {version}: "
            "resume with the minimind that wrote it, or start a new run from the checkpoint"
        )
    for name, before in state["identity"].items():
        if before != identity.get(name):
            raise DataError(
                f"the run can't be resumed exactly: {name} was {before}, "
                f"is now {identity.get(name)}. "
                "Put it back, or start a new run from the checkpoint (init.checkpoint)"
            )
