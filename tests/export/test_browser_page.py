"""examples/browser in a real headless Chromium: it loads, answers, stops, and asks no other host.

Needs chromium, playwright (Python) and `npm ci && npm run vendor` in examples/browser; skipped
where one is missing, unless MINIMIND_BROWSER_TESTS=require (CI), where that is a failure.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.inference import Engine, SamplingParams
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
PATIENCE = 300_000  # milliseconds; a shared machine may take long to start a browser


def need(what: object, reason: str) -> None:
    if not what and os.environ.get("MINIMIND_BROWSER_TESTS") == "require":
        pytest.fail(reason)
    if not what:
        pytest.skip(reason)


@dataclass
class Chat:
    """A page with an export of `model`, and what it asked other hosts for."""

    page: Any
    address: str
    model: CausalLM
    tokenizer: Tokenizer
    export: Path
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, query: str) -> None:
        self.page.goto(f"{self.address}?{query}")
        self.page.wait_for_selector(
            "body[data-state=ready], body[data-state=failed]", timeout=PATIENCE
        )

    def send(self, text: str) -> None:
        self.page.fill("#prompt", text)
        self.page.press("#prompt", "Enter")

    def ask(self, text: str) -> tuple[str, list[int]]:
        """Return the answer's text and ids."""
        self.send(text)
        self.page.wait_for_selector("body[data-state=ready]", timeout=PATIENCE)
        turn = self.page.locator(".turn.assistant").last
        ids = turn.get_attribute("data-ids").split(",")
        return turn.locator(".bubble").text_content(), [int(one) for one in ids]


def letters_only_model() -> tuple[CausalLM, Tokenizer]:
    """A model with random weights whose likeliest token is a Latin letter; it never stops."""
    torch.manual_seed(3)
    model = CausalLM(
        tiny_config(initializer_range=0.2, tie_word_embeddings=False, max_position_embeddings=4096)
    ).eval()
    tokenizer = byte_tokenizer()
    letters = tokenizer.encode("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert model.lm_head is not None
    with torch.no_grad():
        kept = model.lm_head.weight[letters].clone()
        model.lm_head.weight.zero_()
        model.lm_head.weight[letters] = kept
    return model, tokenizer


@pytest.fixture(scope="module")
def chat(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        need(importlib.util.find_spec(module), f"the package {module} is not installed")
    need(
        (EXAMPLE / "vendor" / "transformers.min.js").exists(),
        "examples/browser/vendor is missing: npm ci && npm run vendor there",
    )
    from minimind.export.onnx import export_onnx

    where = tmp_path_factory.mktemp("browser")
    model, tokenizer = letters_only_model()
    checkpoint.save(where / "checkpoint", model=model, tokenizer=tokenizer)
    export = where / "out"
    export_onnx(where / "checkpoint", export, dtypes=("fp32", "int8"), verify=False)
    server = load_serve().make_server(export, port=0, quiet=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    page = chromium.new_page(locale="zh-CN")
    page.set_default_timeout(PATIENCE)
    found = Chat(page, address, model, tokenizer, export)
    page.on("request", lambda request: note(found, request.url))
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    yield found
    page.close()
    server.shutdown()
    server.server_close()


def note(chat: Chat, url: str) -> None:
    if not url.startswith((chat.address, "data:", "blob:")):
        chat.foreign.append(url)


def load_serve() -> Any:
    spec = importlib.util.spec_from_file_location("browser_serve", EXAMPLE / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(chat: Chat, messages: list[dict[str, Any]], count: int) -> list[int]:
    prompt = chat.tokenizer.render(messages, add_generation_prompt=True).ids
    params = SamplingParams(temperature=0.0, repetition_penalty=1.0, max_new_tokens=count)
    return Engine(chat.model).generate([prompt], params)[0]


def test_greedy_answers_of_two_turns_are_our_engines(chat: Chat) -> None:
    chat.open("dtype=fp32&temperature=0&penalty=1&limit=24&threads=1&lang=en")
    assert "model.onnx" in chat.page.inner_text("#model")
    messages: list[dict[str, Any]] = [{"role": "user", "content": "你好，world！"}]
    text, ids = chat.ask("你好，world！")
    assert ids == ours(chat, messages, 24)
    assert text == chat.tokenizer.decode(ids)
    # A spelled control token stays text: it can't end the turn.
    messages += [
        {"role": "assistant", "content": text},
        {"role": "user", "content": "再说一次<\u200b|im_end|>"},
    ]
    _, ids = chat.ask("再说一次<|im_end|>")
    assert ids == ours(chat, messages, 24)
    assert "24 tokens" in chat.page.locator(".turn.assistant .stats").last.inner_text()
    assert float(chat.page.locator(".turn.assistant").last.get_attribute("data-rate")) > 0
    assert chat.foreign == []
    assert chat.errors == []


def test_the_int8_file_is_the_default_and_runs_as_in_onnxruntime(chat: Chat) -> None:
    from minimind.export.onnx_session import OnnxSession

    chat.open("temperature=0&penalty=1&limit=24&threads=1")
    assert chat.page.get_attribute("html", "lang") == "zh"
    assert "model_quantized.onnx" in chat.page.inner_text("#model")
    _, ids = chat.ask("从前有一座山")
    prompt = chat.tokenizer.render(
        [{"role": "user", "content": "从前有一座山"}], add_generation_prompt=True
    ).ids
    session = OnnxSession(chat.export / "onnx/model_quantized.onnx")
    assert ids == session.greedy(prompt, steps=24)
    chat.page.click("#fresh")
    assert chat.page.locator(".turn").count() == 0
    chat.page.click("#language")
    assert chat.page.inner_text("#send") == "Send"
    assert chat.foreign == []
    assert chat.errors == []


def test_stop_ends_an_answer_and_the_next_one_works(chat: Chat) -> None:
    chat.open("temperature=0&limit=3000&threads=1&lang=en")
    chat.send("go on")
    chat.page.wait_for_function(
        "document.querySelector('.turn.assistant .stats')?.textContent.includes('tokens/s')",
        timeout=PATIENCE,
    )
    chat.page.click("#send")
    chat.page.wait_for_selector("body[data-state=ready]", timeout=PATIENCE)
    turn = chat.page.locator(".turn.assistant").last
    assert len(turn.get_attribute("data-ids").split(",")) < 3000
    assert "stopped" in turn.locator(".stats").inner_text()
    chat.open("temperature=0&limit=5&threads=1")
    assert len(chat.ask("again")[1]) == 5


def test_a_missing_model_is_said_in_words(chat: Chat) -> None:
    chat.open("model=nowhere/&lang=en")
    assert chat.page.get_attribute("body", "data-state") == "failed"
    assert "minimind export onnx" in chat.page.inner_text("#log")
    assert chat.foreign == []
