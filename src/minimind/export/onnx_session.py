"""An exported decoder in onnxruntime: one call, and greedy decoding with its own cache.

Axes: B batch, T query, P past, S = P + T key, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minimind.errors import VerificationError, require

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Cache = dict[str, npt.NDArray[Any]]
"""Past keys and values by the name of their input."""


class OnnxSession:
    """One .onnx file, run on the CPU.

    Raises:
        MissingExtraError: onnxruntime is missing.
        VerificationError: onnxruntime can't load the file.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        runtime = require("onnxruntime", extra="onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; warnings are about its own optimiser
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise VerificationError(f"onnxruntime can't load {path}: {error}") from error
        inputs = self._session.get_inputs()
        self._past = {i.name: i for i in inputs if i.name.startswith("past_key_values.")}
        self._outputs = [output.name for output in self._session.get_outputs()]

    def empty(self, rows: int) -> Cache:
        """Return a cache of no tokens for `rows` rows."""
        cache: Cache = {}
        for name, value in self._past.items():
            _, heads, _, width = value.shape
            dtype = np.float16 if value.type == "tensor(float16)" else np.float32
            cache[name] = np.zeros((rows, heads, 0, width), dtype)
        return cache

    def run(
        self, ids_BT: Ids, past: Cache, *, mask_BS: Ids | None = None, positions: Ids | None = None
    ) -> tuple[Floats, Cache]:
        """Read T tokens of each row after what `past` holds.

        Args:
            ids_BT: (B, T) token ids.
            past: from `empty` or the call before.
            mask_BS: (B, P + T), 0 for padding; default: no padding.
            positions: (B, T); default: in order after the past.

        Returns:
            logits (B, T, V) fp32, and the cache with these tokens appended.
        """
        B, T = ids_BT.shape
        P = next(iter(past.values())).shape[2]
        if mask_BS is None:
            mask_BS = np.ones((B, P + T), np.int64)
        if positions is None:
            positions = np.broadcast_to(np.arange(P, P + T), (B, T))
        feed = {"input_ids": ids_BT, "attention_mask": mask_BS, "position_ids": positions, **past}
        results = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
        present = {name: results[name.replace("past_key_values", "present")] for name in past}
        return results["logits"], present

    def greedy(self, prompt: Sequence[int], *, steps: int) -> list[int]:
        """Return the `steps` most likely tokens after `prompt`, stop tokens included."""
        ids_BT, past, made = np.array([prompt], np.int64), self.empty(1), []
        for _ in range(steps):
            logits_BTV, past = self.run(ids_BT, past)
            made.append(int(logits_BTV[0, -1].argmax()))
            ids_BT = np.array([made[-1:]], np.int64)
        return made
