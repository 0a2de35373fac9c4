"""Both backends keep the same promises (`inference.backend.Backend`), on the same weights."""

import dataclasses
import threading
import time

import pytest
import torch
from listener import PATIENCE, Listener
from transformers import AutoModelForCausalLM

import minimind
from doubles import tiny_config
from minimind import checkpoint
from minimind.errors import ConfigError, DataError
from minimind.export.gguf import export_gguf
from minimind.inference import SamplingParams
from minimind.inference.backend import BackendClosedError, QueueFullError
from minimind.inference.batching import TorchBackend
from minimind.model import CausalLM
from minimind.serve.llamacpp import LlamaCppBackend
from minimind.tokenizer import train_tokenizer

CONTEXT, VOCABULARY = 256, 280
GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=24)
ENDLESS = dataclasses.replace(GREEDY, max_new_tokens=CONTEXT)
KINDS = ("torch", "llama.cpp")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint directory, and a GGUF file of it."""
    # llama.cpp wants at least one merge.
    tokenizer = train_tokenizer(["床前明月光，疑是地上霜。"] * 20, vocab_size=VOCABULARY)
    torch.manual_seed(0)
    model = CausalLM(tiny_config(max_position_embeddings=CONTEXT, vocab_size=VOCABULARY))
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that greedy choices are clear-cut
    directory = tmp_path_factory.mktemp("contract")
    checkpoint.save(directory / "c", model=model, tokenizer=tokenizer)
    export_gguf(directory / "c", directory / "c.gguf", type="f32", verify=False)
    return directory / "c", directory / "c.gguf"


def start(kind, files, **changes):
    settings = {"slots": 3, "queue_limit": 4, "prefill_tokens": 16} | changes
    if kind == "torch":
        return TorchBackend(minimind.load(files[0])[0], **settings)
    return LlamaCppBackend(files[1], threads=1, exact=True, **settings)


@pytest.fixture(params=KINDS)
def backend(request, files):
    started = start(request.param, files)
    assert started.kind == request.param
    yield started
    started.close()


@pytest.fixture(scope="module")
def reference(files):
    return AutoModelForCausalLM.from_pretrained(files[0], dtype=torch.float32)


def prompts(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(16, 272, (n,), generator=generator).tolist() for n in lengths]


def by_transformers(reference, prompt, count, **settings):
    ids = torch.tensor([prompt])
    made = reference.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count,
        eos_token_id=[], pad_token_id=0, **settings,
    )  # fmt: skip
    return made[0, len(prompt) :].tolist()


def test_greedy_answers_of_requests_side_by_side_are_those_of_transformers(backend, reference):
    rows = prompts(1, 40, 7, 100, 23, 3)
    listeners = [Listener(backend, row, GREEDY) for row in rows]
    for row, listener in zip(rows, listeners, strict=True):
        assert listener.end == "length"
        assert listener.ids == by_transformers(reference, row, 24)


def test_the_repetition_penalty_is_that_of_transformers(backend, reference):
    params = dataclasses.replace(GREEDY, repetition_penalty=1.3)
    for row in prompts(9, 30):
        ours = Listener(backend, row, params).wait().ids
        assert ours == by_transformers(reference, row, 24, repetition_penalty=1.3)


def test_the_next_turn_comes_from_the_cache_and_gives_the_same(backend, reference):
    prompt = prompts(30)[0]
    answer = Listener(backend, prompt, GREEDY).wait().ids
    follow_up = [*prompt, *answer, *prompts(5)[0]]
    others = [Listener(backend, row, GREEDY) for row in prompts(30, 12, 14)[1:]]
    again = Listener(backend, follow_up, GREEDY).wait()
    assert {event.cached_tokens for event in again.events} == {30 + 23}
    assert again.ids == by_transformers(reference, follow_up, 24)
    assert [other.end for other in others] == ["length"] * 2
    edited = [*follow_up[:20], 99, *follow_up[21:]]
    shared = Listener(backend, edited, GREEDY).wait()
    assert shared.events[0].cached_tokens == 20
    assert shared.ids == by_transformers(reference, edited, 24)
    assert backend.stats().cached_tokens == 73


def test_a_prefix_of_a_running_request_is_copied(backend, reference):
    prompt = prompts(60)[0]
    running = Listener(backend, prompt, ENDLESS)
    while len(running.events) < 3:
        time.sleep(0.001)
    fork = [*prompt, 77, 78]
    copied = Listener(backend, fork, GREEDY).wait()
    assert copied.events[0].cached_tokens == 60
    assert copied.ids == by_transformers(reference, fork, 24)
    assert running.wait().ids == by_transformers(reference, prompt, CONTEXT - 60)


def test_a_stop_token_ends_an_answer_and_is_not_part_of_it(backend):
    prompt = prompts(8)[0]
    free = Listener(backend, prompt, GREEDY).wait().ids
    cut = next(i for i in range(3, 24) if free[i] not in free[:i])
    stopped = Listener(backend, prompt, dataclasses.replace(GREEDY, stop_ids=(free[cut],)))
    assert stopped.end == "stop"
    assert stopped.ids == free[:cut]
    assert stopped.events[-1].token is None
    assert [event.end for event in stopped.events[:-1]] == [None] * cut


def test_lengths_and_the_context_end_an_answer_with_its_last_token(backend):
    for prompt, params, end, made in (
        (prompts(5)[0], dataclasses.replace(GREEDY, max_new_tokens=1), "length", 1),
        (prompts(CONTEXT - 3)[0], GREEDY, "context", 3),
        (prompts(CONTEXT - 1)[0], GREEDY, "context", 1),
        (prompts(CONTEXT - 24)[0], GREEDY, "length", 24),
    ):
        listener = Listener(backend, prompt, params)
        assert (listener.end, len(listener.ids)) == (end, made)
        assert listener.events[-1].token is not None


def test_log_probabilities_are_the_models_own(backend, files):
    model, _ = minimind.load(files[0])
    prompt = prompts(12)[0]
    params = SamplingParams(
        temperature=2.0, top_k=40, seed=3, max_new_tokens=10, alternatives=5,
        repetition_penalty=1.5, presence_penalty=1.0, logit_bias=((30, 4.0),),
    )  # fmt: skip
    listener = Listener(backend, prompt, params).wait()
    with torch.no_grad():
        logits_TV = model(torch.tensor([prompt + listener.ids])).logits[0].log_softmax(-1)
    for number, event in enumerate(listener.events):
        expected_V = logits_TV[len(prompt) - 1 + number]
        assert event.logprob == pytest.approx(float(expected_V[event.token]), abs=1e-3)
        top = expected_V.topk(5)
        assert [token for token, _ in event.alternatives] == top.indices.tolist()
        values = [logprob for _, logprob in event.alternatives]
        assert values == pytest.approx(top.values.tolist(), abs=1e-3)
        assert values == sorted(values, reverse=True)


def test_a_seed_repeats_an_answer_whoever_else_is_there(backend):
    params = SamplingParams(temperature=1.5, top_p=0.95, seed=7, max_new_tokens=20)
    prompt = prompts(10)[0]
    alone = Listener(backend, prompt, params).wait().ids
    others = [Listener(backend, row, dataclasses.replace(params, seed=8)) for row in prompts(4, 50)]
    assert Listener(backend, prompt, params).wait().ids == alone
    assert Listener(backend, prompt, dataclasses.replace(params, seed=8)).wait().ids != alone
    for other in others:
        other.wait()


def test_a_bias_forbids_and_forces_tokens(backend):
    prompt = prompts(10)[0]
    first = Listener(backend, prompt, GREEDY).wait().ids[0]
    forbidden = dataclasses.replace(GREEDY, logit_bias=((first, -100.0),))
    assert Listener(backend, prompt, forbidden).wait().ids[0] != first
    forced = dataclasses.replace(GREEDY, logit_bias=((200, 100.0),), max_new_tokens=5)
    assert Listener(backend, prompt, forced).wait().ids == [200] * 5


def test_a_cancelled_request_frees_its_slot_at_once(backend):
    go_on = threading.Event()
    running = [Listener(backend, row, ENDLESS, until=go_on) for row in prompts(2, 3, 4)]
    waiting = Listener(backend, [20], GREEDY)
    running[1].generation.cancel()
    go_on.set()
    assert running[1].end == "cancelled"
    assert running[1].events[-1].token is None
    assert waiting.end == "length"
    queued = Listener(backend, [20], ENDLESS)
    for listener in (*running, queued):
        listener.generation.cancel()
        listener.generation.cancel()
        listener.wait()
    counts = [sum(e.end is not None for e in item.events) for item in (*running, waiting, queued)]
    assert counts == [1] * 5
    assert backend.stats().running == backend.stats().waiting == 0


def test_a_full_queue_refuses_and_then_takes_again(backend):
    held = threading.Event()
    first = backend.submit([20], GREEDY, lambda event: held.wait(PATIENCE) and None)
    accepted = [Listener(backend, [30 + i], GREEDY) for i in range(6)]
    with pytest.raises(QueueFullError, match=r"slots 3, queue 4.*try again later"):
        backend.submit([20], GREEDY, print)
    accepted[-1].generation.cancel()
    accepted.append(Listener(backend, [50], GREEDY))
    held.set()
    assert {listener.end for listener in accepted} == {"length", "cancelled"}
    first.cancel()
    assert Listener(backend, [20], GREEDY).end == "length"


def test_what_cannot_be_read_is_refused(backend):
    for prompt, message in (
        ([], "empty"),
        ([20] * CONTEXT, "fills the model's context"),
        ([20] * (CONTEXT + 1), "257 tokens"),
        ([VOCABULARY], "vocabulary"),
    ):
        with pytest.raises(DataError, match=message):
            backend.submit(prompt, GREEDY, print)
    with pytest.raises(ConfigError, match="--stop-ids 280"):
        backend.submit([20], dataclasses.replace(GREEDY, stop_ids=(VOCABULARY,)), print)


def test_stats_count(backend):
    stats = backend.stats()
    assert (stats.slots, stats.queue_limit, stats.running, stats.waiting) == (3, 4, 0, 0)
    assert stats.kv_cache_bytes == 2 * 2 * 3 * CONTEXT * 2 * 8 * 4  # k+v layers rows . heads dim
    for row in prompts(5, 6):
        Listener(backend, row, GREEDY).wait()
    stats = backend.stats()
    assert (stats.prompt_tokens, stats.cached_tokens, stats.generated_tokens) == (11, 0, 48)
    assert backend.context_length == CONTEXT


@pytest.mark.parametrize("kind", KINDS)
def test_closing_finishes_what_was_accepted(kind, files):
    backend = start(kind, files)
    accepted = [Listener(backend, [20 + i], GREEDY) for i in range(6)]
    backend.close(drain_seconds=PATIENCE)
    assert [listener.events[-1].end for listener in accepted] == ["length"] * 6
    with pytest.raises(BackendClosedError):
        backend.submit([20], GREEDY, print)
    backend.close()


@pytest.mark.parametrize("kind", KINDS)
def test_closing_without_patience_cancels(kind, files):
    backend = start(kind, files)
    all_in = threading.Event()

    def close(event):  # as soon as something runs, before any of them can be done
        all_in.wait(PATIENCE)
        backend.close()

    backend.submit([20], ENDLESS, close)
    accepted = [Listener(backend, [21 + i], ENDLESS) for i in range(5)]
    all_in.set()
    assert [listener.end for listener in accepted] == ["cancelled"] * 5
    backend.close()
    with pytest.raises(BackendClosedError):
        backend.submit([20], GREEDY, print)
