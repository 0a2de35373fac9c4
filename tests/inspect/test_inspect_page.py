"""The page in a real Chromium, and `minimind inspect` from the command line."""

import json
import re

import pytest
import torch

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.cli import main
from minimind.inspect import logit_lens, read, read_ids, token_odds, write_page
from minimind.inspect.page import render_page
from minimind.inspect.words import WORDS
from minimind.model import CausalLM

EVIL = '</script><img src="http://example.com/a.png" onerror="window.hacked=1">'
LOOP = "abcd" * 5


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        model = CausalLM(tiny_config(max_position_embeddings=256))
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 2:
                    weight.normal_(std=0.2)
        checkpoint.save(folder / name, model=model, tokenizer=byte_tokenizer())
    return folder


@pytest.fixture
def opened(chromium, tmp_path):
    """Return a function that writes a page and opens it; it must ask nothing and throw nothing."""
    problems = []
    contexts = []

    def open_page(readings, *, width=1280, locale="en-US", scheme="light"):
        write_page(tmp_path / "page.html", readings)
        context = chromium.new_context(
            locale=locale, color_scheme=scheme, viewport={"width": width, "height": 900}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(300_000)
        page.on("request", lambda r: None if r.url.startswith(("file:", "blob:"))
                else problems.append(r.url))  # fmt: skip
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        page.locator("#attention .body[data-ready]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def reading(folder, name="one", text=LOOP):
    return read(*checkpoint.load(folder / name), text, name=name)


def test_hovering_selecting_and_language(tiny_checkpoints, opened):
    one = reading(tiny_checkpoints)
    page = opened([one])
    odds = token_odds(one)
    token = page.locator("#tokens .token").nth(7)
    token.hover()
    detail = page.locator("#tokens .detail").inner_text()
    assert "token 8" in detail
    assert f"{odds[7].bits:.1f} bits" in detail
    for alternative in odds[7].alternatives:
        assert alternative.text in detail
    token.click()  # held: pointing elsewhere changes nothing
    page.locator("#tokens .token").nth(2).hover()
    assert "token 8" in page.locator("#tokens .detail").inner_text()

    assert page.locator("#attention .map").count() == 8
    page.select_option("#layer", "1")
    page.select_option("#head", "2")
    assert page.get_attribute("#attention .map >> nth=6", "aria-pressed") == "true"
    page.locator("#attention .token").nth(9).click()
    shares = page.locator("#attention .token").evaluate_all("nodes => nodes.map(n => n.title)")
    largest = int(one.attention_LHTS[1, 2, 9].argmax())
    share = 100 * float(one.attention_LHTS[1, 2, 9, largest])
    assert abs(float(shares[largest].strip("≈ %")) - share) < 1.6
    assert set(shares[10:]) == {""}  # nothing looks ahead

    lens = logit_lens(one)
    cell = page.locator("#lens td[data-t='4'][data-at='1']")
    cell.hover()
    assert f"rank {int(lens.next_rank_LT[1, 4])}" in page.locator("#lens .readout").inner_text()
    verdict = page.locator("#loops .verdict").inner_text()
    assert "from token 6 to 21 the same stretch comes again, 4 long" in verdict
    page.locator("#loops .heads button").nth(5).click()
    assert (page.input_value("#layer"), page.input_value("#head")) == ("1", "1")
    page.click("#language")
    assert "逐个 token" in page.locator("#tokens h2").inner_text()
    assert "同样的一段（长 4）" in page.locator("#loops .verdict").inner_text()


def test_narrow_dark_and_what_a_model_wrote_stays_text(tiny_checkpoints, opened):
    page = opened([reading(tiny_checkpoints, text=EVIL)], width=390, locale="zh-CN", scheme="dark")
    assert "看看 one 的内部" in page.locator("h1").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "".join(page.locator("#tokens .token").all_inner_texts()[1:]).replace("␣", " ") == EVIL
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_two_models_beside_each_other(tiny_checkpoints, opened):
    both = [reading(tiny_checkpoints, name) for name in ("one", "two")]
    page = opened(both)
    page.locator("#beside .token").nth(3).hover()
    detail = page.locator("#beside .detail").inner_text()
    for each in both:
        assert f"{token_odds(each)[4].bits:.1f} bits" in detail
    page.click("#which button >> nth=1")
    page.locator("#attention .body[data-ready]").wait_for()
    page.locator("#tokens .token").nth(4).hover()
    assert f"{token_odds(both[1])[4].bits:.1f} bits" in page.inner_text("#tokens .detail")


def test_a_single_token_makes_a_page(tiny_checkpoints):
    model, tokenizer = checkpoint.load(tiny_checkpoints / "one")
    assert "lens" in render_page([read_ids(model, tokenizer, ids=[0], pieces=["a"])])


def test_every_word_is_there_twice_with_the_same_places():
    for key, (chinese, english) in WORDS.items():
        assert chinese, key
        assert set(re.findall(r"{\w+}", chinese)) == set(re.findall(r"{\w+}", english)), key


def run(capsys, *argv):
    code = main(["inspect", *map(str, argv)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_command_writes_a_page_and_prints_figures(tiny_checkpoints, tmp_path, capsys):
    out = tmp_path / "page.html"
    args = (tiny_checkpoints / "one", "--text", "山水", "--generate", 8, "--out", out)
    code, table, _ = run(capsys, *args)
    assert code == 0
    assert "bits a token after the embedding and each layer" in table
    assert f"{out.stat().st_size / 1e6:.2f} MB" in table.replace("\n", "")
    code, told, _ = run(capsys, *args, "--json", "--layers", 1, "--heads", 0, 3)
    figures = json.loads(told)["models"][0]
    assert figures["generated_from"] == 7  # the opening mark and six bytes
    assert 7 < len(figures["tokens"]) <= 15
    assert {(h["layer"], h["head"]) for h in figures["repetition"]["heads"]} == {(1, 0), (1, 3)}
    both = (tiny_checkpoints / "one", tiny_checkpoints / "two", "--chat", "--text", "你好")
    code, told, _ = run(capsys, *both, "--out", out, "--json")
    assert json.loads(told)["beside"]["names"] == ["one", "two"]


def test_what_is_wrong_is_said(tiny_checkpoints, tmp_path, capsys):
    one = tiny_checkpoints / "one"
    (tmp_path / "chat.json").write_text('{"messages": "no"}')
    wrong = {
        (one, "--text", " "): "--text is empty",
        (one, "--text", "字" * 100): "the text has 301 tokens, 45 more than the model's context",
        (one,): "give one of --text, --file, --messages",
        (one, "--text", "a", "--layers", "2"): "--layers 2: the model has 2 layers",
        (one, "--text", "a", "--heads", "9"): "--heads 9: the model has 4 heads",
        (tmp_path / "none", "--text", "a"): "none",
        (one, "--messages", tmp_path / "chat.json"): "wants a list of messages",
        (one, "--file", tmp_path / "no.txt"): "--file",
        (one, "--text", "a", "--out", tmp_path / "no" / "page.html"): "does not exist",
        (one, one, one, "--text", "a"): "3 checkpoints",
    }
    for argv, message in wrong.items():
        code, _, error = run(capsys, *argv)
        assert code == 2, argv
        assert message in error
