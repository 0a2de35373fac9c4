"""The chat template: transformers, our renderer and llama.cpp's own Jinja give the same text."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from export_doubles import save_random

from doubles import free_ports, tiny_config
from minimind.export.gguf import export_gguf
from minimind.tokenizer import Tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "天气",
            "description": '查询<城市>的天气 & "温度"，it\'s',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "time", "description": "", "parameters": {"type": "object"}},
    },
]


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": "1", "function": {"name": name, "arguments": arguments}}


# All end where it is the model's turn: llama.cpp's server takes an assistant that speaks last for
# the beginning of the answer.
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "single turn": [{"role": "user", "content": "你好"}],
    "system": [
        {"role": "system", "content": "你是MiniMind。\n  简短回答。"},
        {"role": "user", "content": "\n\n 你是谁？ \n"},
    ],
    "multi-turn": [
        {"role": "user", "content": "1+1=?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "  再加1"},
        {"role": "assistant", "content": "- 3\n- three's 👍🏽"},
        {"role": "system", "content": "用英文回答"},
        {"role": "user", "content": "ok"},
    ],
    "thinking": [
        {"role": "user", "content": "9.9和9.11哪个大？"},
        {"role": "assistant", "reasoning_content": "比较小数。\n9 = 9", "content": "9.9大。"},
        {"role": "user", "content": "为什么？"},
    ],
    "tool calls and results": [
        {"role": "system", "content": "可用工具"},
        {"role": "user", "content": "北京和上海天气"},
        {
            "role": "assistant",
            "content": "我查一下。",
            "tool_calls": [call("天气", city="北京", days=2), call("天气", city='上"海')],
        },
        {"role": "tool", "content": '{"温度": 3}'},
        {"role": "tool", "content": "晴"},
        {"role": "assistant", "content": "", "tool_calls": [call("time")]},
        {"role": "tool", "content": "十点"},
    ],
    "after the results": [
        {"role": "user", "content": "几点"},
        {"role": "assistant", "content": "", "tool_calls": [call("time")]},
        {"role": "tool", "content": "十点"},
        {"role": "assistant", "reasoning_content": "有了", "content": "十点。"},
        {"role": "user", "content": "谢谢"},
    ],
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    tokenizer = Tokenizer.load("default")
    config = tiny_config(vocab_size=tokenizer.vocab_size)
    checkpoint = save_random(folder / "checkpoint", config, tokenizer)
    export_gguf(checkpoint, folder / "model.gguf", type="f16", verify=False)
    return checkpoint, folder / "model.gguf"


@pytest.fixture(scope="module")
def llama_server(exported):
    """llama.cpp's own server on the exported file; gives its address."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(exported[1])
    params.n_ctx, params.n_gpu_layers, params.warmup, params.verbosity = 64, 0, False, -1
    params.hostnames, params.port = ["127.0.0.1"], *free_ports(1)
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server  # ends its threads


def rendered_by_llama_cpp(address: str, body: dict[str, Any]) -> str:
    request = urllib.request.Request(
        f"{address}/apply-template",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)["prompt"]


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_text_and_ids_in_three_programs(exported, llama_server, name, tools):
    transformers = pytest.importorskip("transformers")
    messages = REQUESTS[name]
    ours = Tokenizer.load(exported[0])
    ids = ours.render(messages, tools=tools, add_generation_prompt=True).ids
    theirs = transformers.AutoTokenizer.from_pretrained(exported[0])
    options = {"tools": tools, "add_generation_prompt": True}
    text = theirs.apply_chat_template(messages, tokenize=False, **options)
    assert text == ours.decode(ids)
    assert theirs.apply_chat_template(messages, return_dict=True, **options)["input_ids"] == ids
    body = {"messages": messages, "add_generation_prompt": True}
    if tools:
        body["tools"] = tools
    assert rendered_by_llama_cpp(llama_server, body) == text
