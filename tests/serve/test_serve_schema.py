"""schemathesis reads the server's own OpenAPI document and tries to break what it promises."""

import copy

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from serve_doubles import HTTP, endless, events_of

POSTS = {"/v1/chat/completions": "ChatCompletionRequest", "/v1/completions": "CompletionRequest"}
# A request may fit its schema and still be too long, or ask for a stream's usage without a stream:
# what a schema can't say. 404: the models' names aren't in it either.
CONFIG = {
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "429"]}}
}


@pytest.fixture(scope="module")
def document(server):
    return HTTP.get(server.root + "/openapi.json").json()


def schema_for(document: dict, *, names: dict | None = None):
    """Return schemathesis's schema; with `names` requests name a real model and stay small."""
    document = copy.deepcopy(document)
    if names is not None:
        document["paths"]["/v1/models/{model}"]["get"]["parameters"][0]["schema"] |= names
        schemas = document["components"]["schemas"]
        schemas["ImagePart"] = schemas["TextPart"]  # this model has no eyes
        for kind in POSTS.values():
            body = document["components"]["schemas"][kind]
            body["properties"]["model"] = names
            for rule in ("stream_options", "best_of", "top_logprobs", "logit_bias"):
                if rule in body["properties"]:  # valid only beside other fields, or known tokens
                    body["properties"][rule] = {"type": "null"}
            for limit in ("max_tokens", "max_completion_tokens", "n"):
                for branch in body["properties"].get(limit, {}).get("anyOf", []):
                    if branch["type"] == "integer":
                        branch["maximum"] = 3
            body["required"] = [*body["required"], "max_tokens"]
            body["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 3}
    return schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))


def check(server, schema, *, examples: int, negative: bool) -> int:
    """Run every operation; return how many requests were answered with a 200."""
    accepted = 0

    for result in schema.get_all_operations():
        operation = result.ok()
        modes = [schemathesis.GenerationMode.POSITIVE]
        if negative and operation.path in POSTS:  # a GET has nothing to get wrong
            modes.append(schemathesis.GenerationMode.NEGATIVE)
        for mode in modes:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def one(case):
                nonlocal accepted
                response = case.call(base_url=server.root)
                accepted += response.status_code == 200
                case.validate_response(response)

            one()
    return accepted


def test_the_document_is_openapi_and_names_every_error(document):
    assert document["openapi"].startswith("3.1")
    for path in POSTS:
        responses = document["paths"][path]["post"]["responses"]
        assert {"200", "400", "401", "404", "413", "415", "429", "500", "503"} <= set(responses)
        assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    for schema in document["components"]["schemas"].values():
        assert jsonschema_rs.meta.is_valid(schema)


def test_streams_fit_the_clients_types(server):
    """The document has no words for a stream's events; the client's own models have."""
    from openai.types import Completion
    from openai.types.chat import ChatCompletionChunk

    options = {"stream": True, "stream_options": {"include_usage": True}}
    with HTTP.stream("POST", server.url + "/chat/completions", json=endless(3, **options)) as r:
        *chunks, _ = events_of(r)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    text = {"model": "mini", "prompt": "a", "max_tokens": 3, "logprobs": 2, **options}
    with HTTP.stream("POST", server.url + "/completions", json=text) as response:
        *chunks, _, _ = events_of(response)
    for chunk in chunks:
        filled = [choice | {"finish_reason": choice["finish_reason"] or "stop"}
                  for choice in chunk["choices"]]  # fmt: skip
        Completion.model_validate(chunk | {"choices": filled}, strict=True)


def test_no_example_breaks_the_schema(server, document):
    known = schema_for(document, names={"type": "string", "enum": ["mini"]})
    assert check(server, known, examples=20, negative=False) > 30
    check(server, schema_for(document), examples=15, negative=True)


@pytest.mark.slow
def test_many_examples_break_nothing(server, document):
    known = schema_for(document, names={"type": "string", "enum": ["mini"]})
    assert check(server, known, examples=300, negative=False) > 300
    check(server, schema_for(document), examples=300, negative=True)
