"""Processes that encode rows. Each answers one chunk at a time; answers are taken in order.

A worker is `python -m minimind.data.workers` talking through its pipes: no fork of a process that
has threads and a GPU, no import of the user's script, and it ends with its parent however that
ends, because its input does.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from minimind.config import DataConfig
from minimind.data.formats import Row
from minimind.data.items import Item, RowEncoder
from minimind.errors import RunError
from minimind.tokenizer import Tokenizer

_HEAD = struct.Struct("<Q")


class Workers:
    """A pool of encoding processes.

    Args:
        number: how many.
        config: kind and shape of rows.
        tokenizer: each worker loads a copy.
    """

    def __init__(self, number: int, config: DataConfig, tokenizer: Tokenizer) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="minimind-workers-")
        tokenizer.save(self._folder.name)
        self._config = config
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all = [self._started() for _ in range(number)]
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="encode")

    def encode(self, rows: Sequence[Row]) -> Future[list[Item]]:
        """Give rows to the next idle worker."""
        return self._threads.submit(self._encode, pickle.dumps(list(rows), protocol=5))

    def _encode(self, message: bytes) -> list[Item]:
        worker = self._idle.get()
        try:
            for attempt in range(2):
                try:
                    return self._ask(worker, message)
                except (OSError, EOFError) as error:
                    # Killed from outside, most often for memory. Rows don't depend on who encodes
                    # them, so another may; if that dies of the same chunk, it is the chunk.
                    code = worker.wait()
                    worker = self._replace(worker)
                    if attempt:
                        raise RunError(
                            f"a data worker died twice over the same rows (exit code {code}): "
                            "perhaps for memory; --data.num-workers 0 encodes in the run itself"
                        ) from error
            raise AssertionError
        finally:
            self._idle.put(worker)

    def _ask(self, worker: subprocess.Popen[bytes], message: bytes) -> list[Item]:
        assert worker.stdin is not None
        assert worker.stdout is not None
        _send(worker.stdin, message)
        kind, answer = pickle.loads(_receive(worker.stdout))
        if kind == "error":
            raise RunError(f"a data worker failed: {answer}")
        return answer

    def _replace(self, worker: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        fresh = self._started()
        self._all[self._all.index(worker)] = fresh
        return fresh

    def _started(self) -> subprocess.Popen[bytes]:
        paths = [path for path in sys.path if path]
        worker = subprocess.Popen(
            [sys.executable, "-m", "minimind.data.workers"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            # Ctrl-C is for the run, which then closes its workers in good order.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths),
                 "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert worker.stdin is not None
        _send(worker.stdin, pickle.dumps((self._config, self._folder.name)))
        return worker

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
        self._folder.cleanup()


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(_HEAD.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    message = pipe.read(_HEAD.unpack(head)[0])
    if len(message) < _HEAD.unpack(head)[0]:
        raise EOFError
    return message


def main() -> None:
    """Serve one parent: a configuration, then rows after rows, until its end of the pipe closes."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    try:
        config, folder = pickle.loads(_receive(source))
        encoder = RowEncoder(config, Tokenizer.load(Path(folder)))
        while True:
            rows = pickle.loads(_receive(source))
            answer: tuple[str, Any]
            try:
                answer = ("items", encoder.encode(rows))
            except Exception as error:
                answer = ("error", f"{type(error).__name__}: {error}")
            _send(sink, pickle.dumps(answer, protocol=5))
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
