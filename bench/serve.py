"""Load on the server: clients side by side, or many requests of which some leave.

    python bench/serve.py runs/quickstart/dpo --clients 1 8 32 64 --json serve.json
    python bench/serve.py runs/quickstart/dpo --requests 1000 --disconnect 0.3

The server runs in a process of its own, started by the command line; the clients share this one and
speak HTTP over plain sockets, so that they take as little as possible of the machine they share.
Every answer has the same length: the tokens that would end one are biased away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

QUESTIONS = (
    "你是谁？",
    "写一首关于春天的诗。",
    "用“画蛇添足”造一个句子。",
    "介绍一下你自己，你会做什么？",
    "请解释“守株待兔”的意思。",
)


@dataclass
class Outcome:
    """What became of one request."""

    status: int = 0
    first: float | None = None
    seconds: float = 0.0
    tokens: int = 0
    left: bool = False
    done: bool = False


@dataclass
class Load:
    """One number of clients."""

    clients: int
    requests: int
    tokens: int
    seconds: float
    tokens_per_second: float
    first_p50: float
    first_p95: float
    errors: int
    times_one: float = 1.0


@dataclass
class Endurance:
    """Many requests, some of which leave."""

    requests: int
    answered: int
    left: int
    refused: int
    lost: int
    seconds: float
    running_after: float
    waiting_after: float
    works_after: bool
    rss_mb: list[float] = field(default_factory=list)
    rss_growth_mb: float = 0.0


class Server:
    """`minimind serve` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, ready: str) -> None:
        self.process, self.ready = process, ready
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    def rss_mb(self) -> float:
        """Return the resident memory of the process."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(checkpoint: str, options: list[str]) -> Iterator[Server]:
    """Start the server on a free port; end it with SIGTERM."""
    command = [sys.executable, "-m", "minimind", "serve", f"bench={checkpoint}", "--port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first, ready = process.stdout.readline(), process.stdout.readline()
        if not ready:
            sys.exit("the server did not start")
        yield Server(process, first.split()[2], ready.strip())
    finally:
        process.terminate()
        process.wait()


def request_body(number: int, *, tokens: int, stream: bool) -> bytes:
    """Return a request that makes exactly so many tokens."""
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
        "max_tokens": tokens,
        "temperature": 0.8,
        "seed": number,
        "stream": stream,
        "logit_bias": {"0": -100, "2": -100},
    }
    return json.dumps(body).encode()


async def ask(
    server: Server, number: int, *, tokens: int, stream: bool = True, leave_after: int | None = None
) -> Outcome:
    """Send a request and read its answer, or leave after some chunks (0: before the first)."""
    outcome, began = Outcome(), time.perf_counter()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        body = request_body(number, tokens=tokens, stream=stream)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        if leave_after == 0:
            await asyncio.sleep(random.random() * 0.05)
            outcome.left = True
            return outcome
        outcome.status = int((await reader.readline()).split()[1])
        async for line in reader:
            if not line.startswith(b'data: {"id"') or b'"content":""' in line:
                outcome.done |= line.startswith(b"data: [DONE]") or b'"usage"' in line
                continue
            outcome.first = outcome.first or time.perf_counter() - began
            outcome.tokens += 1
            if leave_after is not None and outcome.tokens >= leave_after:
                outcome.left = True
                return outcome
        return outcome
    finally:
        outcome.seconds = time.perf_counter() - began
        writer.close()


async def measure(server: Server, clients: int, *, per_client: int, tokens: int) -> Load:
    """Let every client ask one request after the other."""

    async def client(number: int) -> list[Outcome]:
        return [
            await ask(server, number * per_client + i, tokens=tokens) for i in range(per_client)
        ]

    began = time.perf_counter()
    outcomes = [o for many in await asyncio.gather(*map(client, range(clients))) for o in many]
    seconds = time.perf_counter() - began
    good = [o for o in outcomes if o.done]
    # Chunks may hold several tokens, or none when a character is unfinished: the length is known.
    made = len(good) * tokens
    firsts = sorted(o.first for o in good if o.first is not None) or [float("nan")]
    return Load(
        clients=clients,
        requests=len(outcomes),
        tokens=made,
        seconds=seconds,
        tokens_per_second=made / seconds,
        first_p50=statistics.median(firsts),
        first_p95=firsts[min(len(firsts) - 1, round(0.95 * (len(firsts) - 1)))],
        errors=len(outcomes) - len(good),
    )


async def get(server: Server, path: str) -> str:
    """Return the body of a GET."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text.partition("\r\n\r\n")[2]


async def gauge(server: Server, name: str) -> float:
    """Return one value of /metrics."""
    lines = (await get(server, "/metrics")).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


async def endure(
    server: Server, requests: int, *, share: float, clients: int, tokens: int
) -> Endurance:
    """Send requests of which `share` leave at a random moment, streamed and not in turn."""
    draw, queue = random.Random(1), list(range(requests))
    rss, outcomes = [], []

    async def client() -> None:
        while queue:
            number = queue.pop()
            leave = draw.randrange(0, tokens) if draw.random() < share else None
            stream = bool(number % 3) or bool(leave)
            outcomes.append(
                await ask(server, number, tokens=tokens, stream=stream, leave_after=leave)
            )
            if len(outcomes) % max(1, requests // 10) == 0:
                rss.append(server.rss_mb())

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    for _ in range(200):  # the last to leave are noticed within a step
        running = await gauge(server, "minimind_requests_running")
        waiting = await gauge(server, "minimind_requests_waiting")
        if running == waiting == 0:
            break
        await asyncio.sleep(0.05)
    after = await asyncio.gather(*(ask(server, i, tokens=tokens) for i in range(clients)))
    rss.append(server.rss_mb())
    refused = [o for o in outcomes if o.status in {429, 503}]
    answered = [o for o in outcomes if o.status == 200 and o.done]
    left = [o for o in outcomes if o.left]
    return Endurance(
        requests=requests,
        answered=len(answered),
        left=len(left),
        refused=len(refused),
        lost=requests - len(answered) - len(left) - len(refused),
        seconds=seconds,
        running_after=running,
        waiting_after=waiting,
        works_after=all(o.done for o in after),
        rss_mb=[round(value, 1) for value in rss],
        # The first tenth warms up: allocators, lazily built tables.
        rss_growth_mb=round(rss[-1] - rss[1], 1) if len(rss) > 2 else 0.0,
    )


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--per-client", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--requests", type=int, help="the other mode: so many, some of which leave")
    parser.add_argument("--disconnect", type=float, default=0.3, help="the share that leaves")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="options of serve")
    args = parser.parse_args()
    options = ["--slots", str(args.slots), "--queue", "256", *args.serve]
    with serving(args.checkpoint, options) as server:
        print(server.ready)
        asyncio.run(measure(server, 2, per_client=2, tokens=args.tokens))  # warms up
        results = asyncio.run(_endurance(server, args) if args.requests else _loads(server, args))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


async def _loads(server: Server, args: argparse.Namespace) -> list[dict]:
    print(f"{'clients':>8} {'tokens/s':>9} {'x one':>6} {'first p50':>10} {'p95':>8} {'errors':>7}")
    results: list[Load] = []
    for clients in args.clients:
        load = await measure(server, clients, per_client=args.per_client, tokens=args.tokens)
        if results:
            load.times_one = load.tokens_per_second / results[0].tokens_per_second
        results.append(load)
        print(
            f"{clients:>8} {load.tokens_per_second:>9,.0f} {load.times_one:>6.1f} "
            f"{load.first_p50 * 1000:>7.0f} ms {load.first_p95 * 1000:>5.0f} ms {load.errors:>7}"
        )
    return [asdict(load) for load in results]


async def _endurance(server: Server, args: argparse.Namespace) -> dict:
    result = await endure(
        server, args.requests, share=args.disconnect, clients=max(args.clients[-1], 2),
        tokens=args.tokens,
    )  # fmt: skip
    for name, value in asdict(result).items():
        print(f"{name:>14}  {value}")
    good = not (result.lost or result.running_after or result.waiting_after) and result.works_after
    print("no slot lost, every accepted request answered" if good else "FAILED")
    return asdict(result)


if __name__ == "__main__":
    main()
