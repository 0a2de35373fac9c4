"""Generation with a cache: equal to transformers, equal alone and in a batch."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

import minimind
from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.config import RopeScaling
from minimind.errors import DataError
from minimind.inference import Completion, Engine, SamplingParams, Session
from minimind.model import CausalLM

GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=30)
VARIANTS = {
    "full": {},
    "sliding": {"sliding_window": 6},
    "mixed": {"sliding_window": 6, "layer_types": ("full_attention", "sliding_attention")},
    "yarn": {
        "rope_scaling": RopeScaling(rope_type="yarn", factor=2, original_max_position_embeddings=32)
    },
}


def make_model(**changes):
    torch.manual_seed(0)
    model = CausalLM(tiny_config(**changes)).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that greedy choices are clear-cut
    return model


def prompts(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(16, 272, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_is_the_same_in_a_batch_alone_and_streamed(variant):
    engine, rows = Engine(make_model(**VARIANTS[variant])), prompts(3, 25, 17, 9, 33, 1)
    together = engine.generate(rows, GREEDY)
    assert together == [engine.generate([row], GREEDY)[0] for row in rows]
    assert together == [list(engine.stream(row, GREEDY)) for row in rows]
    assert len({tuple(answer) for answer in together}) > 3


@pytest.mark.parametrize("variant", ["full", "yarn", "sliding"])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_transformers_generate(variant, penalty, tmp_path):
    model = make_model(**VARIANTS[variant])
    checkpoint.save(tmp_path / "c", model=model, tokenizer=byte_tokenizer())
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "c", dtype=torch.float32)
    params = dataclasses.replace(GREEDY, repetition_penalty=penalty, stop_ids=(2, 0))
    loaded, _ = minimind.load(tmp_path / "c")
    for row in prompts(5, 20):
        ids = torch.tensor([row])
        theirs = reference.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30,
            repetition_penalty=penalty, eos_token_id=[2, 0], pad_token_id=0,
        )[0, len(row) :].tolist()  # fmt: skip
        assert Engine(loaded).generate([row], params)[0] == [t for t in theirs if t not in (0, 2)]


def test_rows_leave_as_they_finish_and_the_others_are_not_disturbed():
    engine, rows = Engine(make_model()), prompts(*range(1, 31))
    free = engine.generate(rows, GREEDY)
    stops = tuple(answer[number % 29] for number, answer in enumerate(free[::4]))
    params = dataclasses.replace(GREEDY, stop_ids=stops)
    finished = []
    completions = engine.complete(rows, params, batch_rows=16, on_finished=finished.append)
    assert sorted(finished) == list(range(30))
    for answer, completion in zip(free, completions, strict=True):
        cut = next((i for i, token in enumerate(answer) if token in stops), None)
        assert completion.ids == answer[:cut]
        assert completion.finish_reason == ("length" if cut is None else "stop")


def test_the_context_ends_an_answer():
    engine = Engine(make_model())
    params = dataclasses.replace(GREEDY, max_new_tokens=10)
    completions = engine.complete(prompts(60, 64, 20, 63), params)
    assert [c.finish_reason for c in completions] == ["context", "context", "length", "context"]
    assert [len(c.ids) for c in completions] == [4, 0, 10, 1]
    assert completions[1] == Completion([], "context")
    alone = [engine.complete([row], params)[0] for row in prompts(60, 64, 20, 63)]
    assert alone == completions


def test_a_seed_repeats_and_rows_have_their_own():
    engine = Engine(make_model())
    params = SamplingParams(temperature=1.5, top_p=1, seed=5, max_new_tokens=12)
    row = prompts(6)[0]
    first = engine.generate([row, row, row], params)
    assert first == engine.generate([row, row, row], params)
    assert len({tuple(answer) for answer in first}) == 3
    assert list(engine.stream(row, params)) == first[0]
    assert first != engine.generate([row] * 3, dataclasses.replace(params, seed=99))


def test_stop_tokens_are_spared_by_the_repetition_penalty():
    engine = Engine(make_model())
    row = prompts(8)[0]
    stop = engine.generate([row], GREEDY)[0][0]
    params = dataclasses.replace(GREEDY, repetition_penalty=50.0, stop_ids=(stop,))
    assert engine.complete([[*row[:0], *row]], params)[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "empty"),
        ([20] * 65, "65 tokens.*64"),
        ([20, 272], "272.*vocabulary.*271"),
        ([-1], "-1"),
    ],
)
def test_a_prompt_that_cannot_be_read(prompt, message):
    with pytest.raises(DataError, match=message):
        Engine(make_model()).generate([[20], prompt], GREEDY)
    with pytest.raises(DataError, match=message):
        next(Engine(make_model()).stream(prompt, GREEDY))


def test_loglikelihood_equals_the_logits():
    model = make_model()
    engine, (context, continuation) = Engine(model), prompts(7, 5)
    logits_TV = model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
    expected = sum(logits_TV[6 + i, token].item() for i, token in enumerate(continuation))
    score, greedy = engine.loglikelihood(context, continuation)
    assert score == pytest.approx(expected, abs=1e-4)
    assert greedy is False
    own = engine.generate([context], GREEDY)[0][:6]
    assert engine.loglikelihood(context, own)[1] is True


def test_loglikelihoods_do_not_depend_on_the_batch():
    engine, rows = Engine(make_model(sliding_window=5)), prompts(*range(3, 33))
    pairs = list(zip(rows[:15], rows[15:], strict=True))
    together = engine.loglikelihoods(pairs)
    alone = [engine.loglikelihood(*pair) for pair in pairs]
    assert [s for s, _ in together] == pytest.approx([s for s, _ in alone], abs=1e-4)
    assert engine.loglikelihood(rows[0], []) == (0.0, True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_session_reads_only_what_is_new(variant):
    model = make_model(**VARIANTS[variant])
    session, prompt = Session(model), prompts(10)[0]
    params = dataclasses.replace(GREEDY, max_new_tokens=8)
    for _ in range(3):
        answer = list(session.stream(prompt, params))
        assert answer == list(Engine(model).stream(prompt, params))
        before, prompt = len(prompt), [*prompt, *answer, 40, 41]
        assert session.finish_reason == "length"
    list(session.stream(prompt, params))
    assert session.reused == before + len(answer) - 1  # the last token was never read
    edited = [*prompt[:5], 99, *prompt[6:12]]
    assert list(session.stream(edited, params)) == list(Engine(model).stream(edited, params))
    assert session.reused == 5


def test_a_stream_that_is_broken_off_leaves_the_session_whole():
    model = make_model()
    session, prompt = Session(model), prompts(10)[0]
    stream = session.stream(prompt, GREEDY)
    start = [next(stream) for _ in range(4)]
    stream.close()
    assert session.finish_reason is None
    longer = [*prompt, *start, 50]
    assert list(session.stream(longer, GREEDY)) == list(Engine(model).stream(longer, GREEDY))
    assert session.reused == len(prompt) + 3


def test_a_model_in_training_goes_on_training():
    model = make_model().train()
    Engine(model).generate(prompts(4), dataclasses.replace(GREEDY, max_new_tokens=3))
    list(Engine(model).stream(prompts(4)[0], GREEDY))
    assert model.training
    model(torch.tensor(prompts(4))).logits.sum().backward()
