"""What the model has to beat, on exactly the same held-out text and in the same unit.

**unigram**: how often each token occurs in the training text, and nothing else (add-one smoothing,
the model's own tokenizer, document ends counted as for the model). Beating it shows use of context.

**zstd -19** and **xz -9e**: compressors that are given all the training text first and are charged
only for what the held-out text adds. How fair is that?

- For the compressor: the held-out documents are one stream, so later ones profit from earlier ones;
  the model sees each alone. Document ends are free for the compressor and are paid by the model.
  Its window holds all the training text (up to `MAX_TRAINING_BYTES`).
- Against it: it matches repeated strings and adapts simple statistics; a context-mixing compressor
  (PPMd, cmix) would be stronger and slower. Neither the weights nor the dictionary are charged for.

The stronger of the two is the bar. Both together cost about 35 s on one core for 22 MB, so
`start_compressors` runs them in a process of its own while the model trains.
"""

from __future__ import annotations

import lzma
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import zstandard

from minimind.data.document import Document
from minimind.errors import DataError
from minimind.eval.bits_per_byte import document_measure, utf8, with_text
from minimind.eval.results import Measure
from minimind.tokenizer import Tokenizer

MAX_TRAINING_BYTES = 64 * 2**20
"""More training text than this is cut to its end: xz needs 11 bytes of memory a byte of window."""

_XZ_PIECE = 16 * 2**10  # liblzma keeps what doesn't fit its caller's 32 KB buffer: feed less
_XZ_LOOKAHEAD = 5 * 2**10  # its optimal parser holds back 4,096 + 273 bytes before it writes


def unigram(
    tokenizer: Tokenizer,
    training: Iterable[str],
    documents: Sequence[Document],
    *,
    group: str = "source",
) -> Measure:
    """Measure bits per byte of a model that knows token frequencies only.

    Args:
        tokenizer: the tokenizer of the model that is compared.
        training: the texts that the model was trained on.
        documents: held-out ones.
        group: the key of `Document.meta` by which the figure is also given.
    """
    documents = with_text(documents)
    counts_V = np.ones(tokenizer.vocab_size, np.int64)
    for texts in _chunks(training):
        for ids in tokenizer.encode_batch(texts):
            counts_V += np.bincount(ids, minlength=tokenizer.vocab_size)
        counts_V[tokenizer.endoftext_id] += len(texts)
    bits_V = -np.log2(counts_V / counts_V.sum())
    end = float(bits_V[tokenizer.endoftext_id])
    encoded = tokenizer.encode_batch([document.text for document in documents])
    return document_measure(
        documents,
        [float(bits_V[ids].sum()) + end for ids in encoded],
        tokens=sum(map(len, encoded)) + len(documents),
        extra={"end_bits": end * len(documents)},
        group=group,
        note="token frequencies of the training text, add-one smoothing",
    )


def compressors(
    training: Iterable[str],
    documents: Sequence[Document],
    *,
    names: Sequence[str] = ("zstd", "xz"),
    group: str = "source",
    most_bytes: int = MAX_TRAINING_BYTES,
) -> dict[str, Measure]:
    """Measure bits per byte of compressors that know the training text, by compressor.

    Args:
        training: the texts that the model was trained on.
        documents: held-out ones.
        names: of `zstd` and `xz`.
        group: the key of `Document.meta` by which the figures are also given.
        most_bytes: of the training text only so many, its end; the measures' notes say so.

    Raises:
        DataError: there is no held-out text, or a name is not `zstd` or `xz`.
    """
    documents = with_text(documents)
    if unknown := set(names) - set(_COMPRESSORS):
        raise DataError(f"compressor {min(unknown)!r}: there are {', '.join(_COMPRESSORS)}")
    text = utf8("\n".join(training))
    cut = text[-most_bytes:]
    note = "" if len(cut) == len(text) else f"; only the last {len(cut):,} bytes of training text"
    held_out: dict[str, list[Document]] = {}
    for document in documents:
        held_out.setdefault(document.meta.get(group, ""), []).append(document)
    streams = {name: utf8("".join(d.text for d in part)) for name, part in held_out.items()}
    counts = {name: len(part) for name, part in held_out.items()}
    return {
        name: _stream_measure(
            _COMPRESSORS[name](cut, list(streams.values())), streams, counts, _NOTES[name] + note
        )
        for name in names
    }


def start_compressors(
    training: Sequence[str], documents: Sequence[Document], *, group: str = "source",
    most_bytes: int = MAX_TRAINING_BYTES, names: Sequence[str] = ("zstd", "xz"),
) -> Future[dict[str, Measure]]:  # fmt: skip
    """Start `compressors` in a process of its own, at low priority; the result comes later.

    `future.result()` waits for it and raises what it raised.
    """
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    future = executor.submit(_niced, list(training), list(documents), group, most_bytes, names)
    executor.shutdown(wait=False)
    return future


def _niced(
    training: Sequence[str], documents: Sequence[Document], group: str, most_bytes: int,
    names: Sequence[str],
) -> dict[str, Measure]:  # fmt: skip
    if hasattr(os, "nice"):  # absent on Windows
        os.nice(10)
    return compressors(training, documents, group=group, most_bytes=most_bytes, names=names)


def _zstd(training: bytes, streams: Sequence[bytes]) -> list[int]:
    """Return the bytes that each stream adds, the training text being the dictionary."""
    size = len(training) + sum(map(len, streams))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, source_size=size, window_log=max(10, math.ceil(math.log2(size + 1)))
    )
    dictionary = zstandard.ZstdCompressionDict(training, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    stream = zstandard.ZstdCompressor(
        dict_data=dictionary if len(training) >= 8 else None,  # zstd's least
        compression_params=parameters,
    ).compressobj()
    sizes = [
        len(stream.compress(part)) + len(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
        for part in streams
    ]
    sizes[-1] += len(stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))
    return sizes


def _xz(training: bytes, streams: Sequence[bytes]) -> list[int]:
    """Return the bytes that each stream adds after the training text, in one pass.

    LZMA has no flush, and its encoder lags by its look-ahead. So 5 KB of zeros follow each part:
    the lag falls into them, and they cost about 20 bytes a part.
    """
    size = len(training) + sum(map(len, streams))
    settings = {
        "id": lzma.FILTER_LZMA1,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": size + (len(streams) + 2) * _XZ_LOOKAHEAD,
    }
    stream = lzma.LZMACompressor(lzma.FORMAT_ALONE, filters=[settings])

    def feed(part: bytes) -> int:
        data = part + bytes(_XZ_LOOKAHEAD)
        pieces = range(0, len(data), _XZ_PIECE)
        return sum(len(stream.compress(data[at : at + _XZ_PIECE])) for at in pieces)

    feed(training)
    sizes = [feed(part) for part in streams]
    sizes[-1] += len(stream.flush())
    return sizes


_COMPRESSORS: Mapping[str, Callable[[bytes, Sequence[bytes]], list[int]]] = {
    "zstd": _zstd,
    "xz": _xz,
}
_NOTES = {
    "zstd": "zstd -19, the training text as its dictionary, held-out documents as one stream",
    "xz": "xz -9e (LZMA) after the training text in one window, held-out documents as one stream",
}


def _stream_measure(
    sizes: Sequence[int], streams: Mapping[str, bytes], counts: Mapping[str, int], note: str
) -> Measure:
    total = sum(map(len, streams.values()))
    groups = {
        name: Measure(value=8 * size / len(stream), n=counts[name], unit="documents")
        for size, (name, stream) in zip(sizes, streams.items(), strict=True)
    }
    return Measure(
        value=8 * sum(sizes) / total,
        n=sum(counts.values()),
        unit="documents",
        groups=dict(sorted(groups.items())),
        details={"bytes": total, "bits": 8 * sum(sizes)},
        note=note,
    )


def _chunks(texts: Iterable[str], *, size: int = 1000) -> Iterable[list[str]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
