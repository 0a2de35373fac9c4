"""Ctrl-C and `kill` end a run between two steps, not in the middle of one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818  (a request, not an error)
    """A signal came where the program waits and nothing is half done."""


class GracefulStop:
    """While open, notes the first SIGINT or SIGTERM; a second one does what it always does.

    Attributes:
        number: the signal that came; None so far.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}
        self._raises = False

    def __enter__(self) -> GracefulStop:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:  # not in the main thread: signals go where the program sends them
            self._previous.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    @contextlib.contextmanager
    def interruptible(self, *, on: bool) -> Iterator[None]:
        """Where nothing is half done: a signal raises here at once, so that no wait outlives it.

        Raises:
            Interrupted: a signal came, now or before.
        """
        self._raises = on
        try:
            if on and self.number is not None:  # looked at last: no signal comes in between
                raise Interrupted
            yield
        finally:
            self._raises = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        if self._raises:
            self._raises = False
            raise Interrupted

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
