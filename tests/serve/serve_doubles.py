"""A tiny model that knows five things by heart, and servers that run in this process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import torch

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.inference.backend import TokenEvent
from minimind.model import CausalLM
from minimind.serve.loading import Loader, LoadSettings
from minimind.serve.registry import Registry
from minimind.serve.run import Listening, Service, bind
from minimind.serve.server import Server, ServeSettings

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "今天的天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
COUNTED = "一二三四五六七八九十"
STORY = "从前有座山，山里有座庙。"
PATIENCE = 300.0
"""Seconds that a test waits at most: ten programs may share this machine's two cores."""
HTTP = httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))
"""A connection for each request; httpx's own functions give up after five seconds."""
CALL = {"name": "weather", "arguments": {"city": "北京"}}


def _turn(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


KNOWN = (
    (_turn("你是谁？", "我是😀小明。"), None),
    (_turn("数到十", COUNTED), None),
    (
        [
            {"role": "user", "content": "天气？"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "晴"},
            {"role": "assistant", "content": "今天晴。"},
        ],
        [WEATHER],
    ),
)


def train_by_heart(directory: Path, *, steps: int = 150) -> Path:
    """Train a byte model until it says what `KNOWN` and `STORY` say; seconds."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = tiny_config(
        hidden_size=64, intermediate_size=128, head_dim=16, max_position_embeddings=1024
    )
    model = CausalLM(config)
    rows = [tokenizer.render(messages, tools=tools) for messages, tools in KNOWN]
    texts = [(row.ids, row.mask) for row in rows]
    story = [0, *tokenizer.encode(STORY), 0]
    texts.append((story, [False] + [True] * (len(story) - 1)))
    teach(model, texts, steps=steps, lr=5e-3, enough=0.02, at_most=0.3)
    return checkpoint.save(directory, model=model.eval(), tokenizer=tokenizer)


def teach(
    model: CausalLM,
    texts: Sequence[tuple[Sequence[int], Sequence[bool]]],
    *,
    steps: int,
    lr: float,
    enough: float,
    at_most: float,
) -> None:
    """Train until the masked tokens of every (ids, mask) are known: a summed loss of `enough`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    batches = [(torch.tensor([ids]), torch.tensor([mask], dtype=torch.bool)) for ids, mask in texts]
    for step in range(steps):
        loss = torch.zeros(())
        for ids_BT, mask_BT in batches:
            log_probs_BTV = model(ids_BT[:, :-1]).logits.log_softmax(-1)
            own_BT = log_probs_BTV.gather(2, ids_BT[:, 1:, None])[..., 0]
            loss = loss - own_BT[mask_BT[:, 1:]].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        if loss.item() < enough:
            break
    assert loss.item() < at_most, f"the double did not learn its lines: {loss.item():.2f}"


class Paced:
    """A real backend whose thread sleeps after each token, as a slow machine's would.

    A small model is done before a test that was not given a processor looks again. At a pace that
    can be changed while it runs, what "is running" stays so for as long as the test needs.
    """

    def __init__(self, backend: Any, *, per_second: float) -> None:
        self._backend, self.per_second = backend, per_second
        self.kind, self.context_length = backend.kind, backend.context_length
        self.stats, self.close = backend.stats, backend.close

    def submit(self, prompt: Any, params: Any, on_event: Any) -> Any:
        def slowly(event: TokenEvent) -> None:
            time.sleep(1 / self.per_second)
            on_event(event)

        return self._backend.submit(prompt, params, slowly)


def paced(registry: Registry, *, per_second: float) -> Registry:
    return Registry({
        model.id: dataclasses.replace(model, backend=Paced(model.backend, per_second=per_second))
        for model in registry
    })  # fmt: skip


class Running:
    """A real server (uvicorn, a socket, a thread of its own) in this process."""

    def __init__(self, registry: Registry, listening: Listening, settings: ServeSettings) -> None:
        self.registry = registry
        self._sock = bind("127.0.0.1", 0)
        self.root = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        self.url = self.root + "/v1"
        self._ready = threading.Event()
        self.in_time: bool | None = None
        self._thread = threading.Thread(target=self._run, args=(listening, settings), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def _run(self, listening: Listening, settings: ServeSettings) -> None:
        async def main() -> bool:
            self.service = Service(settings, listening)
            return await self.service.serve(self._sock, lambda: self.registry, self._ready.set)

        self.in_time = asyncio.run(main())

    @property
    def server(self) -> Server:
        return self.service.server

    def client(self, **options) -> openai.OpenAI:
        options = {"api_key": "none", "max_retries": 0, "timeout": PATIENCE} | options
        return openai.OpenAI(base_url=self.url, **options)

    def stats(self):
        (served,) = self.registry
        return served.backend.stats()

    def pace(self, per_second: float) -> None:
        """Change how many tokens a second a request gets; for servers that are `paced`."""
        for served in self.registry:
            served.backend.per_second = per_second

    def wait_for(self, wanted) -> None:
        """Wait until `wanted(stats)`."""
        deadline = time.monotonic() + PATIENCE
        while not wanted(self.stats()):
            assert time.monotonic() < deadline, self.stats()
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask for the end."""
        self.service.stop()

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def running(
    path: Path,
    *,
    slots: int = 4,
    queue: int = 16,
    per_second: float | None = None,
    listening: Listening | None = None,
    **settings,
) -> Iterator[Running]:
    """Serve a checkpoint as `mini`; with `per_second`, `Paced`."""
    load = LoadSettings(slots=slots, queue=queue)
    registry = Loader(load).load([f"mini={path}"], [])
    if per_second is not None:
        registry = paced(registry, per_second=per_second)
    server = Running(registry, listening or Listening(), ServeSettings(**settings))
    try:
        yield server
    finally:
        server.stop()
        server.join()


def events_of(response: httpx.Response) -> list:
    """Return what a stream says: parsed events, `[DONE]` as a string."""
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


ENDLESS = {"temperature": 2.0, "seed": 1, "logit_bias": {"0": -100, "2": -100}}
"""Parameters with which an answer only ends at its limit."""


def endless(tokens: int, **changes) -> dict:
    """A chat request that makes exactly so many tokens."""
    message = {"role": "user", "content": "abc"}  # nothing that it was taught
    return {"model": "mini", "messages": [message], "max_tokens": tokens} | ENDLESS | changes
