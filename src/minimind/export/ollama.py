"""The Ollama Modelfile beside a GGUF: our chat format as a Go template, stops and parameters.

Ollama doesn't run the Jinja template inside a GGUF; it has a template language of its own.
"""

from __future__ import annotations

from pathlib import Path

from minimind.config import ModelConfig
from minimind.export.common import whole_or_nothing
from minimind.tokenizer.chat import TOOLS_HEAD, TOOLS_TAIL

# An assistant that speaks last is being continued, so the turn is left open; all others end with
# the header of the answer. Go templates can't look ahead, so a run of tool results is closed by
# whatever follows it.
TEMPLATE = """\
{{- $previous := "" }}
{{- if .Tools }}<|im_start|>system
{{ range $i, $message := .Messages }}{{ if and (eq $i 0) (eq $message.Role "system") }}\
{{ $message.Content }}

{{ end }}{{ end }}TOOLS_HEAD
{{- range .Tools }}
{{ . }}
{{- end }}TOOLS_TAIL<|im_end|>
{{ end }}
{{- range $i, $message := .Messages }}
{{- if and (eq $previous "tool") (ne $message.Role "tool") }}<|im_end|>
{{ end }}
{{- if eq $message.Role "tool" }}
{{- if ne $previous "tool" }}<|im_start|>user{{ end }}
<tool_response>
{{ $message.Content }}
</tool_response>
{{- else if eq $message.Role "assistant" }}<|im_start|>assistant
{{ if $message.Thinking }}<think>
{{ $message.Thinking }}
</think>

{{ end }}{{ $message.Content }}
{{- range $n, $call := $message.ToolCalls }}
{{- if or $message.Content (gt $n 0) }}
{{ end }}<tool_call>
{"name": "{{ $call.Function.Name }}", "arguments": {{ $call.Function.Arguments }}}
</tool_call>
{{- end }}
{{- if lt (len (slice $.Messages $i)) 2 }}{{ else }}<|im_end|>
{{ end }}
{{- else if not (and $.Tools (eq $i 0) (eq $message.Role "system")) }}<|im_start|>\
{{ $message.Role }}
{{ $message.Content }}<|im_end|>
{{ end }}
{{- $previous = $message.Role }}
{{- end }}
{{- if eq $previous "tool" }}<|im_end|>
{{ end }}
{{- if ne $previous "assistant" }}<|im_start|>assistant
{{ end }}""".replace("TOOLS_HEAD", TOOLS_HEAD).replace("TOOLS_TAIL", TOOLS_TAIL)
"""Our chat format for Ollama."""

# Those of `minimind chat`.
_PARAMETERS = {"temperature": 0.7, "top_p": 0.9, "repeat_penalty": 1.1}


def modelfile_path(gguf: Path) -> Path:
    """Return where the Modelfile of a GGUF lies: beside it, NAME.Modelfile."""
    return gguf.with_suffix(".Modelfile")


def write_modelfile(gguf: Path, config: ModelConfig, *, base: Path | None = None) -> Path:
    """Write the Modelfile of a GGUF: `ollama create NAME -f FILE` reads it.

    Args:
        gguf: the model, or an adapter.
        config: for the context length.
        base: the GGUF that the adapter belongs on.

    Returns:
        Its path.
    """
    model = gguf if base is None else base
    lines = [f"FROM ./{model.name}" if model.parent == gguf.parent else f"FROM {model.resolve()}"]
    if base is not None:
        lines.append(f"ADAPTER ./{gguf.name}")
    lines += [f'TEMPLATE """{TEMPLATE}"""', 'PARAMETER stop "<|im_end|>"']
    lines.append('PARAMETER stop "<|endoftext|>"')
    lines.append(f"PARAMETER num_ctx {config.max_position_embeddings}")
    lines += [f"PARAMETER {name} {value}" for name, value in _PARAMETERS.items()]
    target = modelfile_path(gguf)
    with whole_or_nothing(target, force=True) as temp:
        temp.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target
