"""A console for long work: it goes on where nobody reads any more."""

from __future__ import annotations

from rich.console import Console

from minimind.cli import leave_reader


class SteadyConsole(Console):
    """Falls silent when its reader is gone, where rich ends the program.

    Of `minimind train ... | tee log` Ctrl-C ends both: the run must still be saved.
    """

    def on_broken_pipe(self) -> None:
        """Say nothing from now on."""
        self.quiet = True
        leave_reader()
