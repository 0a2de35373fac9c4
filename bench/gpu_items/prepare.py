"""`gpu.py prepare`: one archive of a built data folder that is small enough to travel."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

ARCHIVE = "data.tar.xz"
PACKED = 0.26
"""Bytes of xz for a byte of Chinese text, measured on the full local corpus."""


def prepare(data: Path | None, out: Path, *, megabytes: float) -> None:
    """Pack what `minimind data build` wrote; of each text file the same share of documents.

    Documents are kept by the hash of their line, so that the same command packs the same ones.
    """
    if data is None or not (data / "pretrain").is_dir():
        raise SystemExit(f"--data {data}: a folder with pretrain/, as `minimind data build` makes")
    texts = sorted((data / "pretrain").glob("*.jsonl"))
    others = [path for path in sorted(data.iterdir()) if path.is_file()]
    room = megabytes * 1e6 / PACKED - sum(path.stat().st_size for path in others)
    share = min(1.0, room / sum(path.stat().st_size for path in texts))
    archive = out / ARCHIVE
    kept = documents = 0
    with tarfile.open(archive, "w:xz", preset=6) as tar:
        for path in others:
            tar.add(path, f"data/{path.name}")
        for path in texts:
            lines = path.read_bytes().splitlines(keepends=True)
            chosen = [line for line in lines if _place(line) < share]
            kept, documents = kept + len(chosen), documents + len(lines)
            content = b"".join(chosen)
            info = tarfile.TarInfo(f"data/pretrain/{path.name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    figures = {"share": share, "documents": kept, "of": documents,
               "megabytes": archive.stat().st_size / 1e6}  # fmt: skip
    (out / "prepared.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(f"{archive}: {figures['megabytes']:.1f} MB, {kept:,} of {documents:,} documents")


def _place(line: bytes) -> float:
    return int.from_bytes(hashlib.sha256(line).digest()[:6], "big") / 2**48


def unpack(folder: Path, target: Path) -> Path:
    """Unpack the archive of `prepare`; return the data folder."""
    with tarfile.open(folder / ARCHIVE, "r:xz") as tar:
        tar.extractall(target, filter="data")
    return target / "data"
