"""`minimind serve` for as long as its parent lives: `minimind ui` starts this and holds its stdin.

The pipe closes however the parent ends, by kill -9 too, so that no server is left behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from minimind.cli import main

PATIENCE = 10.0
"""Seconds to end in order; a checkpoint that is still loading can't be interrupted."""


def _end_with_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock would hold up the interpreter's end
        pass
    threading.Timer(PATIENCE, os._exit, (1,)).start()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = main(["serve", *sys.argv[1:]])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to be done, and no thread of a library can hold up the end
