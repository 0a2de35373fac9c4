"""One exception tree: everything that minimind raises on purpose.

MiniMindError
├── UserError               exit code 2: the input is wrong, and the message says what to change
│   ├── ConfigError         an unknown key, a wrong type, settings that contradict each other
│   ├── DataError           a file, row or data set that can't be used
│   ├── TokenizerError      a tokenizer that can't be read or doesn't fit the model
│   ├── CheckpointError     a checkpoint that isn't one, is damaged, or doesn't fit
│   ├── ExportError         a model that the format can't express, or a place not to be written to
│   └── MissingExtraError   an optional package is needed; the message gives the pip command
└── RunError                exit code 1: the input was fine, the work failed
    ├── TrainingDivergedError    too many non-finite losses in a row
    ├── NotEnoughMemoryError     a step needs more than there is; says which setting to lower
    ├── LostRankError            another process of a run on several is gone
    ├── VerificationError        an export that its reader reads differently; it was deleted
    └── FetchError          a download failed or its checksum is wrong
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class MiniMindError(Exception):
    """Base of every error that minimind raises on purpose."""

    exit_code = 1


class UserError(MiniMindError):
    """The user's input is wrong; the message says where and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class DataError(UserError):
    """A data file, row or set can't be used."""


class TokenizerError(UserError):
    """A tokenizer can't be read, or doesn't fit the model."""


class CheckpointError(UserError):
    """A checkpoint directory is missing, damaged, or doesn't fit."""


class ExportError(UserError):
    """The model can't be expressed in the format, or the target can't be written to."""


class MissingExtraError(UserError):
    """An optional package is needed for what was asked."""


class RunError(MiniMindError):
    """The input was fine but the work failed."""


class TrainingDivergedError(RunError):
    """The loss was not finite for too many steps in a row."""


class NotEnoughMemoryError(RunError):
    """A training step needs more memory than there is; the message says what to lower."""


class LostRankError(RunError):
    """Another process of the run is gone; what was saved is there."""


class VerificationError(RunError):
    """An export that its reader reads differently from us; nothing of it is left."""


class FetchError(RunError):
    """A download failed, or its checksum is not the pinned one."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest known word, or `""`."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: it is not installed; the message has the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package {module!r}, which is not installed here: "
            f"pip install 'minimind[{extra}]'"
        ) from error
