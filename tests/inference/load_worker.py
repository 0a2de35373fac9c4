"""Run by `test_backend_load`: 1,000 requests from 4 threads, then JSON about what was seen."""

import collections
import dataclasses
import json
import random
import resource
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from doubles import tiny_config
from minimind import checkpoint
from minimind.export.gguf import export_gguf
from minimind.inference import Engine, SamplingParams
from minimind.inference.backend import QueueFullError
from minimind.inference.batching import BatchBackend, TorchBackend
from minimind.model import CausalLM
from minimind.serve.llamacpp import LlamaCppBackend
from minimind.tokenizer import train_tokenizer

ROUNDS, THREADS, EACH = 4, 4, 63  # the first round has 244, the others 252 requests
GREEDY = SamplingParams(temperature=0, repetition_penalty=1, stop_ids=(2, 20, 21, 22))


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Client(threading.Thread):
    """Sends requests, gives some up at once, after a while, or twice."""

    def __init__(self, backend, seed, count, systems):
        super().__init__()
        self.backend, self.rng, self.count, self.systems = (
            backend,
            random.Random(seed),
            count,
            systems,
        )
        self.ends = []  # the end events of each request
        self.refused = 0
        self.answers = []  # (prompt, params, ids) of those that ended by themselves

    def run(self):
        pending = []
        for _ in range(self.count):
            pending.append(self.submit())
            if len(pending) > 4:
                self.finish(pending.pop(0))
        for request in pending:
            self.finish(request)

    def submit(self):
        rng = self.rng
        prompt = [
            *rng.choice(self.systems),
            *(rng.randrange(16, 272) for _ in range(rng.randrange(1, 20))),
        ]
        params = dataclasses.replace(GREEDY, max_new_tokens=rng.randrange(1, 25))
        if rng.random() < 0.3:
            params = dataclasses.replace(
                params,
                temperature=1.0,
                presence_penalty=0.5,
                alternatives=3,
                seed=rng.randrange(99),
            )
        events, over = [], threading.Event()

        def on_event(event):
            events.append(event)
            if event.end is not None:
                over.set()

        while True:
            try:
                generation = self.backend.submit(prompt, params, on_event)
                break
            except QueueFullError:
                self.refused += 1
                time.sleep(0.002)
        if rng.random() < 0.15:
            generation.cancel()
        return prompt, params, events, over, generation

    def finish(self, request):
        prompt, params, events, over, generation = request
        if self.rng.random() < 0.3:
            generation.cancel()
        assert over.wait(300), "a request was never answered"
        ends = [event.end for event in events if event.end is not None]
        self.ends.append(ends)
        if ends == ["length"] and params.temperature == 0 and len(self.answers) < 5:
            self.answers.append((prompt, params, [e.token for e in events]))


def main(kind, directory):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["床前明月光，疑是地上霜。"] * 20, vocab_size=280)
    model = CausalLM(tiny_config(vocab_size=280)).eval()
    for parameter in model.parameters():
        parameter.data *= 3
    settings = {"slots": 4, "queue_limit": 6, "prefill_tokens": 16}
    backend: BatchBackend
    if kind == "torch":
        backend = TorchBackend(model, **settings)
    else:
        checkpoint.save(directory / "c", model=model, tokenizer=tokenizer)
        export_gguf(directory / "c", directory / "c.gguf", type="f32", verify=False)
        backend = LlamaCppBackend(directory / "c.gguf", threads=1, exact=True, **settings)
    rng = random.Random(0)
    systems = [[], [rng.randrange(16, 272) for _ in range(20)]]
    memory, ends, refused, answers = [], [], 0, []
    for number in range(ROUNDS):
        each = EACH - 2 * (number == 0)
        clients = [Client(backend, THREADS * number + i, each, systems) for i in range(THREADS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
            ends += client.ends
            refused += client.refused
            answers += client.answers
        memory.append(resident_mib())
    stats = backend.stats()
    backend.close()
    engine = Engine(model)
    wrong = sum(engine.generate([prompt], params)[0] != ids for prompt, params, ids in answers)
    print(
        json.dumps(
            {
                "accepted": len(ends),
                "ends_per_request": collections.Counter(len(e) for e in ends),
                "ends": collections.Counter(end for e in ends for end in e),
                "refused": refused,
                "running": stats.running,
                "waiting": stats.waiting,
                "slots": stats.slots,
                "places_free": backend._batch.slots.idle,
                "wrong_answers": wrong,
                "memory_mib": memory,
                "growth_mib": memory[-1] - memory[1],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
