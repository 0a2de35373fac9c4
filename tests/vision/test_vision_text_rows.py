"""Text among rows with images: conversations and documents, in a stated share of the bytes."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from vision_doubles import seeing_run

from doubles import byte_tokenizer
from minimind import checkpoint
from minimind.cli import see
from minimind.config import DataConfig, SightConfig
from minimind.data.batch import IGNORE
from minimind.data.document import is_held_out
from minimind.data.formats import ChatRow, TextRow, parse_row
from minimind.data.image_loader import ImageLoader, image_validation_batches
from minimind.data.image_rows import read_examples
from minimind.data.images import vision_config
from minimind.data.reader import Rejects
from minimind.errors import DataError
from minimind.train.objective import NextToken
from minimind.train.run import run
from run_doubles import curve, run_directory

USER, ASSISTANT = {"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}
IMAGE_ID = 11
TOKENIZER = byte_tokenizer()


def write(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def files(seeing):
    """40 rows with images, 60 conversations, 30 documents, beside the pictures of the fixture."""
    folder = seeing.parent.parent
    pictures = sorted((folder / "pictures").iterdir())
    images = [
        {"image": f"pictures/{pictures[n % 4].name}", "concept": f"概念{n}",
         "conversations": [{"role": "user", "content": "<image>\n什么？"},
                           {"role": "assistant", "content": f"第{n}"}]}
        for n in range(40)
    ]  # fmt: skip
    chats = [
        {"messages": [{"role": "user", "content": f"问{n}？"},
                      {"role": "assistant", "content": f"答{n}。"}]}
        for n in range(60)
    ]  # fmt: skip
    texts = [{"text": f"{n:02}" + "天地玄黄" * 20} for n in range(30)]
    return {
        "images": write(folder / "mixed-images.jsonl", images),
        "chats": write(folder / "mixed-chats.jsonl", chats),
        "texts": write(folder / "mixed-texts.jsonl", texts),
    }


@pytest.fixture(scope="module")
def vision(seeing):
    return vision_config(SightConfig(encoder=str(seeing.parent.parent / "clip")))


def loader_of(vision, *train, weights=None, rows=8, micro=4, share=0.0, seed=0, **more):
    config = DataConfig(
        train=train, weights=weights, kind="image", sequence_length=96, validation_share=share,
        **more,
    )  # fmt: skip
    return ImageLoader(
        config, TOKENIZER, vision=vision, batch_rows=rows, micro_batch_rows=micro, seed=seed
    )


def words(batch, number):
    """What a row of a batch says, as text, and whether it has an image."""
    ids = batch.input_ids[number]
    kept = [i for i in ids.tolist() if i not in (IMAGE_ID, TOKENIZER.pad_id)]
    return TOKENIZER.decode(kept), bool((ids == IMAGE_ID).any())


def drawn(loader, steps):
    rows = []
    for _, step in zip(range(steps), loader, strict=False):
        rows += [words(batch, n) for batch in step for n in range(batch.rows)]
    return rows


@pytest.mark.parametrize("empty", [{}, {"image": None}, {"images": []}])
def test_rows_without_an_image(empty):
    assert parse_row(empty | {"messages": [USER, ASSISTANT]}, "image") == ChatRow([USER, ASSISTANT])
    alpaca = {"instruction": "你好", "output": "你好！"}
    assert parse_row(empty | alpaca, "image") == ChatRow([USER, ASSISTANT])
    assert parse_row(empty | {"text": "天地"}, "image") == TextRow("天地")


def test_a_share_of_the_bytes_is_text_and_a_pass_is_one_over_the_images(files, vision):
    names = files["images"], files["chats"], files["texts"]
    loader = loader_of(vision, *names, weights=(0.6, 0.2, 0.2), epochs_limit=None)
    whole = loader.rows_per_epoch()
    rows = drawn(loader, whole // 8)
    seen = [said for said, with_image in rows if with_image]
    assert 40 - 8 <= len(set(seen)) == len(seen) <= 40  # none twice before all were seen
    size = {name: sum(map(len, open(name, "rb"))) / n  # noqa: PTH123, SIM115
            for name, n in zip(names, (40, 60, 30), strict=True)}  # fmt: skip
    read = [len(seen) * size[names[0]],
            sum("问" in said for said, _ in rows) * size[names[1]],
            sum("玄黄" in said for said, _ in rows) * size[names[2]]]  # fmt: skip
    shares = [part / sum(read) for part in read]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.12)  # some rows of large ones in 80
    assert loader.counts["documents"] == len(rows)
    assert loader.counts["rows with images"] == len(seen)
    assert 0 < loader.counts["tokens of rows with images"] < loader.counts["tokens"]
    assert loader_of(vision, files["images"]).rows_per_epoch() == 40


def test_a_batch_of_both(files, vision, seeing):
    """Rows of text have zeros for features, and the model reads them as it does without eyes."""
    loader = loader_of(vision, files["images"], files["chats"], weights=(0.5, 0.5), micro=8)
    (batch,) = next(iter(loader))
    assert batch.image_features is not None
    assert batch.image_features.shape == (8, 1, 16, 32)
    model, _ = checkpoint.load(seeing)
    plain = model(batch.input_ids).logits
    both = model(batch.input_ids, image_features=batch.image_features).logits
    kinds = [words(batch, n)[1] for n in range(8)]
    assert True in kinds
    assert False in kinds
    for n, with_image in enumerate(kinds):
        assert batch.image_features[n].any() == with_image
        assert torch.equal(plain[n], both[n]) != with_image
        learnt = batch.labels[n][batch.labels[n] != IGNORE].tolist()
        assert TOKENIZER.decode(learnt).startswith("第" if with_image else "答")


def test_text_alone_in_a_micro_batch_gives_the_projector_zeros(files, vision, seeing):
    """Zeros, not nothing: ranks add gradients up, and one may have met no image."""
    loader = loader_of(vision, files["images"], files["chats"], weights=(0.2, 0.8), micro=1)
    text = next(b for step in loader for b in step if not words(b, 0)[1])
    model, _ = checkpoint.load(seeing)
    NextToken()(model, text).sum.backward()
    sight, words_grad = model.multi_modal_projector, model.model.embed_tokens.weight.grad
    assert sight is not None
    assert sight.linear_1.weight.grad is not None
    assert not sight.linear_1.weight.grad.any()
    assert words_grad is not None
    assert words_grad.any()


def test_a_long_text_is_read_in_other_pieces_each_time(files, vision):
    loader = loader_of(vision, files["images"], files["texts"], weights=(0.3, 0.7))
    pieces = [said for said, with_image in drawn(loader, 30) if not with_image]
    assert len(pieces) > 60 > len(set(pieces)) / 2
    assert {len(set(piece) & set("天地玄黄")) for piece in pieces} == {4}
    assert any(piece[:1].isdigit() for piece in pieces)
    assert any(not piece[:1].isdigit() for piece in pieces)


def test_held_out_rows(files, vision):
    """Images by their concept, text by its hash; other text among them, the same images."""
    config = DataConfig(
        train=(files["images"], files["chats"]), weights=(0.7, 0.3), kind="image",
        sequence_length=96, validation_share=0.3,
    )  # fmt: skip

    def sets(config):
        found = image_validation_batches(
            config, TOKENIZER, vision=vision, rows=100, micro_batch_rows=100
        )
        return {name: [words(b, n) for b in batches for n in range(b.rows)]
                for name, batches in found.items()}  # fmt: skip

    held = sets(config)
    assert {with_image for _, with_image in held[""]} == {True}
    assert {with_image for _, with_image in held["text"]} == {False}
    assert len(held[""]) == sum(is_held_out(f"概念{n}", 0.3) for n in range(40))
    assert len(held["text"]) == sum(is_held_out(f"问{n}？", 0.3) for n in range(60))
    alone = sets(replace(config, train=(files["images"],), weights=None))
    assert alone == {"": held[""]}
    named = replace(config, train=(files["images"],), weights=None, validation=(files["chats"],))
    assert list(sets(named)) == ["text"]

    loader = loader_of(vision, *config.train, weights=(0.7, 0.3), share=0.3)
    trained = set(drawn(loader, 40))
    assert trained.isdisjoint(held[""] + held["text"])
    assert len(trained) + len(held[""]) + len(held["text"]) == 100


def test_a_position_is_taken_up_exactly(files, vision):
    names = files["images"], files["chats"], files["texts"]
    straight = loader_of(vision, *names, weights=(0.5, 0.2, 0.3))
    steps = iter(straight)
    for _ in range(7):
        next(steps)
    state = copy.deepcopy(straight.state_dict())
    again = loader_of(vision, *names, weights=(0.5, 0.2, 0.3))
    again.load_state_dict(state)
    for _, one, other in zip(range(9), steps, again, strict=False):
        assert all(torch.equal(a.input_ids, b.input_ids) and torch.equal(a.labels, b.labels)
                   for a, b in zip(one, other, strict=True))  # fmt: skip
    assert again.counts == straight.counts
    with pytest.raises(DataError, match="data weights was"):
        loader_of(vision, *names, weights=(0.6, 0.2, 0.2)).load_state_dict(state)
    with pytest.raises(DataError, match="version 1, not 2"):
        again.load_state_dict(state | {"version": 1})


def test_rows_that_name_no_image_and_images_that_nobody_asks_about(files, vision, tmp_path):
    bad = [{"text": "看<image>"},
           {"messages": [USER | {"content": "<image>\n什么？"}, ASSISTANT]},
           {"image": "a.png", "messages": [USER, ASSISTANT]}]  # fmt: skip
    names = files["images"], write(tmp_path / "bad.jsonl", bad)
    loader = loader_of(vision, *names, weights=(0.5, 0.5))
    assert dict(loader.rejects.counts) == {
        "the row says <image> and names no image": 2,
        "the messages have 0 <image>, the row names 1 images": 1,
    }
    assert f"{tmp_path / 'bad.jsonl'}:1: " in loader.rejects.first
    with pytest.raises(DataError, match=r"no row with an image in a whole pass.*'chat' or 'text'"):
        loader_of(vision, files["chats"], files["texts"])
    with pytest.raises(DataError, match="3 rows could not be used"):
        loader_of(vision, write(tmp_path / "bad.jsonl", bad), files["texts"])


def test_a_run_tells_both_and_forgets_neither(tmp_path, files, seeing):
    encoder = seeing.parent.parent / "clip"
    config = seeing_run(tmp_path, encoder, name="both", steps=4, train="all")
    data = replace(
        config.data, train=(files["images"], files["chats"]), weights=(0.5, 0.5),
        validation_share=0.3,
    )  # fmt: skip
    run(replace(config, data=data, log=replace(config.log, validate_every=4)))
    directory = run_directory(config)
    line = next(line for line in curve(directory) if "validation_loss" in line)
    assert line["validation_loss"] > 0
    assert line["validation_text_loss"] > 0
    assert line["validation_text_bits_per_byte"] > 0
    used = json.loads((directory / "ledger.json").read_text(encoding="utf-8"))["used"]
    assert 0 < used["rows with images"] < used["documents"] == 16


def test_pictures_are_looked_at_and_text_is_passed_over(files, seeing, tmp_path, capsys):
    both = seeing.parent.parent / "both.jsonl"
    rows = [line for name in ("images", "chats") for line in open(files[name], encoding="utf-8")]  # noqa: PTH123, SIM115
    both.write_text("".join(rows), encoding="utf-8")
    assert len(read_examples([str(both)], Rejects())) == 40
    with pytest.raises(DataError, match="no row with an image"):
        read_examples([files["chats"]], Rejects())
    see.main([str(seeing), str(both), "--held-out-share", "0", "--json"])
    (scores,) = json.loads(capsys.readouterr().out)
    assert scores["pictures"] == 40
