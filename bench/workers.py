"""Processes that hold one configuration each and take turns, so that all meet the same machine.

A bench calls itself with `--worker JSON`; the child answers each line of its stdin with one burst.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL
from typing import Any

from minimind.cli.huge_pages import TUNABLE, helps

Burst = Callable[[], dict[str, Any]]


class Worker:
    """A child process with one configuration.

    Args:
        script: the bench itself.
        payload: what `--worker` gets.
        huge_pages: start it as the verbs of minimind that train start themselves.
    """

    def __init__(self, script: Path, payload: dict[str, Any], *, huge_pages: bool = False) -> None:
        self._payload = payload
        tunables = {"GLIBC_TUNABLES": TUNABLE} if huge_pages and helps() else {}
        self._process = subprocess.Popen(
            [sys.executable, str(script), "--worker", json.dumps(payload)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | tunables,
        )
        self.ready = self._read()

    def burst(self) -> dict[str, Any]:
        """Run one burst and return its figures."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> SystemExit:
        code = self._process.wait()
        why = ": killed, likely for memory; measure fewer at a time" if code == -SIGKILL else ""
        return SystemExit(f"the worker {self._payload} ended early (exit code {code}{why})")


def serve(burst: Burst, *, ready: dict[str, float]) -> None:
    """In the child: say what is ready, then answer each line of stdin with a burst."""
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        print(json.dumps(burst()), flush=True)


def peak_memory_mb(device: str) -> float:
    """Return the most memory that this process has held: of the GPU, or resident."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with the parent's, this doesn't
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
