"""A tiny model that chats by heart, a slow backend, and pages in a real browser."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from doubles import tiny_config
from minimind import checkpoint
from minimind.model import CausalLM
from minimind.serve.registry import Registry
from minimind.serve.run import Listening
from minimind.serve.server import ServeSettings
from minimind.tokenizer import train_tokenizer

CONTEXT = 512
"""Of the test model."""
PATIENCE = 300_000  # milliseconds; a shared machine may take long

SYSTEM = "你是小明。"
WHO, ME = "你是谁？", "我是小明，很高兴认识你。"
WHERE, HOME = "你住在哪里？", "我住在山里，那里有一座庙。"
EVIL = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'
    "<b>粗</b> ![图](http://example.com/a.png) `<i>` 完"
)
WRITE, ENDLESS = "写网页", "一直说"
LOOP = "天地山水"


def need(*modules: str) -> None:
    """Skip where a package is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the package {module} is not installed")


def _chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


def train_to_chat(directory: Path, *, steps: int = 220) -> Path:
    """Train a small model until it says its lines; one of them has no end."""
    from serve_doubles import teach

    torch.manual_seed(0)
    lines = [WHO, ME, WHERE, HOME, WRITE, ENDLESS, LOOP, EVIL]
    tokenizer = train_tokenizer(lines * 3, vocab_size=400)
    chats = [
        _chat((WHO, ME), (WHERE, HOME)), _chat((WRITE, EVIL)), _chat((ENDLESS, LOOP * 40)),
        _chat((WHO, ME), (ENDLESS, LOOP * 40)),
        [{"role": "system", "content": SYSTEM}, *_chat((WHO, ME), (WHERE, HOME))],
    ]  # fmt: skip
    rows = [tokenizer.render(messages) for messages in chats]
    end = set(tokenizer.stop_ids)
    taught = []
    for row, messages in zip(rows, chats, strict=True):
        endless = messages[-2]["content"] == ENDLESS
        kept = [mask and not (endless and token in end)
                for token, mask in zip(row.ids, row.mask, strict=True)]  # fmt: skip
        taught.append((row.ids, kept))
    model = CausalLM(tiny_config(
        vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=128, head_dim=16,
        max_position_embeddings=CONTEXT,
    ))  # fmt: skip
    teach(model, taught, steps=steps, lr=6e-3, enough=0.03, at_most=0.1)
    return checkpoint.save(directory, model=model.eval(), tokenizer=tokenizer)


@contextlib.contextmanager
def serving(registry: Registry, **settings: Any) -> Iterator[Any]:
    """Serve a registry over a socket in this process."""
    from serve_doubles import Running

    server = Running(registry, Listening(drain=0.2), ServeSettings(**settings))
    try:
        yield server
    finally:
        server.stop()
        server.join()


class PagesBehind:
    """The application `minimind ui` serves, in front of `url`, and browser pages that show it."""

    def __init__(self, url: str, browser: Any, *, temperature: float = 0.0) -> None:
        from minimind.ui.answering import Sampling
        from minimind.ui.app import PageServer, bind, create_app
        from minimind.ui.client import Server

        sampling = Sampling(temperature=temperature, top_p=1.0, repetition_penalty=1.0,
                            max_tokens=400)  # fmt: skip
        self._browser = browser
        self._sock = bind("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        self._server = PageServer(create_app(Server(url=url), sampling=sampling))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._sock]}, daemon=True
        )

    def __enter__(self) -> PagesBehind:
        self._thread.start()
        deadline = time.monotonic() + PATIENCE / 1000
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE / 1000)
        self._sock.close()

    @contextlib.contextmanager
    def open(self, *, locale: str = "en-US", scheme: str = "light") -> Iterator[Shown]:
        """Open a page of its own session; it must not ask other hosts, nor throw."""
        context = self._browser.new_context(
            locale=locale, color_scheme=scheme, viewport={"width": 1280, "height": 860}
        )
        try:
            yield from self._shown(context)
        finally:
            context.close()

    def _shown(self, context: Any) -> Iterator[Shown]:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        foreign: list[str] = []
        errors: list[str] = []
        own = (self.address, "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else foreign.append(r.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(self.address)
        page.locator("#status p").wait_for()
        yield Shown(page)
        assert foreign == []
        assert errors == []


class Shown:
    """A page, by what people see on it."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def send(self, text: str) -> None:
        """Write a message; return when its answer has begun to be waited for."""
        self.page.fill("#message textarea", text)
        before = self.page.locator("#chat .user-row").count()
        self.page.press("#message textarea", "Enter")
        self.page.locator("#chat .user-row").nth(before).wait_for()

    def finish(self) -> None:
        """Wait until the answer is over."""
        self.page.wait_for_function(
            "document.querySelector('#send')?.offsetParent && "
            "!document.querySelector('#stop')?.offsetParent && "
            "!/answering|正在回答/.test(document.querySelector('#figures').innerText)"
        )

    def ask(self, text: str) -> str:
        self.send(text)
        self.finish()
        return self.answers()[-1]

    def answers(self) -> list[str]:
        rows = self.page.locator("#chat .bot-row .message-content")
        return [text.strip() for text in rows.all_inner_texts()]

    def questions(self) -> list[str]:
        rows = self.page.locator("#chat .user-row .message-content")
        return [text.strip() for text in rows.all_inner_texts()]

    def wait_for_text(self, characters: int) -> None:
        """Wait until the last answer has so many characters."""
        self.page.wait_for_function(
            "n => [...document.querySelectorAll('#chat .bot-row .message-content')]"
            ".at(-1)?.innerText.length >= n",
            arg=characters,
        )

    def tab(self, number: int) -> None:
        self.page.locator("#tabs button[role=tab]").nth(number).click()

    def figures(self) -> str:
        return self.page.locator("#figures").inner_text().strip()
