"""The same rows whatever the split, exact resume from any step, and a held-out side that is."""

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doubles import byte_tokenizer
from minimind.config import DataConfig
from minimind.data import IGNORE, held_out_texts, is_held_out, make_loader, validation_batches
from minimind.data import stream as stream_module
from minimind.errors import ConfigError, DataError

TOKENIZER = byte_tokenizer()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(0)
    for name, documents in (("laws", 90), ("poems", 300)):
        rows = [{"text": f"{name}{i}" + "字" * chance.randrange(60)} for i in range(documents)]
        write(folder / f"{name}.jsonl", rows)
    chats = [
        {"messages": [{"role": "user", "content": f"问题{i}"},
                      {"role": "assistant", "content": "答" * chance.randrange(1, 30)}]}
        for i in range(120)
    ]  # fmt: skip
    write(folder / "chats.jsonl.txt", chats)
    (folder / "chats.jsonl.txt").rename(folder / "chats.data")
    pairs = [{"prompt": f"问{i}", "chosen": "好" * chance.randrange(1, 9), "rejected": "坏"}
             for i in range(60)]  # fmt: skip
    write(folder / "pairs.data", pairs)
    return folder


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(stream_module, "MIN_WINDOW_BYTES", 2_000)


def write(path, rows):
    path.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"
    )


def config_of(corpus, kind, **changes):
    names = {"text": ("laws.jsonl", "poems.jsonl"), "chat": ("chats.data",),
             "preference": ("pairs.data",)}  # fmt: skip
    train = tuple(str(corpus / name) for name in names[kind])
    given_ = {"sequence_length": 48, "shuffle_mb": 0, "epochs_limit": 2} | changes
    return DataConfig(train=train, kind=kind, **given_)


def loader_of(config, **changes):
    given_ = {"batch_rows": 4, "micro_batch_rows": 2, "seed": 7} | changes
    return make_loader(config, TOKENIZER, **given_)


def flat(step):
    """A step as nested lists, rows in order, without padding: independent of the micro-batches."""
    rows = []
    for batch in step:
        for i in range(batch.rows):
            ids, labels = batch.input_ids[i].tolist(), batch.labels[i].tolist()
            while ids and ids[-1] == TOKENIZER.endoftext_id and labels[-1] == IGNORE:
                ids.pop()
                labels.pop()
            rows.append((ids, labels))
    return rows


@pytest.mark.parametrize("kind", ["text", "chat", "preference"])
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(ranks=st.sampled_from([1, 2, 4]), micro=st.integers(1, 5))
def test_any_ranks_and_micro_batches_give_the_same_rows(corpus, kind, ranks, micro):
    config = config_of(corpus, kind)
    one = [flat(step) for step in loader_of(config)]
    many = [
        loader_of(config, rank=rank, world_size=ranks, micro_batch_rows=micro)
        for rank in range(ranks)
    ]
    joined = [[row for step in steps for row in flat(step)] for steps in zip(*many, strict=True)]
    assert joined == one
    for step in loader_of(config, micro_batch_rows=micro):
        assert all(batch.rows <= micro * (1 + (kind == "preference")) for batch in step)


@pytest.mark.parametrize("kind", ["text", "chat", "preference"])
@pytest.mark.parametrize("pack", [True, False])
def test_resume_at_every_step_gives_the_identical_rest(corpus, kind, pack):
    config = config_of(corpus, kind, pack=pack, epochs_limit=1)
    whole, states = [], []
    loader = loader_of(config)
    for step in loader:
        whole.append(flat(step))
        states.append(saved(loader.state_dict()))
    for at in range(0, len(whole), max(1, len(whole) // 12)):
        resumed = loader_of(config)
        resumed.load_state_dict(states[at])
        assert [flat(step) for step in resumed] == whole[at + 1 :]
        assert resumed.counts == loader.counts


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_leaving_a_loop_and_going_on_loses_nothing(corpus):
    config = config_of(corpus, "text")
    whole = [flat(step) for step in loader_of(config)]
    loader, parts = loader_of(config), []
    for step in loader:
        parts.append(flat(step))
        if len(parts) == 3:
            break
    parts += [flat(step) for step in loader]
    assert parts == whole


@pytest.mark.parametrize("kind", ["text", "chat", "preference"])
def test_an_epoch_is_every_training_row_once_and_held_out_never(corpus, kind):
    config = config_of(corpus, kind, epochs_limit=1, validation_share=0.2)
    seen = text_of(loader_of(config))
    held = text_of([validation_batches(config, TOKENIZER, rows=999, micro_batch_rows=4)])
    copies = 2 if kind == "preference" else 1
    keys = keys_of(config, kind)
    assert any(is_held_out(key, 0.2) for key, _ in keys)
    for key, mark in keys:
        sides = (held, seen) if is_held_out(key, 0.2) else (seen, held)
        assert sides[0].count(mark) == copies, key
        assert sides[1].count(mark) == 0, key


def text_of(steps):
    """All that the model sees, in order (the ids first: rows cut characters in two)."""
    ids = [i for step in steps for batch in step for row in batch.input_ids for i in row.tolist()]
    return TOKENIZER.decode(ids)


def keys_of(config, kind):
    """What decides a row's side, and text that is found once in what the model sees of the row."""
    files = [Path(path).read_text(encoding="utf-8") for path in config.train]
    rows = [json.loads(line) for file in files for line in file.splitlines()]
    if kind == "text":
        return [(row["text"], "<|endoftext|>" + row["text"]) for row in rows]
    asked = [row["messages"][0]["content"] if kind == "chat" else row["prompt"] for row in rows]
    return [(question, question + "<|im_end|>") for question in asked]


def test_epochs_differ_in_order_and_seeds_too(corpus):
    config = config_of(corpus, "preference", epochs_limit=2, validation_share=0.0)
    rows = [row for step in loader_of(config) for row in flat(step)]
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert sorted(first) == sorted(second)
    assert first != second
    assert rows != [row for step in loader_of(config, seed=8) for row in flat(step)]


def test_weights_decide_the_share_of_bytes(corpus):
    config = config_of(corpus, "text", weights=(3.0, 1.0), epochs_limit=None, pack=False)
    laws = poems = 0
    for number, step in enumerate(loader_of(config)):
        for ids, _ in flat(step):
            text = TOKENIZER.decode(ids, skip_special_tokens=True)
            laws += len(ids) * text.startswith("laws")
            poems += len(ids) * text.startswith("poems")
        if number == 300:
            break
    assert 2.2 < laws / poems < 3.8  # rows are cut at 48 tokens, lines are not


@pytest.mark.parametrize("seed", range(5))
def test_every_file_has_its_share_from_the_first_rows_on(corpus, seed):
    loader = loader_of(config_of(corpus, "text", epochs_limit=1), seed=seed)
    sizes = [(corpus / name).stat().st_size for name in ("laws.jsonl", "poems.jsonl")]
    quarter = loader.rows_per_epoch() // 4 // 4
    for _ in zip(range(quarter), loader, strict=False):
        pass
    read = loader.state_dict()["stream"]["emitted"]
    shares = [one / size for one, size in zip(read, sizes, strict=True)]
    assert max(shares) - min(shares) < 0.1, shares


def test_default_weights_end_a_pass_together(corpus):
    loader = loader_of(config_of(corpus, "text", epochs_limit=None))
    for _ in zip(range(60), loader, strict=False):
        epochs = [place["epoch"] for place in loader.state_dict()["stream"]["sources"]]
        assert max(epochs) - min(epochs) <= 1


@pytest.mark.parametrize("kind", ["text", "chat", "preference"])
def test_rows_per_epoch(corpus, kind):
    loader = loader_of(config_of(corpus, kind, epochs_limit=1))
    assert loader.rows_per_epoch() == sum(
        sum(batch.rows for batch in step) // (1 + (kind == "preference")) for step in loader
    )


def test_chat_learns_answers_only(corpus):
    config = config_of(corpus, "chat", epochs_limit=1, sequence_length=256)
    for step in loader_of(config):
        for batch in step:
            learnt = batch.labels[batch.labels != IGNORE].tolist()
            text = TOKENIZER.decode(learnt).replace("<|im_end|>", "").replace("\n", "")
            assert set(text) == {"答"}


def test_validation_is_the_same_every_time_and_may_be_named(corpus, tmp_path):
    config = config_of(corpus, "text", validation_share=0.1)
    first = validation_batches(config, TOKENIZER, rows=8, micro_batch_rows=3)
    again = validation_batches(config, TOKENIZER, rows=8, micro_batch_rows=3)
    assert [batch.rows for batch in first] == [3, 3, 2]
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first, again, strict=True))
    write(tmp_path / "named.jsonl", [{"text": "别处的文字"}])
    named = replace(config, validation=(str(tmp_path / "named.jsonl"),))
    (batch,) = validation_batches(named, TOKENIZER, rows=8, micro_batch_rows=8)
    assert "别处的文字" in TOKENIZER.decode(batch.input_ids[0].tolist())
    assert held_out_texts(named) == {"named": ["别处的文字"]}
    # With validation files named, nothing is taken out of the training files.
    named_rows = loader_of(replace(named, epochs_limit=1))
    assert sum(1 for _ in named_rows) > 0
    assert named_rows.counts["documents"] == 390


def test_held_out_texts_by_domain(corpus):
    config = config_of(corpus, "text", validation_share=0.2)
    texts = held_out_texts(config)
    assert set(texts) == {"laws", "poems"}
    assert all(is_held_out(text, 0.2) for found in texts.values() for text in found)


def test_too_little_data_to_hold_any_out(tmp_path):
    write(tmp_path / "a.jsonl", [{"text": "只有一篇"}])
    config = DataConfig(train=(str(tmp_path / "a.jsonl"),), validation_share=1e-9)
    assert validation_batches(config, TOKENIZER, rows=4, micro_batch_rows=4) == []


def test_rows_with_nothing_to_learn_are_kept_and_counted(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "问" * long}, {"role": "assistant",
             "content": "答"}]} for long in (2, 500)]  # fmt: skip
    write(tmp_path / "a.jsonl", rows)
    config = DataConfig(train=(str(tmp_path / "a.jsonl"),), kind="chat", sequence_length=64,
                        validation_share=0.0, epochs_limit=1)  # fmt: skip
    loader = loader_of(config, rejects=tmp_path / "rejects.jsonl")
    assert sum(1 for _ in loader) == 1
    assert loader.counts["rejects"] == 1
    kept = json.loads((tmp_path / "rejects.jsonl").read_text())
    assert kept["line"] == 2
    assert "beyond data.sequence_length" in kept["reason"]


@pytest.mark.parametrize("epochs", [1, None])
@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        ("", "text", "empty"),
        ('{"txt": "x"}\n', "text", "Did you mean 'text'"),
        ('{"text": "x"}\n', "chat", "data.kind"),
        (json.dumps({"instruction": "问" * 99, "output": "答"}), "chat", "beyond data.sequence"),
    ],
)
def test_no_usable_row_is_an_error_that_says_why(tmp_path, content, kind, says, epochs):
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    config = DataConfig(train=(str(tmp_path / "a.jsonl"),), kind=kind, sequence_length=32,
                        epochs_limit=epochs, validation_share=0.0)  # fmt: skip
    with pytest.raises(DataError, match=says):
        next(iter(loader_of(config)))


def test_changed_data_can_not_be_resumed(corpus, tmp_path):
    write(tmp_path / "a.jsonl", [{"text": f"第{i}篇"} for i in range(50)])
    config = DataConfig(train=(str(tmp_path / "a.jsonl"),), sequence_length=16)
    loader = loader_of(config)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(DataError, match=r"data\.sequence_length was 16, is now 32"):
        loader_of(replace(config, sequence_length=32)).load_state_dict(state)
    write(tmp_path / "a.jsonl", [{"text": "别的"}])
    with pytest.raises(DataError, match="data files"):
        loader_of(config).load_state_dict(state)


def test_settings_that_contradict(corpus):
    config = config_of(corpus, "text")
    with pytest.raises(ConfigError, match="multiple of the 3 processes"):
        loader_of(config, world_size=3)
    with pytest.raises(ConfigError, match=r"data\.weights"):
        loader_of(replace(config, weights=(1.0,)))
    with pytest.raises(ConfigError, match="above 0"):
        loader_of(replace(config, weights=(1.0, 0.0)))
