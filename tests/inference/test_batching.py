"""The torch backend: what joins, leaves and shares never changes an answer."""

import dataclasses
import random
import sys
import threading
import time

import pytest
import torch
from listener import Listener

from doubles import tiny_config
from minimind.errors import ConfigError, DataError
from minimind.inference import Engine, SamplingParams
from minimind.inference.backend import BackendClosedError, TokenEvent
from minimind.inference.batch import Batch
from minimind.inference.batching import TorchBackend
from minimind.inference.rows import TorchRows
from minimind.inference.slots import Request
from minimind.model import CausalLM

GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=30)
VARIANTS = {
    "full": {},
    "sliding": {"sliding_window": 6},
    "mixed": {"sliding_window": 6, "layer_types": ("full_attention", "sliding_attention")},
    "long": {  # the rings wrap around
        "sliding_window": 40, "max_position_embeddings": 900,
        "layer_types": ("full_attention", "sliding_attention"),
    },
}  # fmt: skip


def make_model(**changes):
    torch.manual_seed(0)
    model = CausalLM(tiny_config(**changes)).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that greedy choices are clear-cut
    return model


def random_prompt(generator, length):
    return [generator.randrange(16, 272) for _ in range(length)]


@pytest.fixture
def backend():
    with_defaults = TorchBackend(make_model(), slots=4, queue_limit=8, prefill_tokens=16)
    yield with_defaults
    with_defaults.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_requests_that_join_leave_and_are_cancelled_at_any_time_get_the_answers_they_get_alone(
    variant,
):
    """Ragged prompts in chunks, shared prefixes, cancels: step by step, with a fixed seed."""
    model = make_model(**VARIANTS[variant])
    context = model.config.max_position_embeddings
    engine, rng = Engine(model), random.Random(5)
    rows = TorchRows(model, count=4)
    batch = Batch(rows, prefill_tokens=7)
    wanted = 15 if variant == "long" else 30
    known, running, done = [random_prompt(rng, 20)], [], []
    while len(done) < wanted:
        while batch.slots.idle and rng.random() < 0.6:
            start = rng.choice(known)
            prompt = start[: rng.randrange(len(start) + 1)]
            prompt += random_prompt(rng, rng.randrange(1, 20))
            prompt = prompt[: context - rng.randrange(1, 30)]
            params = dataclasses.replace(GREEDY, max_new_tokens=rng.randrange(1, 30))
            running.append(Request(prompt, params))
            batch.add(running[-1])
        for request, event in batch.step():
            if event.end is not None:
                running.remove(request)
                done.append(request)
                known.append(request.prompt + request.answer)
        if running and rng.random() < 0.1:
            batch.remove(running.pop(rng.randrange(len(running))))
        assert batch.slots.lent == len(running)
        assert sorted(map(id, batch.requests)) == sorted(map(id, running))
        for place, length in zip(batch.slots.places, rows.cache.lengths, strict=True):
            assert place.request is None or len(place.tokens) == length
    assert sum(request.cached > 0 for request in done) > wanted // 4
    for request in done:
        assert request.answer == engine.complete([request.prompt], request.params)[0].ids


def test_a_long_prompt_does_not_stall_the_others():
    model = make_model(max_position_embeddings=600)
    batch = Batch(TorchRows(model, count=2), prefill_tokens=50)
    short = Request([20, 30], dataclasses.replace(GREEDY, max_new_tokens=100))
    batch.add(short)
    batch.step()
    batch.add(Request([40] * 500, GREEDY))
    made = []
    for _ in range(10):
        made.append([request is short for request, _ in batch.step()])
    assert made == [[True]] * 9 + [[True, False]]
    assert batch.prompt_tokens == 502


def test_short_prompts_are_read_together_and_never_beyond_the_budget():
    batch = Batch(TorchRows(make_model(), count=8), prefill_tokens=16)
    running = Request([20], dataclasses.replace(GREEDY, max_new_tokens=50))
    batch.add(running)
    batch.step()
    rng = random.Random(0)
    for length in (4, 3, 4, 4, 30):
        batch.add(Request(random_prompt(rng, length), GREEDY))
    read = []
    for _ in range(4):
        before = batch.prompt_tokens
        batch.step()
        read.append(batch.prompt_tokens - before)
    assert read == [15, 16, 14, 0]


def test_the_next_turn_reads_only_what_is_new_and_other_conversations_keep_theirs(backend):
    rng = random.Random(1)
    params = dataclasses.replace(GREEDY, max_new_tokens=5)
    first = [random_prompt(rng, 10) for _ in range(3)]
    answers = [Listener(backend, prompt, params).wait().ids for prompt in first]
    for turn in (2, 1, 0):
        prompt = first[turn] + answers[turn] + [50, 60, 70]
        again = Listener(backend, prompt, params).wait()
        assert again.events[-1].cached_tokens == 10 + 4  # the last token was never read
        assert again.ids == Engine(make_model()).generate([prompt], params)[0]
    assert backend.stats().cached_tokens == 3 * 14


def test_a_prefix_is_shared_with_a_request_that_still_runs():
    batch = Batch(TorchRows(make_model(), count=3))
    rng = random.Random(2)
    system = random_prompt(rng, 20)
    requests = [Request(system + random_prompt(rng, 3), GREEDY) for _ in range(3)]
    for request in requests:
        batch.add(request)
        batch.step()
    assert [request.cached for request in requests] == [0, 20, 20]
    while batch.busy:
        batch.step()
    alone = [Engine(make_model()).generate([request.prompt], GREEDY)[0] for request in requests]
    assert [request.answer for request in requests] == alone


def test_a_conversation_is_not_lost_to_one_that_shares_only_its_beginning():
    batch = Batch(TorchRows(make_model(), count=2))
    rng = random.Random(3)
    system = random_prompt(rng, 10)
    long = Request(system + random_prompt(rng, 20), GREEDY)
    other = Request(system + random_prompt(rng, 5), GREEDY)
    for request in (long, other):
        batch.add(request)
        while batch.busy:
            batch.step()
    assert other.cached == 10
    back = Request([*long.prompt, *long.answer, 33], GREEDY)
    batch.add(back)
    assert back.cached == len(long.prompt) + len(long.answer) - 1


def test_idle_slots_cost_nothing():
    """The rows that a forward pass computes are those that decode."""
    model = make_model()
    shapes = []
    model.model.embed_tokens.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape)))
    batch = Batch(TorchRows(model, count=64))
    requests = [Request([20 + i], dataclasses.replace(GREEDY, max_new_tokens=5)) for i in range(2)]
    batch.add(requests[0])
    batch.step()
    batch.step()
    batch.add(requests[1])
    for _ in range(5):
        batch.step()
    assert [shape[0] for shape in shapes] == [1, 1, 1, 1, 2, 2, 1, 1]


def test_logits_that_are_not_numbers_end_one_request_only():
    model = make_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[99] = torch.nan
    model.lm_head = torch.nn.Linear(32, 272, bias=False)  # so that only token 99 is damaged
    backend = TorchBackend(model, slots=3)
    good = Listener(backend, [20, 21, 22], GREEDY)
    bad = Listener(backend, [20, 99, 22], GREEDY)
    assert bad.end == "error"
    assert "not finite" in (bad.events[-1].error or "")
    assert good.end == "length"
    assert len(good.ids) == 30
    assert Listener(backend, [20, 21, 22], GREEDY).wait().ids == good.ids
    backend.close()


def test_a_step_that_fails_ends_its_requests_and_the_backend_goes_on():
    model = make_model()
    backend = TorchBackend(model, slots=2)
    expected = Listener(backend, [20, 21], GREEDY).wait().ids
    failing = True

    def fail(module, inputs):
        if failing:
            raise RuntimeError("out of memory")

    model.model.layers[1].register_forward_pre_hook(fail)
    listeners = [Listener(backend, [20 + i, 21], GREEDY) for i in range(4)]
    for listener in listeners:
        assert listener.end == "error"
        assert "RuntimeError: out of memory" in (listener.events[-1].error or "")
    failing = False
    assert Listener(backend, [20, 21], GREEDY).wait().ids == expected
    assert backend.stats().running == 0
    backend.close()


def test_a_listener_that_raises_loses_its_request_and_nobody_else_does(backend):
    def broken(event: TokenEvent) -> None:
        raise ValueError("a bug of the caller's")

    backend.submit([20], dataclasses.replace(GREEDY, max_new_tokens=40), broken)
    good = Listener(backend, [30], GREEDY)
    assert good.end == "length"
    assert Listener(backend, [30], GREEDY).end == "length"
    assert backend.stats().running == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the clock of a thread")
def test_an_idle_backend_uses_no_processor_time(backend):
    Listener(backend, [20], GREEDY).wait()
    clock = time.pthread_getcpuclockid(backend._thread.ident)  # others of this process may work
    before = time.clock_gettime(clock)
    time.sleep(0.5)
    assert time.clock_gettime(clock) - before < 0.05


def test_what_cannot_be_served_is_refused_at_once(backend):
    with pytest.raises(DataError, match=r"64 tokens and fills.*context"):
        backend.submit([20] * 64, GREEDY, print)
    with pytest.raises(DataError, match="65 tokens"):
        backend.submit([20] * 65, GREEDY, print)
    with pytest.raises(DataError, match="empty"):
        backend.submit([], GREEDY, print)
    with pytest.raises(ConfigError, match=r"--logit-bias 272: .*0 to 271"):
        backend.submit([20], dataclasses.replace(GREEDY, logit_bias=((272, 1.0),)), print)
    with pytest.raises(ConfigError, match="--stop-ids 999"):
        backend.submit([20], dataclasses.replace(GREEDY, stop_ids=(999,)), print)
    for arguments in ({"slots": 0}, {"queue_limit": -1}, {"prefill_tokens": 0}):
        with pytest.raises(ConfigError, match="--"):
            TorchBackend(make_model(), **arguments)
    backend.close()
    with pytest.raises(BackendClosedError, match="shutting down"):
        backend.submit([20], GREEDY, print)


def test_a_seed_gives_the_same_answer_alone_and_among_others(backend):
    params = SamplingParams(temperature=1.2, top_p=0.95, seed=11, max_new_tokens=20)
    alone = Listener(backend, [20, 30], params).wait().ids
    others = [
        Listener(backend, [40 + i], dataclasses.replace(params, seed=i, top_k=i)) for i in range(3)
    ]
    assert Listener(backend, [20, 30], params).wait().ids == alone
    assert len({tuple(other.wait().ids) for other in others}) == 3


def test_threads_may_submit_and_cancel_at_once(backend):
    ends = []

    def client(number):
        rng = random.Random(number)
        for _ in range(5):
            listener = Listener(backend, random_prompt(rng, 5), GREEDY)
            if rng.random() < 0.5:
                listener.generation.cancel()
                listener.generation.cancel()
            ends.append(listener.end)
            assert sum(event.end is not None for event in listener.events) == 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 40
    assert set(ends) <= {"cancelled", "length"}
    assert backend.stats().running == backend.stats().waiting == 0


def test_a_prefix_is_reused_only_as_far_back_as_the_sliding_layers_remember():
    model = make_model(**VARIANTS["long"])  # rings of 40 + 512 slots
    rng = random.Random(4)
    batch = Batch(TorchRows(model, count=3))
    params = dataclasses.replace(GREEDY, max_new_tokens=6)
    long = Request(random_prompt(rng, 700), dataclasses.replace(GREEDY, max_new_tokens=150))
    batch.add(long)
    while not long.answer:
        batch.step()
    forks = [Request([*long.prompt[:kept], 30, 40], params) for kept in (650, 100)]
    for fork in forks:  # from a row that decodes
        batch.add(fork)
    while batch.busy:
        batch.step()
    assert [fork.cached for fork in forks] == [650, 0]
    later = Request([*long.prompt, *long.answer[:140], 50], params)
    batch.add(later)
    while batch.busy:
        batch.step()
    assert later.cached == 840
    for request in (long, *forks, later):
        assert request.answer == Engine(model).generate([request.prompt], request.params)[0]
