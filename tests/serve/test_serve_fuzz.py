"""Malformed bodies by the thousand, in process: each is a 4xx, and the server goes on serving."""

import asyncio
import json
import random

import httpx
import pytest

from minimind.serve.app import create_app
from minimind.serve.loading import Loader, LoadSettings
from minimind.serve.server import Server, ServeSettings

VALID = {
    "/v1/chat/completions": {
        "model": "mini",
        "messages": [{"role": "user", "content": "数到十"}],
        "max_tokens": 1,
        "temperature": 0.5,
        "stop": ["a", "b"],
        "logit_bias": {"5": 1},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "logprobs": True,
        "top_logprobs": 2,
        "n": 1,
    },
    "/v1/completions": {
        "model": "mini",
        "prompt": "从前",
        "max_tokens": 1,
        "logprobs": 1,
        "echo": True,
    },
}
ODD = (
    None, True, False, 0, -1, 1, 0.5, 1e400, -1e400, 2**63, 10**30, "", "x", "\ud800", "\x00",
    "好" * 300, [], {}, [[]], [None], [{}], {"": ""}, [1, "a"], ["a"] * 200, [[1]] * 200,
    {"role": "user"}, {"type": "text"}, float("nan"), [0] * 3000,
    "<|im_end|>", {"content": {"content": {}}},
)  # fmt: skip


def mutated(draw: random.Random, value, depth: int = 0):
    """Return `value` with something wrong somewhere, mostly."""
    roll = draw.random()
    if isinstance(value, dict) and value and roll < 0.8:
        changed = dict(value)
        name = draw.choice(list(changed))
        kind = draw.randrange(4)
        if kind == 0:
            del changed[name]
        elif kind == 1:
            changed[draw.choice(["extra", "Model", "", "messages ", "__class__"])] = draw.choice(
                ODD
            )
        else:
            changed[name] = mutated(draw, changed[name], depth + 1)
        return changed
    if isinstance(value, list) and value and roll < 0.6:
        index = draw.randrange(len(value))
        return [*value[:index], mutated(draw, value[index], depth + 1), *value[index + 1 :]]
    return draw.choice(ODD)


def body(draw: random.Random, valid: dict) -> bytes:
    """Return a body that is malformed: as a value, as JSON, or as bytes."""
    value = valid
    for _ in range(draw.randint(1, 3)):
        value = mutated(draw, value)
    content = json.dumps(value).encode()
    roll = draw.random()
    if roll < 0.1:
        return content[: draw.randrange(len(content) + 1)]
    if roll < 0.2:
        at = draw.randrange(len(content) + 1)
        return content[:at] + draw.randbytes(draw.randint(1, 6)) + content[at:]
    if roll < 0.22:
        return draw.choice([b"[", b'{"a":', b'{"messages":[']) * draw.choice([10, 1000, 20_000])
    if roll < 0.24:
        return draw.randbytes(draw.randint(0, 300))
    return content


async def fuzz(checkpoint_dir, *, rounds: int) -> dict[int, int]:
    server = Server(ServeSettings())
    server.ready(Loader(LoadSettings(slots=4, queue=300)).load([f"mini={checkpoint_dir}"], []))
    draw = random.Random(7)
    counts: dict[int, int] = {}
    transport = httpx.ASGITransport(app=create_app(server), raise_app_exceptions=True)
    headers = {"Content-Type": "application/json"}
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for number in range(rounds):
                path, valid = draw.choice(list(VALID.items()))
                content = body(draw, valid)
                response = await client.post(path, content=content, headers=headers)
                counts[response.status_code] = counts.get(response.status_code, 0) + 1
                assert response.status_code < 500, (number, content[:500], response.text)
                if response.status_code != 200:
                    error = response.json()["error"]
                    assert error["message"], content[:500]
                    assert set(error) == {"message", "type", "param", "code"}
                    assert len(response.content) < 2000
            for path, valid in VALID.items():
                assert (await client.post(path, json=valid)).status_code == 200
        assert server.running == 0
        (served,) = server.registry
        stats = served.backend.stats()
        assert (stats.running, stats.waiting) == (0, 0)
    finally:
        server.close()
    return counts


def test_2000_malformed_bodies_leave_it_serving(checkpoint_dir):
    counts = asyncio.run(fuzz(checkpoint_dir, rounds=2000))
    assert counts[400] > 1000
    assert set(counts) <= {200, 400, 404}


@pytest.mark.slow
def test_10000_malformed_bodies_leave_it_serving(checkpoint_dir):
    counts = asyncio.run(fuzz(checkpoint_dir, rounds=10_000))
    assert counts[400] > 5000
    assert set(counts) <= {200, 400, 404}
