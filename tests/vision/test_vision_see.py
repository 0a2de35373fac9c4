"""`minimind see`: figures whose value is known, and the page."""

import json

import pytest
import torch
from vision_doubles import COLOURS

from minimind import checkpoint
from minimind.cli import see
from minimind.data.image_rows import read_examples
from minimind.data.reader import Rejects
from minimind.errors import DataError, UserError
from minimind.eval.vision import measure


def examples_of(seeing):
    return read_examples([str(seeing.parent.parent / "rows.jsonl")], Rejects())


def test_one_that_knows_its_pictures_chooses_right(seeing):
    model, tokenizer = checkpoint.load(seeing)
    scores, choices = measure(model, tokenizer, examples_of(seeing), name="colours")
    assert scores.choice is not None
    assert scores.choice_plain is not None
    assert scores.pictures == scores.choice.n == 4
    assert scores.choice_plain.value == 1.0
    assert scores.choice_plain.low == pytest.approx(0.510, abs=1e-3)  # Wilson's, of 4 in 4
    # It never read a caption without a picture, so what pictures add to one may be odd.
    hits = [max(choice.gains) == choice.gains[0] for choice in choices]
    assert scores.choice.value == sum(hits) / 4 >= 0.5
    assert scores.right < 0.1 < scores.wrong
    assert scores.wrong - scores.right == pytest.approx(scores.wrong_minus_right.value)
    assert scores.wrong_minus_right.low > 0
    for name, choice in zip(COLOURS, choices, strict=True):
        assert choice.captions[0] == name
        assert sorted(choice.captions) == sorted(COLOURS)
        assert choice.gains[0] > 0


def test_one_that_sees_the_same_everywhere_chooses_nothing(seeing):
    """A projector that says the same of every picture: no picture is better than another."""
    model, tokenizer = checkpoint.load(seeing)
    assert model.multi_modal_projector is not None
    torch.nn.init.zeros_(model.multi_modal_projector.linear_2.weight)
    scores, choices = measure(model, tokenizer, examples_of(seeing), name="dark")
    gap = scores.wrong_minus_right
    assert (gap.value, gap.low, gap.high) == pytest.approx((0, 0, 0), abs=1e-5)
    assert all(
        dict(zip(c.captions, c.gains, strict=True))
        == pytest.approx(dict(zip(choices[0].captions, choices[0].gains, strict=True)), abs=1e-4)
        for c in choices
    )
    assert scores.choice is not None
    assert scores.choice.value == 0.25  # the same caption for all four


def test_too_few_to_choose_among(seeing):
    model, tokenizer = checkpoint.load(seeing)
    examples = examples_of(seeing)
    scores, choices = measure(model, tokenizer, examples[:3], name="few")
    assert scores.choice is scores.choice_plain is None
    assert scores.wrong_minus_right.low > 0
    assert {len(choice.captions) for choice in choices} == {3}
    assert scores.right == pytest.approx(
        measure(model, tokenizer, examples[:2], name="two")[0].right, abs=1
    )
    with pytest.raises(DataError, match="one: all of its 1 pictures have the same caption"):
        measure(model, tokenizer, examples[:1], name="one")
    model.config = type(model.config)(**{**vars(model.config), "vision": None})
    with pytest.raises(DataError, match="can't see images"):
        measure(model, tokenizer, examples_of(seeing), name="blind")


def test_the_verb_prints_figures_and_writes_a_page(seeing, tmp_path, capsys):
    data = str(seeing.parent.parent / "rows.jsonl")
    page = tmp_path / "see.html"
    see.main([str(seeing), data, "--held-out-share", "0", "--page", str(page), "--json"])
    (scores,) = json.loads(capsys.readouterr().out)
    assert scores["name"] == "pictures: trained concepts"
    assert scores["choice_plain"]["value"] == scores["choice_plain"]["high"] == 1.0
    hits = round(4 * scores["choice"]["value"])
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == text.count("data:image/webp;base64,") == 4
    assert text.count("class='first right'") == hits
    assert text.count(" ✓</b>") == 4
    assert text.count("class='said right'") == 4
    assert "学过的概念 trained concepts" in text
    assert "src='http" not in text

    see.main([str(seeing), data, "--held-out-share", "0"])
    assert "51% 100%" in capsys.readouterr().out  # whole, in 80 columns
    with pytest.raises(UserError, match="no set has pictures of two concepts"):
        see.main([str(seeing), data, "--style", "nobody"])


def test_a_set_with_three_captions_has_no_one_of_four(seeing, tmp_path, capsys):
    """Five concepts that are called three things: what can be said is said, nothing ends."""
    folder = seeing.parent.parent
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]
    rows = [row | {"concept": f"{n}"} for n, row in enumerate([*rows[:3], *rows[:2]])]
    data, page = folder / "three.jsonl", tmp_path / "see.html"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    see.main([str(seeing), str(data), "--held-out-share", "0", "--page", str(page), "--json"])
    (scores,) = json.loads(capsys.readouterr().out)
    assert scores["pictures"] == 5
    assert scores["choice"] is scores["choice_plain"] is None
    assert scores["wrong_minus_right"]["low"] > 0
    text = page.read_text(encoding="utf-8")
    assert text.count("fewer than<br>four captions") == 2
    assert text.count("<li") == 15
    see.main([str(seeing), str(data), "--held-out-share", "0"])
    assert "four" in capsys.readouterr().out
    data.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[3]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="no wrong one to compare with"):
        see.main([str(seeing), str(data), "--held-out-share", "0"])
