"""Held-out bits per byte: how many bits the model needs for each UTF-8 byte of unseen text.

Lower is better. Unlike the loss per token it does not depend on the tokenizer, so models with
different vocabularies, and compressors, stand on one scale. 8 is no knowledge at all.

**What is counted.** A document is the tokens of its text and the `<|endoftext|>` that ends it. The
end is paid for (a code that doesn't say where a document ends can't be decoded) but adds no bytes:
the denominator is the UTF-8 length of the text alone. The first token is predicted from the
`<|endoftext|>` that opens a document, as in training (an imported model may have a mark of its own
for that, such as `<s>`). `details` has the bits of first tokens and of
ends, so that the figure without them can be had.

**Longer than the context.** Windows of the context length move by `stride` (half the context unless
given); each token is scored once, in the first window that has it, so all but the first half window
of a document see at least `context - stride` tokens before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from minimind.data.batch import IGNORE
from minimind.data.document import Document
from minimind.errors import DataError
from minimind.eval.results import Measure
from minimind.eval.scoring import Precision, Row, label_log_probs
from minimind.eval.statistics import ratio_measure
from minimind.inference.scored import ScoredModel
from minimind.tokenizer import Tokenizer


def bits_per_byte(
    model: ScoredModel,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    context: int | None = None,
    stride: int | None = None,
    precision: Precision = "fp32",
    batch_tokens: int = 8192,
    group: str = "source",
) -> Measure:
    """Measure bits per byte over documents, with a bootstrap interval over them.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        documents: held-out ones; empty texts are skipped.
        context: tokens that the model sees at most; its trained positions unless given.
        stride: by how much the window moves; `context` means windows that don't overlap.
        precision: of the forward pass.
        batch_tokens: slots in one forward pass.
        group: the key of `Document.meta` by which the figure is also given.

    Returns:
        bits / byte; `details`: bytes, bits, tokens (ends included), bytes_per_token, start_bits,
        end_bits.

    Raises:
        DataError: no document has any text.
    """
    documents = with_text(documents)
    context = context or model.config.max_position_embeddings
    step = min(stride or max(1, context // 2), context)
    encoded = tokenizer.encode_batch([document.text for document in documents])
    rows, owners = windows(
        encoded, start=tokenizer.document_start_id, endoftext=tokenizer.endoftext_id,
        context=context, stride=step,
    )  # fmt: skip
    scores = label_log_probs(model, rows, precision=precision, batch_tokens=batch_tokens)
    bits = [0.0] * len(documents)
    start_bits, end_bits, tokens = 0.0, 0.0, 0
    previous = -1
    for owner, (_, labels), scores_T in zip(owners, rows, scores, strict=True):
        bits_T = -scores_T.astype("float64") / math.log(2)
        if owner != previous:
            start_bits += float(bits_T[0])
        if labels[-1] == tokenizer.endoftext_id:
            end_bits += float(bits_T[-1])
        bits[owner] += float(bits_T.sum())
        tokens += sum(label != IGNORE for label in labels)
        previous = owner
    return document_measure(
        documents, bits, tokens=tokens, group=group,
        extra={"start_bits": start_bits, "end_bits": end_bits},
        note=f"windows of {context} tokens moved by {step}; the end of each document is counted",
    )  # fmt: skip


def document_measure(
    documents: Sequence[Document],
    bits: Sequence[float],
    *,
    tokens: int,
    group: str = "source",
    extra: Mapping[str, float] | None = None,
    note: str = "",
) -> Measure:
    """Make the bits-per-byte measure from the bits of each document.

    Args:
        documents: the documents.
        bits: of each, in their order.
        tokens: of all, ends included.
        group: the key of `Document.meta` by which the figure is also given.
        extra: further `details`.
        note: how it was measured.
    """
    sizes = [len(utf8(document.text)) for document in documents]
    details = {
        "bytes": sum(sizes),
        "bits": sum(bits),
        "tokens": tokens,
        "bytes_per_token": sum(sizes) / tokens,
        **(extra or {}),
    }
    return ratio_measure(
        bits,
        [float(size) for size in sizes],
        unit="documents",
        groups=[document.meta.get(group, "") for document in documents],
        details=details,
        note=note,
    )


def windows(
    encoded: Sequence[Sequence[int]], *, endoftext: int, context: int, stride: int,
    start: int | None = None,
) -> tuple[list[Row], list[int]]:  # fmt: skip
    """Cut documents into rows of at most `context` inputs in which each token is scored once.

    `start` opens a document; `endoftext` unless given.

    Returns:
        the rows, and for each the number of its document.
    """
    opener = endoftext if start is None else start
    rows, owners = [], []
    for owner, ids in enumerate(encoded):
        for row in _document_windows([opener, *ids, endoftext], context, stride):
            rows.append(row)
            owners.append(owner)
    return rows, owners


def _document_windows(ids: Sequence[int], context: int, stride: int) -> Iterator[Row]:
    scored = 0  # inputs ids[:scored] have had their next token scored
    start = 0
    while scored < len(ids) - 1:
        end = min(start + context, len(ids) - 1)
        labels = [IGNORE] * (scored - start) + list(ids[scored + 1 : end + 1])
        yield list(ids[start:end]), labels
        scored, start = end, start + stride


def utf8(text: str) -> bytes:
    """Encode text; half a surrogate pair takes 3 bytes, as the U+FFFD that the tokenizer reads."""
    return text.encode("utf-8", "surrogatepass")


def with_text(documents: Sequence[Document]) -> list[Document]:
    """Return the documents that have text.

    Raises:
        DataError: none has any.
    """
    kept = [document for document in documents if document.text]
    if not kept:
        raise DataError("there is no held-out text to measure on: raise data.validation_share")
    return kept
