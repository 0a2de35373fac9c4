"""What a build writes, and that nothing held out is trained on, on any side."""

import json

import pytest

from minimind.data import is_held_out
from minimind.data.build import (
    HELD_OUT_SHARE,
    POETRY_SHARE,
    _thinned,
    build,
    without_held_out_problems,
)
from minimind.data.catalogue import select
from minimind.data.conversations import own_conversations
from minimind.data.document import Document
from minimind.data.fetch import is_cached
from minimind.data.formats import ChatRow, TextRow
from minimind.data.instructions import pick, sampled
from minimind.data.ledger import LedgerEntry, read_ledger, write_ledger
from minimind.data.reader import Rejects, expand_paths, read_rows
from minimind.errors import DataError


def test_all_that_mentions_a_held_out_problem_goes():
    prompts = [f"{i}只鸡有几只脚？" for i in range(400)]
    documents = [
        Document(f"题目：{p}\n答案", f"p:{i}", {"prompt": p}) for i, p in enumerate(prompts)
    ]
    lesson = Document("例题：" + "".join(prompts[:200]), "lesson:0")
    kept = list(without_held_out_problems([*documents, lesson]))
    held_out = [prompt for prompt in prompts if is_held_out(prompt, HELD_OUT_SHARE)]
    assert held_out
    assert not any(prompt in document.text for prompt in held_out for document in kept)
    # No more than that: "1只鸡" is in "11只鸡", so a text may go for a held-out problem inside.
    gone = [d for d in documents if d not in kept]
    assert all(any(prompt in d.text for prompt in held_out) for d in gone)


def test_held_out_sets_are_nested():
    texts = [str(i) for i in range(3000)]
    small = {text for text in texts if is_held_out(text, 0.01)}
    assert small
    assert small <= {text for text in texts if is_held_out(text, HELD_OUT_SHARE)}


def test_thinning_keeps_about_the_limit_in_order():
    documents = [Document(f"{i:05d}" * 10, str(i)) for i in range(4000)]
    kept = _thinned(documents, 50_000)
    assert 40_000 < sum(len(d.text) for d in kept) < 60_000
    assert [d.id for d in kept] == sorted((d.id for d in kept), key=int)
    held_out = [d for d in kept if is_held_out(d.text, 0.1)]
    assert 0 < len(held_out) < len(kept) * 0.2  # thinning doesn't favour the held-out side


def test_sampling_moves_little_when_the_source_grows():
    before = sampled(((f"问{i}", "答") for i in range(1000)), 100)
    after = sampled(((f"问{i}", "答") for i in range(1100)), 100)
    assert len(set(before) & set(after)) > 75
    assert pick("字", 7) == pick("字", 7)


def test_sampling_does_not_favour_the_held_out_side():
    rows = sampled(((f"问{i}", "答") for i in range(20_000)), 4_000)
    held_out = [question for question, _ in rows if is_held_out(question, HELD_OUT_SHARE)]
    assert len(held_out) == pytest.approx(4_000 * HELD_OUT_SHARE, rel=0.2)


def test_own_conversations_are_sound():
    conversations = list(own_conversations())
    assert len(conversations) > 200
    for messages in conversations:
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all(m["content"] for m in messages)
    assert "MiniMind" in conversations[0][1]["content"]


def test_ledger_round_trip(tmp_path):
    entry = LedgerEntry(
        source="a", package="b", version="1", sha256="0", licence="MIT", upstream="",
        file="sft.jsonl", kind="sft", documents=1, bytes=2, hanzi=3, templated=True,
    )  # fmt: skip
    write_ledger(tmp_path, [entry])
    assert read_ledger(tmp_path) == [entry]
    with pytest.raises(DataError, match="minimind data build"):
        read_ledger(tmp_path / "nowhere")


def test_unknown_source_and_a_file_in_the_way(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'embedded'"):
        build(["embeded"], tmp_path)
    with pytest.raises(DataError, match="no source was named"):
        build([], tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    missing = [source.name for source in select(["embedded"]) if not is_cached(source)]
    if missing:
        pytest.skip(f"not cached: {', '.join(missing)}; `minimind data fetch embedded` gets them")
    pytest.importorskip("opencc", reason="needs minimind[data]")
    out = tmp_path_factory.mktemp("built")
    build(["embedded"], out)
    return out


def rows_of(path, kind):
    rejects = Rejects()
    rows = [row for _, _, row in read_rows(path, kind, rejects=rejects)]
    assert rejects.total == 0, rejects.summary()
    return rows


@pytest.mark.slow
def test_the_embedded_corpus(built):
    files = expand_paths([str(built / "pretrain")])
    rows = [row for path in files for row in rows_of(path, "text")]
    texts = [row.text for row in rows if isinstance(row, TextRow)]
    assert len(texts) == len(set(texts)) > 40_000
    assert sum(len(text.encode()) for text in texts) > 20e6
    conversations = rows_of(built / "sft.jsonl", "chat") + rows_of(built / "self.jsonl", "chat")
    assert 20_000 <= len(conversations) <= 25_500
    problems = [json.loads(line) for line in (built / "problems.jsonl").open(encoding="utf-8")]
    assert len(problems) > 1_000
    for problem in problems:
        assert problem["solution"].endswith(f"答案：{problem['answer']}")
        assert float(problem["answer_value"]) == float(problem["answer_value"])

    # A problem's text is the user's message, so that one hash decides everywhere.
    asked = {row.messages[0]["content"] for row in conversations if isinstance(row, ChatRow)}
    assert len({problem["prompt"] for problem in problems} - asked) == 0
    held_out = [p["prompt"] for p in problems if is_held_out(p["prompt"], HELD_OUT_SHARE)]
    assert len(held_out) > 30
    everything = "\x00".join(texts)
    assert not any(prompt in everything for prompt in held_out)

    ledger = read_ledger(built)
    by_file = {entry.file: 0 for entry in ledger}
    for entry in ledger:
        by_file[entry.file] += entry.documents
        assert entry.licence
    for name, documents in by_file.items():
        assert sum(1 for _ in (built / name).open(encoding="utf-8")) == documents
    diseases = [t for t in texts if "ICD-10 编码" in t]
    assert diseases
    assert all("不得用于实际医疗诊断" in text for text in diseases)
    assert 0 < POETRY_SHARE < 0.5


@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes(built, tmp_path):
    build(["embedded"], tmp_path)
    for path in sorted(built.rglob("*.json*")):
        assert (tmp_path / path.relative_to(built)).read_bytes() == path.read_bytes(), path.name
