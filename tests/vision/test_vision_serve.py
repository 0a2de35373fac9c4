"""Images through the server, with OpenAI's own client."""

import base64
import sys
from pathlib import Path

import openai
import pytest

sys.path.append(str(Path(__file__).parents[1] / "serve"))

from serve_doubles import running
from test_vision_images import bomb
from vision_doubles import COLOURS, QUESTION


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def shown(*urls: str, text: str = QUESTION) -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def server(seeing):
    with running(seeing, max_body=4 << 20) as started:
        yield started


def pictures(seeing):
    folder = seeing.parent.parent / "pictures"
    return {name: uri((folder / f"{name}0.png").read_bytes()) for name in COLOURS}


def ask(server, messages, **options):
    options = {"temperature": 0, "max_tokens": 4} | options
    return server.client().chat.completions.create(model="mini", messages=messages, **options)


def test_each_picture_has_its_answer(server, seeing):
    for name, url in pictures(seeing).items():
        answer = ask(server, shown(url))
        assert answer.choices[0].message.content == name
    stream = ask(server, shown(pictures(seeing)["绿"]), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "绿"
    again = ask(server, shown(pictures(seeing)["绿"]))
    assert again.usage.prompt_tokens_details.cached_tokens > 16  # the image was read once
    assert ask(server, shown(pictures(seeing)["红"])).choices[0].message.content == "红"


def test_placeholders_in_words_are_words(server, seeing):
    """Images are counted by their parts: spelling the placeholder neither adds nor takes one."""
    url = pictures(seeing)["蓝"]
    spelt = "<image><|vision_start|><|image_pad|><|vision_end|>"
    # One token a byte here; as special tokens they would be four.
    longer = len(spelt) - len(QUESTION.encode())
    for urls in ([], [url]):
        asked, said = (
            ask(server, shown(*urls, text=text)).usage.prompt_tokens for text in (QUESTION, spelt)
        )
        assert said == asked + longer


def test_the_list_says_who_sees(server):
    (model,) = server.client().models.list()
    assert model.input_modalities == ["text", "image"]


def test_what_is_refused(server, seeing):
    url = pictures(seeing)["红"]
    for bad, why in (
        ("https://example.com/cat.png", "fetches nothing"),
        (uri(b"not an image"), "not an image of a known kind"),
        (uri(bomb(10_000, 10_000)), "10,000 x 10,000 pixels"),
        ("data:image/png;base64,%%%", "not valid base64"),
    ):
        with pytest.raises(openai.BadRequestError, match=why) as refused:
            ask(server, shown(url, bad))
        assert refused.value.param == "messages[0].content[1].image_url.url"
        assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="9 images: each takes 16 tokens") as many:
        ask(server, shown(*[url] * 9))
    assert many.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIStatusError, match="--max-body") as large:
        ask(server, shown(uri(bytes(4 << 20))))
    assert large.value.status_code == 413
    system = {"role": "system", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    with pytest.raises(openai.BadRequestError):
        ask(server, [system, *shown(url)])
    assert ask(server, shown(url)).choices[0].message.content == "红"  # it still serves


def test_a_model_without_eyes(seeing):
    with (
        running(seeing.parent.parent / "text") as blind,
        pytest.raises(openai.BadRequestError, match="can't see images") as refused,
    ):
        ask(blind, shown(pictures(seeing)["红"]))
    assert refused.value.status_code == 400
