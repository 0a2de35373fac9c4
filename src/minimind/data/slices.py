"""The first rows of a hub data set as a file here: to look at, to clean, to train on offline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from minimind.config import DataConfig
from minimind.data.files import mixture
from minimind.data.hub import HubData
from minimind.data.lines import Cursor
from minimind.data.rejects import Rejects
from minimind.data.tables import as_json
from minimind.errors import DataError, FetchError


@dataclass(frozen=True, slots=True)
class Slice:
    """What was written; `data` names the commit that it is of."""

    path: Path
    data: HubData
    licence: str
    rows: int
    bytes: int


def fetch_slice(
    name: str, out: Path | None, *, megabytes: float, accept_licences: Sequence[str] = ()
) -> Slice:
    """Write rows of `hub:...` to `out` until `megabytes` are there; the file appears whole.

    Raises:
        ConfigError: the licence is not open and was not accepted.
        DataError: no such data set; `out` is missing or not a .jsonl or .jsonl.zst file.
        FetchError: the hub can't be reached, or `out` can't be written.
    """
    if out is None or not out.name.endswith((".jsonl", ".jsonl.zst")):
        raise DataError(f"where to? Rows of {name} go to --out FILE.jsonl or FILE.jsonl.zst")
    config = DataConfig(train=(name,), accept_licences=tuple(accept_licences))
    (data,) = mixture(config, "train").origins
    assert isinstance(data, HubData)
    rows = size = 0

    def lines() -> Iterator[bytes]:
        nonlocal rows, size
        for _, length, record in data.read(Cursor(), Rejects()):
            yield as_json(record) + b"\n"
            rows, size = rows + 1, size + length
            if size >= megabytes * 1e6:
                return

    partial = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            if out.suffix == ".zst":
                with zstandard.ZstdCompressor(10).stream_writer(file, closefd=False) as packed:
                    for line in lines():
                        packed.write(line)
            else:
                file.writelines(lines())
        partial.replace(out)
    except OSError as error:
        raise FetchError(f"{out} can't be written: {error}") from error
    return Slice(out, data, data.licence(), rows, size)
