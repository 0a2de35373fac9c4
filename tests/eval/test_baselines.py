import lzma
import math
import random
from collections import Counter

import pytest

from doubles import byte_tokenizer
from minimind.data.document import Document
from minimind.errors import DataError
from minimind.eval.baselines import compressors, start_compressors, unigram

WORDS = ("天", "地", "春风", "秋水", "明月", "故人", "长安", "，", "。", "不见")


def text(seed, words=400):
    return "".join(random.Random(seed).choices(WORDS, weights=range(1, 11), k=words))


TRAINING = [text(seed) for seed in range(40)]
HELD_OUT = [
    Document(text(seed), str(seed), {"source": "ab"[seed % 2]}) for seed in range(1000, 1012)
]
SIZE = sum(len(document.text.encode()) for document in HELD_OUT)


def test_unigram_equals_counting_by_hand():
    tokenizer = byte_tokenizer()
    counts = Counter(token for t in TRAINING for token in [*tokenizer.encode(t), 0])
    total = sum(counts.values()) + tokenizer.vocab_size
    bits = -sum(
        math.log2((counts[token] + 1) / total)
        for document in HELD_OUT
        for token in [*tokenizer.encode(document.text), 0]
    )
    measure = unigram(tokenizer, TRAINING, HELD_OUT)
    assert measure.value == pytest.approx(bits / SIZE)
    assert measure.n == len(HELD_OUT)
    assert set(measure.groups) == {"a", "b"}


def test_unigram_of_no_training_text_is_uniform():
    tokenizer = byte_tokenizer()
    measure = unigram(tokenizer, [], HELD_OUT)
    tokens = SIZE + len(HELD_OUT)
    assert measure.value == pytest.approx(math.log2(tokenizer.vocab_size) * tokens / SIZE)


def test_xz_in_one_pass_is_close_to_the_difference_of_two():
    settings = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    training = "\n".join(TRAINING).encode()
    held_out = "".join(d.text for d in sorted(HELD_OUT, key=lambda d: d.meta["source"])).encode()
    sizes = [
        len(lzma.compress(data, lzma.FORMAT_XZ, filters=settings))
        for data in (training, training + held_out)
    ]
    measured = compressors(TRAINING, HELD_OUT, names=["xz"])["xz"].details["bits"] / 8
    # 2 parts of about 40 bytes for the flush boundaries, of about 2,300.
    assert measured == pytest.approx(sizes[1] - sizes[0], abs=120)


@pytest.mark.parametrize("name", ["zstd", "xz"])
def test_known_text_costs_next_to_nothing_and_noise_costs_eight_bits(name):
    noise = "".join(map(chr, random.Random(0).choices(range(0x20, 0x7F), k=20_000)))
    known = compressors([*TRAINING, noise], [Document(noise, "n")], names=[name])[name]
    assert known.value < 0.05
    fresh = compressors(TRAINING, [Document(noise, "n")], names=[name])[name]
    assert fresh.value == pytest.approx(math.log2(0x7F - 0x20), rel=0.06)


@pytest.mark.parametrize("name", ["zstd", "xz"])
def test_small_sources_get_their_own_bytes(name):
    """The encoder's look-ahead must not push one source's bytes onto the next."""
    tiny, large = Document("甲乙丙丁戊己庚辛" * 2, "t", {"source": "tiny"}), HELD_OUT[:4]
    measure = compressors(TRAINING, [tiny, *large], names=[name])[name]
    alone = compressors(TRAINING, [tiny], names=[name])[name]
    size = len(tiny.text.encode())
    assert measure.groups["tiny"].value * size / 8 == pytest.approx(
        alone.value * size / 8, abs=25
    )  # bytes


def test_works_without_training_text():
    measures = compressors([], HELD_OUT)
    assert all(0 < measure.value < 8 for measure in measures.values())


def test_an_unknown_compressor_is_named():
    with pytest.raises(DataError, match="'brotli'"):
        compressors(TRAINING, HELD_OUT, names=["brotli"])


def test_a_process_of_its_own_gives_the_same():
    future = start_compressors(TRAINING, HELD_OUT)
    assert future.result(timeout=600) == compressors(TRAINING, HELD_OUT)
