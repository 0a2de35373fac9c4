"""Packing loses nothing, learns nothing across a boundary, and masks what isn't an answer."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.batch import IGNORE
from minimind.data.packing import StreamPacker, WholePacker, collate, collate_pairs, positions

END = 0
documents = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=20), min_size=1, max_size=12)


def packed(packer, docs, masks=None):
    rows = []
    for i, ids in enumerate(docs):
        packer.add(ids, masks[i] if masks else None)
        while (row := packer.take()) is not None:
            rows.append(row)
    packer.flush()
    while (row := packer.take()) is not None:
        rows.append(row)
    return rows


@given(documents, st.integers(2, 9))
def test_stream_rows_are_the_documents_one_after_the_other(docs, length):
    rows = packed(StreamPacker(length=length, endoftext_id=END), docs)
    stream = [token for ids in docs for token in [END, *ids]]
    kept = np.concatenate([row.input_ids[row.documents >= 0] for row in rows])
    assert kept.tolist() == stream
    assert all((row.documents >= 0).all() for row in rows[:-1])  # padding only at the very end
    targets = np.concatenate([row.labels for row in rows])
    assert targets[: len(stream)].tolist() == [*stream[1:], END]  # each learnt once, ends too
    assert (targets[len(stream) :] == IGNORE).all()


@given(documents, st.integers(2, 9))
def test_stream_boundaries(docs, length):
    rows = packed(StreamPacker(length=length, endoftext_id=END), docs)
    batch = collate(rows, document_mask=True)
    assert batch.document_ids is not None
    assert batch.position_ids is not None
    number = [i for i, ids in enumerate(docs) for _ in [END, *ids]]
    for row in range(batch.rows):
        ours = batch.document_ids[row].tolist()
        theirs = number[row * length : (row + 1) * length]
        expected = [n - theirs[0] for n in theirs] + [-1] * (length - len(theirs))
        assert ours == expected
        counted: dict[int, int] = {}
        for document, position in zip(ours, batch.position_ids[row].tolist(), strict=True):
            assert position == counted.get(document, 0)
            counted[document] = position + 1


@given(documents, st.integers(4, 24), st.randoms(use_true_random=False))
def test_conversations_stay_whole_and_only_answers_are_learnt(docs, length, random):
    masks = [[random.random() < 0.5 for _ in ids] for ids in docs]
    rows = packed(WholePacker(length=length, endoftext_id=END, open_rows=3), docs, masks)
    found = []
    for row in rows:
        for document in range(row.documents.max() + 1):
            at = row.documents == document
            found.append((row.input_ids[at].tolist(), row.labels[at].tolist()))
        assert (row.labels[row.documents < 0] == IGNORE).all()
    expected = []
    for ids, mask in zip(docs, masks, strict=True):
        shifted = zip(ids[1:], mask[1:], strict=True)
        labels = [token if learnt else IGNORE for token, learnt in shifted]
        expected.append((ids[:length], [*labels, IGNORE][:length]))
    assert sorted(found) == sorted(expected)


def test_rows_of_their_own():
    packer = WholePacker(length=4, endoftext_id=END, open_rows=0)
    assert packer.add([1, 2])
    assert not packer.add([1, 2, 3, 4, 5])
    first, second = packer.take(), packer.take()
    assert first is not None
    assert second is not None
    assert first.input_ids.tolist() == [1, 2, END, END]
    assert first.labels.tolist() == [2, IGNORE, IGNORE, IGNORE]
    assert second.labels.tolist() == [2, 3, 4, 5]  # cut, but the last target is known


@given(documents, st.integers(2, 9), st.integers(0, 12), st.booleans())
def test_a_packer_goes_on_from_its_state(docs, length, cut, stream):
    def make():
        if stream:
            return StreamPacker(length=length, endoftext_id=END)
        return WholePacker(length=length, endoftext_id=END, open_rows=2)

    whole = packed(make(), docs)
    first, rows = make(), []
    for ids in docs[:cut]:
        first.add(ids)
    if (row := first.take()) is not None:
        rows.append(row)
    second = make()
    second.load_state_dict(first.state_dict())
    rows += packed(second, docs[cut:])
    assert [row.input_ids.tolist() for row in rows] == [row.input_ids.tolist() for row in whole]
    assert [row.labels.tolist() for row in rows] == [row.labels.tolist() for row in whole]


def test_positions_restart():
    rows = np.array([[0, 0, 1, 1, 1, -1], [0, 1, 2, 2, -1, -1]])
    assert positions(rows).tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 0, 1]]


def test_pairs_are_padded_to_the_longest():
    sides = [(np.array([1, 2, 3]), np.array([2, 3, IGNORE])), (np.array([1]), np.array([IGNORE]))]
    batch = collate_pairs(sides, pad_id=END, length=3)
    assert torch.equal(batch.input_ids, torch.tensor([[1, 2, 3], [1, END, END]]))
    assert torch.equal(batch.labels, torch.tensor([[2, 3, -100], [-100] * 3]))
    widths = set()
    for n in range(1, 65):
        side = (np.arange(n), np.arange(n))
        widths.add(collate_pairs([side], pad_id=END, length=64).input_ids.shape[1])
    assert widths == {16, 32, 48, 64}  # few shapes, whatever the lengths
