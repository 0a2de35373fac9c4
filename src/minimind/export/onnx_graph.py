"""The decoder as an ONNX graph: tokens and cached keys and values in, logits and all of them out.

`OnnxDecoder` computes what `CausalLM` computes, from the same weights, but holds no cache: each
call gets the keys and values of the tokens before it and returns them with its own appended, as
optimum, transformers.js and onnxruntime-genai expect. Names, axes and dtypes of the inputs and
outputs are theirs:

| name | shape | dtype |
|---|---|---|
| input_ids | batch_size, sequence_length | int64 |
| attention_mask | batch_size, past_sequence_length + sequence_length | int64, 0 is padding |
| position_ids | batch_size, sequence_length | int64 |
| past_key_values.N.key, .value | batch_size, kv heads, past_sequence_length, head dim | float |
| logits | batch_size, sequence_length, vocabulary | float32 |
| present.N.key, .value | as past, past_sequence_length + sequence_length long | float |

Axes: B batch, T query, P past, S = P + T key, D hidden, H heads, G kv heads, R = H / G, K head dim.
"""

from __future__ import annotations

import ast
import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.config import ModelConfig
from minimind.errors import ConfigError, require
from minimind.model import CausalLM
from minimind.model.layers import SwiGLU
from minimind.model.rope import rotary_tables, rotate
from minimind.model.transformer import Attention, DecoderLayer

OPSET = 18
"""The lowest that torch's exporter writes without a version converter, so the one that the most
runtimes read (onnxruntime since 1.14, onnxruntime-web's WebGPU kernels). 20 to 24 add an Attention
and an RMSNormalization operator, but not every execution provider has kernels for those."""

BATCH, SEQUENCE, PAST = "batch_size", "sequence_length", "past_sequence_length"
TOTAL = f"{PAST} + {SEQUENCE}"

# The exporter takes a size of 1 for a constant, so the example has none.
_EXAMPLE_BATCH, _EXAMPLE_TOKENS, _EXAMPLE_PAST = 2, 3, 4


class OnnxDecoder(nn.Module):
    """A `CausalLM` without state, for export only; shares the weights it is given."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.model = model.model
        self.layers = [layer for layer in model.model.layers if isinstance(layer, DecoderLayer)]
        self.lm_head = model.lm_head
        self.config = model.config

    def forward(
        self,
        input_ids_BT: Tensor,
        attention_mask_BS: Tensor,
        position_ids_BT: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return logits (B, T, V) in fp32 and, for each layer, keys and values (B, G, S, K)."""
        rotary = rotary_tables(self.config, position_ids_BT)
        T, P = input_ids_BT.shape[1], past[0][0].shape[2]
        allowed = {
            window: allowed_keys(attention_mask_BS, T=T, P=P, window=window)
            for window in {layer.window for layer in self.layers}
        }
        x_BTD = self.model.embed_tokens(input_ids_BT)
        present = []
        for layer, (k_BGPK, v_BGPK) in zip(self.layers, past, strict=True):
            out_BTD, cache = attend_to_past(
                layer.self_attn, layer.input_layernorm(x_BTD), rotary,
                allowed_BTS=allowed[layer.window], past=(k_BGPK, v_BGPK),
            )  # fmt: skip
            x_BTD = x_BTD + out_BTD
            x_BTD = x_BTD + layer.mlp(layer.post_attention_layernorm(x_BTD))
            present.append(cache)
        weight_VD = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(self.model.norm(x_BTD), weight_VD).float(), present


def allowed_keys(attention_mask_BS: Tensor, *, T: int, P: int, window: int | None) -> Tensor:
    """Return which keys each query sees, (B, T, S) bool: real ones, not later, not past the window.

    Every query sees itself, also a padding one, so that no row of the softmax is empty. Slots stand
    for positions: a row's real tokens are contiguous, with padding on their left.
    """
    key_S = torch.arange(P + T, device=attention_mask_BS.device)
    query_T1 = key_S[P:, None]
    near_TS = key_S <= query_T1
    if window is not None:
        near_TS = near_TS & (key_S > query_T1 - window)
    itself_TS = key_S == query_T1
    return (near_TS & (attention_mask_BS[:, None, :] > 0)) | itself_TS


def attend_to_past(
    attention: Attention,
    x_BTD: Tensor,
    rotary: tuple[Tensor, Tensor],
    *,
    allowed_BTS: Tensor,
    past: tuple[Tensor, Tensor],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return (B, T, D) and the keys and values with the new ones appended.

    The R query heads of a kv head are laid one after the other as if they were more queries, so
    that keys and values are multiplied as they lie, without copies.
    """
    B, T, _ = x_BTD.shape
    heads = (B, T, -1, attention.head_dim)
    q_BHTK = attention.q_norm(attention.q_proj(x_BTD).view(heads)).transpose(1, 2)
    k_BGTK = attention.k_norm(attention.k_proj(x_BTD).view(heads)).transpose(1, 2)
    v_BGTK = attention.v_proj(x_BTD).view(heads).transpose(1, 2)
    k_BGSK = torch.cat((past[0], rotate(k_BGTK, *rotary)), dim=2)
    v_BGSK = torch.cat((past[1], v_BGTK), dim=2)
    H, G, K = q_BHTK.shape[1], k_BGSK.shape[1], attention.head_dim
    R = H // G
    q_BGMK = (rotate(q_BHTK, *rotary) * K**-0.5).reshape(B, G, R * T, K)
    scores_BGRTS = (q_BGMK @ k_BGSK.transpose(2, 3)).float().reshape(B, G, R, T, -1)
    lowest = torch.finfo(torch.float32).min
    scores_BGRTS = torch.where(allowed_BTS[:, None, None], scores_BGRTS, lowest)
    weights_BGMS = scores_BGRTS.softmax(-1).type_as(v_BGSK).reshape(B, G, R * T, -1)
    out_BHTK = (weights_BGMS @ v_BGSK).reshape(B, H, T, K)
    return attention.o_proj(out_BHTK.transpose(1, 2).reshape(B, T, H * K)), (k_BGSK, v_BGSK)


def check_exportable(model: CausalLM) -> None:
    """Refuse a model that the graph can't express.

    Raises:
        ConfigError: says which part.
    """
    for number, layer in enumerate(model.model.layers):
        if not isinstance(layer.mlp, SwiGLU):
            raise ConfigError(
                f"layer {number} has a {type(layer.mlp).__name__} feed-forward: the ONNX export "
                "writes dense models only (which expert a token takes is decided while running). "
                "Use `minimind export hf` or `minimind export gguf`"
            )


def onnx_model(model: CausalLM, *, dtype: torch.dtype = torch.float32) -> Any:
    """Return the graph as an `onnx.ModelProto`, weights included.

    Args:
        model: without adapters (merged, if there were any); not changed.
        dtype: of weights and cache; logits are fp32 in any case.

    Raises:
        ConfigError: the graph can't express the model.
        MissingExtraError: onnx or onnxscript is missing.
    """
    require("onnxscript", extra="onnx")
    check_exportable(model)
    decoder = OnnxDecoder(copy.deepcopy(model)).to(dtype).eval()
    config, names = model.config, cache_names(model.config)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            decoder,
            _example(config, dtype),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=_dynamic_shapes(config),
            input_names=["input_ids", "attention_mask", "position_ids", *names["past"]],
            output_names=["logits", *names["present"]],
            verbose=False,
        )
    if program is None:
        raise ConfigError("torch.onnx.export returned nothing: install torch 2.11 or newer")
    proto = program.model_proto
    _name_axes(proto)
    _name_matrices(proto)
    _strip_provenance(proto)
    return proto


def cache_names(config: ModelConfig) -> dict[str, list[str]]:
    """Return the names of the cache's inputs (`past`) and outputs (`present`), in graph order."""
    layers = range(config.num_hidden_layers)
    parts = ("key", "value")
    return {
        "past": [f"past_key_values.{n}.{part}" for n in layers for part in parts],
        "present": [f"present.{n}.{part}" for n in layers for part in parts],
    }


def _example(config: ModelConfig, dtype: torch.dtype) -> tuple[Any, ...]:
    B, T, P = _EXAMPLE_BATCH, _EXAMPLE_TOKENS, _EXAMPLE_PAST
    cache = torch.zeros(B, config.num_key_value_heads, P, config.head_dim, dtype=dtype)
    return (
        torch.zeros(B, T, dtype=torch.int64),
        torch.ones(B, P + T, dtype=torch.int64),
        torch.arange(P, P + T).expand(B, T).contiguous(),
        [(cache.clone(), cache.clone()) for _ in range(config.num_hidden_layers)],
    )


def _dynamic_shapes(config: ModelConfig) -> tuple[Any, ...]:
    dim = torch.export.Dim.DYNAMIC
    rows = {0: dim, 1: dim}
    cache = {0: dim, 2: dim}
    return rows, rows, rows, [(cache, cache) for _ in range(config.num_hidden_layers)]


def _name_axes(proto: Any) -> None:
    """Give the axes the names that optimum gives them; the exporter numbers them."""
    for value in (*proto.graph.input, *proto.graph.output):
        name, dims = value.name, value.type.tensor_type.shape.dim
        dims[0].dim_param = BATCH
        if name == "attention_mask":
            dims[1].dim_param = TOTAL
        elif name.startswith("past_key_values."):
            dims[2].dim_param = PAST
        elif name.startswith("present."):
            dims[2].dim_param = TOTAL
        else:
            dims[1].dim_param = SEQUENCE
    del proto.graph.value_info[:]  # inferred shapes in the exporter's axis names


def _name_matrices(proto: Any) -> None:
    """Name each matrix by its module (it lies transposed, for MatMul); the exporter says val_73."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "MatMul":
            continue
        scopes = next(p.value for p in node.metadata_props if p.key.endswith("name_scopes"))
        module = ast.literal_eval(scopes)[-2]
        if node.input[1] in weights:
            node.name = f"{module}.MatMul"
            weights[node.input[1]].name = node.input[1] = f"{module}.MatMul.weight"


def _strip_provenance(proto: Any) -> None:
    """Remove the exporter's notes: a hundredth of the file, and paths of this machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about its own deprecations and missing torchvision to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
