"""OpenAI's own client, unmodified, against a real server with a trained model."""

import asyncio
import json
import math

import httpx
import openai
import pytest
import torch
from serve_doubles import CALL, COUNTED, HTTP, PATIENCE, STORY, WEATHER, endless, events_of

from minimind.checkpoint import load
from minimind.inference import Engine, SamplingParams
from minimind.serve.app import create_app
from minimind.serve.server import Server, ServeSettings

WHO = [{"role": "user", "content": "你是谁？"}]
COUNT = [{"role": "user", "content": "数到十"}]
ASK_WEATHER = [{"role": "user", "content": "天气？"}]
NAME = "我是😀小明。"


def chat(client, messages=WHO, **options):
    return client.chat.completions.create(
        model="mini", messages=messages, **({"temperature": 0, "max_tokens": 100} | options)
    )


def test_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("mini", "model", "minimind")
    assert model.max_model_len == 1024
    assert client.models.retrieve("mini") == model


def test_chat(client, checkpoint_dir):
    response = chat(client)
    (choice,) = response.choices
    assert choice.message.content == NAME
    assert (choice.message.role, choice.message.tool_calls) == ("assistant", None)
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert response.id.startswith("chatcmpl-")
    assert response.object == "chat.completion"
    assert response.model == "mini"
    assert response.system_fingerprint.startswith("fp_")
    _, tokenizer = load(checkpoint_dir)
    prompt = tokenizer.render(WHO, add_generation_prompt=True).ids
    assert response.usage.prompt_tokens == len(prompt)
    assert response.usage.completion_tokens == len(tokenizer.encode(NAME))
    assert response.usage.total_tokens == len(prompt) + len(tokenizer.encode(NAME))


def test_a_second_turn_takes_its_prompt_from_the_cache(client):
    first = chat(client)
    messages = [*WHO, first.choices[0].message, *COUNT]
    second = chat(client, messages, max_tokens=4)
    known = first.usage.total_tokens
    assert second.usage.prompt_tokens_details.cached_tokens >= known - 2


def test_messages_in_parts_and_developers_are_read(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": t} for t in ("你是", "谁？")]}]
    assert chat(client, parts).choices[0].message.content == NAME
    as_system = chat(client, [{"role": "system", "content": "好"}, *WHO], max_tokens=9)
    as_developer = chat(client, [{"role": "developer", "content": "好"}, *WHO], max_tokens=9)
    assert as_system.choices == as_developer.choices


def test_a_stream_is_openais(client, server):
    whole = chat(client)
    chunks = list(chat(client, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert len({chunk.created for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.system_fingerprint for chunk in chunks} == {whole.system_fingerprint}
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert all(delta.role is None for delta in deltas[1:])
    assert "".join(delta.content or "" for delta in deltas) == NAME
    assert all("\ufffd" not in (delta.content or "") for delta in deltas)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [
        "stop"
    ]
    assert all(chunk.usage is None for chunk in chunks)
    with HTTP.stream("POST", server.url + "/chat/completions", json=endless(3, stream=True)) as r:
        assert r.headers["content-type"].startswith("text/event-stream")
        *events, last = events_of(r)
    assert last == "[DONE]"
    assert all("usage" not in event for event in events)
    assert events[-1]["choices"][0]["delta"] == {}


def test_a_streams_usage_comes_last_and_is_null_before(client, server):
    body = endless(5, stream=True, stream_options={"include_usage": True})
    *_, last = client.chat.completions.create(**body)
    assert last.choices == []
    assert last.usage.completion_tokens == 5
    assert last.usage.total_tokens == last.usage.prompt_tokens + 5
    with HTTP.stream("POST", server.url + "/chat/completions", json=body) as response:
        *events, _, _ = events_of(response)
    assert all(event["usage"] is None for event in events)


def test_stop_strings_span_tokens_and_are_not_shown(client, server):
    assert chat(client, COUNT).choices[0].message.content == COUNTED
    for stop, want in (("五六", "一二三四"), (["八", "六七"], "一二三四五"), (["没有"], COUNTED)):
        response = chat(client, COUNT, stop=stop)
        assert response.choices[0].message.content == want
        assert response.choices[0].finish_reason == "stop"
        pieces = [
            c.choices[0].delta.content or "" for c in chat(client, COUNT, stop=stop, stream=True)
        ]
        assert "".join(pieces) == want
    server.wait_for(lambda stats: stats.running == 0)


def test_lengths(client):
    response = chat(client, COUNT, max_tokens=6)
    assert (response.choices[0].message.content, response.choices[0].finish_reason) == (
        "一二",
        "length",
    )
    response = chat(client, COUNT, max_tokens=None, max_completion_tokens=7)  # half a character
    assert (response.choices[0].message.content, response.usage.completion_tokens) == ("一二", 7)
    assert chat(client, COUNT, max_tokens=None).choices[0].message.content == COUNTED


def test_logprobs_are_the_models(client, checkpoint_dir):
    response = chat(client, logprobs=True, top_logprobs=3)
    entries = response.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == NAME
    assert entries[0].token == "\\xe6"  # a third of a character, as OpenAI writes it
    model, tokenizer = load(checkpoint_dir)
    prompt = tokenizer.render(WHO, add_generation_prompt=True).ids
    total, greedy = Engine(model).loglikelihood(prompt, tokenizer.encode(NAME))
    assert greedy
    assert sum(entry.logprob for entry in entries) == pytest.approx(total, abs=1e-3)
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    top = logits.log_softmax(-1).topk(3)
    assert [t.logprob for t in entries[0].top_logprobs] == pytest.approx(
        top.values.tolist(), abs=1e-4
    )
    assert [t.bytes for t in entries[0].top_logprobs] == [
        list(tokenizer.token_bytes(token)) for token in top.indices.tolist()
    ]
    chunks = list(chat(client, logprobs=True, top_logprobs=3, stream=True))
    streamed = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [e.bytes for e in streamed] == [e.bytes for e in entries]
    assert [e.logprob for e in streamed] == pytest.approx([e.logprob for e in entries], abs=1e-3)
    without = chat(client, logprobs=True).choices[0].logprobs.content
    assert without[0].top_logprobs == []


def test_logprobs_end_where_a_stop_string_begins(client):
    response = chat(client, COUNT, stop="五六", logprobs=True)
    entries = response.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == "一二三四"
    assert response.usage.completion_tokens == len("一二三四五六".encode())


def test_n_answers_differ_and_a_seed_repeats_them(client):
    ask = endless(12, n=3, seed=5)
    first, second = (client.chat.completions.create(**ask) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert texts == [choice.message.content for choice in second.choices]
    assert first.usage.completion_tokens == 36
    assert first.usage.prompt_tokens == second.usage.prompt_tokens < 60
    shown = {0: "", 1: "", 2: ""}
    ends = []
    for chunk in client.chat.completions.create(**ask, stream=True):
        (choice,) = chunk.choices
        shown[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert list(shown.values()) == texts
    assert sorted(ends) == [0, 1, 2]


def test_logit_bias_and_penalties_reach_the_sampler(client, checkpoint_dir):
    _, tokenizer = load(checkpoint_dir)
    (a,) = tokenizer.encode("a")
    forced = chat(client, max_tokens=3, logit_bias={str(a): 100})
    assert forced.choices[0].message.content == "aaa"
    freed = chat(client, max_tokens=3, logit_bias={str(a): 60}, frequency_penalty=2)
    assert freed.choices[0].message.content == "aaa"  # 60 outweighs three times 2
    kept = chat(client, max_tokens=30, temperature=0.01, extra_body={"top_k": 1, "min_p": 0.1})
    assert kept.choices[0].message.content == NAME
    model, _ = load(checkpoint_dir)
    prompt = tokenizer.render(COUNT, add_generation_prompt=True).ids
    params = SamplingParams(
        temperature=0, top_p=1.0, repetition_penalty=1.5, max_new_tokens=20, stop_ids=(2, 0)
    )
    (ids,) = Engine(model).generate([prompt], params)
    ours = chat(client, COUNT, max_tokens=20, extra_body={"repetition_penalty": 1.5})
    assert ours.choices[0].message.content.startswith(tokenizer.decode(ids).rstrip("\ufffd")[:4])


def test_tool_calls_go_out_and_come_in(client):
    response = chat(client, ASK_WEATHER, tools=[WEATHER])
    (choice,) = response.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == CALL["arguments"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "晴"}
    after = chat(client, [*ASK_WEATHER, choice.message, result], tools=[WEATHER])
    assert after.choices[0].message.content == "今天晴。"
    assert after.choices[0].finish_reason == "stop"


def test_tool_calls_are_streamed_as_deltas(client):
    chunks = list(chat(client, ASK_WEATHER, tools=[WEATHER], stream=True))
    calls = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].id
    assert (calls[0].index, calls[0].type, calls[0].function.name) == (0, "function", "weather")
    assert json.loads("".join(c.function.arguments for c in calls)) == CALL["arguments"]
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(
        model="mini", messages=ASK_WEATHER, tools=[WEATHER], temperature=0, max_tokens=100
    ) as stream:  # the client's own accumulator
        final = stream.get_final_completion()
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {"city": "北京"}


def test_without_tools_or_with_none_a_call_is_text(client):
    tools = [WEATHER]
    none = chat(client, ASK_WEATHER, tools=tools, tool_choice="none", max_tokens=30)
    assert none.choices[0].message.tool_calls is None
    plain = chat(client, ASK_WEATHER, max_tokens=30)
    assert plain.choices[0].message.content == none.choices[0].message.content
    one = chat(client, ASK_WEATHER, tools=tools, parallel_tool_calls=False)
    assert one.choices[0].finish_reason == "tool_calls"


def test_completions(client):
    response = client.completions.create(model="mini", prompt="从前", temperature=0, max_tokens=60)
    assert response.choices[0].text == STORY.removeprefix("从前")
    assert response.choices[0].finish_reason == "stop"
    assert response.id.startswith("cmpl-")
    assert response.object == "text_completion"
    chunks = list(
        client.completions.create(
            model="mini", prompt="从前", temperature=0, max_tokens=60, stream=True
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == response.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    default = client.completions.create(model="mini", prompt="从前", temperature=0)
    assert default.usage.completion_tokens == 16


def test_prompts_of_every_kind(client, checkpoint_dir):
    _, tokenizer = load(checkpoint_dir)
    ids = [0, *tokenizer.encode("从前")]
    options = {"model": "mini", "temperature": 0, "max_tokens": 12}
    want = client.completions.create(prompt="从前", **options).choices[0].text
    assert want == "有座山，"
    assert client.completions.create(prompt=ids, **options).choices[0].text == want
    many = client.completions.create(prompt=["从前", "从前有座山，"], n=2, **options)
    assert [c.text for c in many.choices] == [want, want, "山里有座", "山里有座"]
    assert [c.index for c in many.choices] == [0, 1, 2, 3]
    assert client.completions.create(prompt=[ids, ids], **options).choices[1].text == want


def test_echo_and_logprobs(client, checkpoint_dir):
    model, tokenizer = load(checkpoint_dir)
    prompt, rest = "从前有座山", "，山"
    response = client.completions.create(
        model="mini", prompt=prompt, temperature=0, max_tokens=6, echo=True, logprobs=2
    )
    (choice,) = response.choices
    assert choice.text == prompt + rest
    ids = tokenizer.encode(prompt + rest)
    lists = choice.logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(ids)
    total, _ = Engine(model).loglikelihood([0], ids)
    assert sum(lists.token_logprobs) == pytest.approx(total, abs=1e-3)
    assert lists.text_offset[:4] == [0, 0, 0, 1]
    assert lists.text_offset[-3:] == [6, 6, 6]
    assert lists.tokens[0] == "bytes:\\xe4"
    assert all(
        name in top for name, top in zip(lists.tokens, lists.top_logprobs, strict=True)
    )  # the token itself is always among them
    only = client.completions.create(
        model="mini", prompt=[0, *ids], max_tokens=0, echo=True, logprobs=1
    )
    assert only.choices[0].text == prompt + rest
    assert only.choices[0].logprobs.token_logprobs[0] is None
    assert sum(only.choices[0].logprobs.token_logprobs[1:]) == pytest.approx(total, abs=1e-3)
    assert only.usage.completion_tokens == 0
    streamed = list(
        client.completions.create(
            model="mini", prompt=prompt, temperature=0, max_tokens=6, echo=True, logprobs=2,
            stream=True,
        )
    )  # fmt: skip
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text
    offsets = [
        o for c in streamed if c.choices[0].logprobs for o in c.choices[0].logprobs.text_offset
    ]
    assert offsets == lists.text_offset


def test_each_refusal_is_openais_exception(client):
    cases = [
        (openai.NotFoundError, {"model": "minj"}, "model", "model_not_found"),
        (openai.BadRequestError, {"temperature": 2.5}, "temperature", "invalid_value"),
        (openai.BadRequestError, {"temperature": "hot"}, "temperature", "invalid_type"),
        (openai.BadRequestError, {"messages": []}, "messages", "invalid_value"),
        (openai.BadRequestError, {"max_tokens": 2000}, "messages", "context_length_exceeded"),
        (openai.BadRequestError, {"n": 129}, "n", "invalid_value"),
        (openai.BadRequestError, {"n": 100}, "n", "invalid_value"),
        (openai.BadRequestError, {"stop": ["a"] * 5}, "stop", "invalid_value"),
        (openai.BadRequestError, {"logit_bias": {"999": 1}}, "logit_bias", "invalid_value"),
        (openai.BadRequestError, {"tool_choice": "required"}, "tool_choice", "invalid_value"),
        (openai.BadRequestError, {"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        (openai.BadRequestError, {"extra_body": {"x": 1}}, "x", "unknown_parameter"),
        (
            openai.BadRequestError,
            {"response_format": {"type": "json_object"}},
            "response_format.type",
            "invalid_value",
        ),
        (
            openai.BadRequestError,
            {"messages": [{"role": "user", "content": "好" * 2000}]},
            "messages",
            "context_length_exceeded",
        ),
        (
            openai.BadRequestError,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
            "missing_required_parameter",
        ),
        (
            openai.BadRequestError,
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "data": ""}]}]},
            "messages[0].content[0]",
            "invalid_value",
        ),
    ]
    for kind, change, param, code in cases:
        ask = {"model": "mini", "messages": WHO, "max_tokens": 5} | change
        with pytest.raises(kind) as caught:
            client.chat.completions.create(**ask)
        error = caught.value
        assert (error.param, error.code) == (param, code), (change, error.message)
        assert error.type == "invalid_request_error"
        assert error.request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="mini", prompt="a", best_of=3)
    assert caught.value.param == "best_of"
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="mini", prompt=[999], max_tokens=1)


def test_fields_without_effect_are_accepted(client):
    response = chat(
        client, user="me", metadata={"a": "b"}, store=False, service_tier="auto",
        reasoning_effort="low", verbosity="low", parallel_tool_calls=True, modalities=["text"],
        prompt_cache_key="k", safety_identifier="s", response_format={"type": "text"},
    )  # fmt: skip
    assert response.choices[0].message.content == NAME


def test_the_clients_timeout(server):
    client = server.client(timeout=0.05)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**endless(900))
    server.wait_for(lambda stats: stats.running == 0)  # it noticed that the client left


def test_16_concurrent_requests_of_the_async_client(server, client):
    alone = [
        client.chat.completions.create(**endless(12, seed=seed)).choices[0].message.content
        for seed in range(16)
    ]

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=server.url, api_key="-", timeout=PATIENCE) as many:

            async def one(seed):
                if seed % 2:
                    whole = await many.chat.completions.create(**endless(12, seed=seed))
                    return whole.choices[0].message.content
                text = ""
                stream = await many.chat.completions.create(**endless(12, seed=seed, stream=True))
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
                return text

            return await asyncio.gather(*(one(seed) for seed in range(16)))

    assert asyncio.run(ask_all()) == alone
    assert server.stats().running == 0


def test_metrics_and_health(client, server):
    server.wait_for(lambda stats: stats.running == 0)  # of an earlier test whose client left
    for _ in range(2):  # the second one from the cache
        chat(client)
    health = HTTP.get(server.root + "/health")
    assert (health.status_code, health.json()) == (200, {"status": "ready", "models": ["mini"]})
    from prometheus_client.parser import text_string_to_metric_families as read

    text = HTTP.get(server.root + "/metrics").text
    values = {
        (sample.name, sample.labels.get("status", sample.labels.get("le", ""))): sample.value
        for family in read(text)
        for sample in family.samples
        if sample.labels.get("route", "/v1/chat/completions") == "/v1/chat/completions"
    }
    assert values["minimind_requests_total", "200"] >= 1
    assert values["minimind_slots", ""] == 4
    assert values["minimind_requests_running", ""] == 0
    assert values["minimind_generated_tokens_total", ""] > 10
    assert values["minimind_cached_tokens_total", ""] > 0
    first = values["minimind_time_to_first_token_seconds_count", ""]
    assert first >= values["minimind_time_per_token_seconds_count", ""] >= 1
    mean = values["minimind_time_to_first_token_seconds_sum", ""] / first
    assert 0 < mean < 60
    assert math.isfinite(values["minimind_time_per_token_seconds_sum", ""])


@pytest.mark.parametrize("stream", [True, False])
def test_who_has_an_answer_finds_it_in_the_metrics(server, stream):
    """OpenAI's client takes a stream's `[DONE]` for its end: nothing may be counted after it."""
    own, seen = Server(ServeSettings()), []  # `server` answers on the event loop of its thread
    own.ready(server.registry)
    app = create_app(own)

    def counted():
        value = own.metrics.registry.get_sample_value
        return [
            value("minimind_requests_total", {"route": "/v1/chat/completions", "status": "200"}),
            value("minimind_request_seconds_count", {"model": "mini"}),
        ]

    async def looking(scope, receive, send):
        async def look(message):
            body = message.get("body", b"")
            if b"[DONE]" in body or b'"usage"' in body:
                seen.append(counted())
            await send(message)

        await app(scope, receive, look)

    transport = httpx.ASGITransport(app=looking)

    async def ask():
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as http:
            answer = await http.post("/chat/completions", json=endless(3, stream=stream))
            assert answer.status_code == 200

    asyncio.run(ask())
    assert seen == [[1, 1]]
