"""int8 for the ONNX decoder: a quarter of the bytes, and integer products where they are exact.

The matrices of the layers go through `onnxruntime.quantization` (dynamic: activations are rounded
while running, one scale for a tensor; weights have one scale for each output channel). A tied
embedding is what that can't do: it is looked up *and* multiplied, so it would be stored twice or
stay fp32, a third of a small model. `_share_embedding` stores it once, as uint8 with one scale for
each token, and both uses read it.

Weights are unsigned: products of uint8 with uint8 are exact on every CPU, while those with int8
saturate on x86 without VNNI, so that the same file would give other tokens on other machines.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minimind.errors import require

EMBEDDING = "model.embed_tokens.weight"
_ZERO_POINT = 128


def quantize(proto: Any, *, exclude: tuple[str, ...] = ()) -> Any:
    """Return an int8 copy of an fp32 graph of `onnx_model`.

    Args:
        proto: an `onnx.ModelProto`; not changed.
        exclude: names of MatMul nodes that stay fp32.

    Raises:
        MissingExtraError: onnx or onnxruntime is missing.
    """
    onnx = require("onnx", extra="onnx")
    quantization = require("onnxruntime.quantization", extra="onnx")
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    # Without this mark it advises, through the root logger, a step that this graph doesn't need.
    require("onnxruntime.quantization.quant_utils", extra="onnx").add_pre_process_metadata(copied)
    with tempfile.TemporaryDirectory(prefix="minimind-onnx-") as folder:
        path = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            copied,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=quantization.QuantType.QUInt8,
            nodes_to_exclude=list(exclude),
            # Products of two activations (scores, mixing) stay fp32.
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        quantized = onnx.load(path)
    del quantized.metadata_props[:]
    _share_embedding(onnx, quantized)
    return quantized


def quantize_rows(weight_VD: npt.NDArray[np.float32]) -> tuple[Any, Any]:
    """Return uint8 (V, D) around 128 and the fp32 scale of each row, (V, 1)."""
    scale_V1 = np.abs(weight_VD).max(axis=1, keepdims=True) / 127
    scale_V1[scale_V1 == 0] = 1
    rounded_VD = np.rint(weight_VD / scale_V1) + _ZERO_POINT
    return rounded_VD.clip(1, 255).astype(np.uint8), scale_V1.astype(np.float32)


def _share_embedding(onnx: Any, proto: Any) -> None:
    """Replace the fp32 embedding, and the product with it if tied, by one uint8 table."""
    graph = proto.graph
    table = next(tensor for tensor in graph.initializer if tensor.name == EMBEDDING)
    weight, scale = quantize_rows(onnx.numpy_helper.to_array(table))
    graph.initializer.remove(table)
    add = onnx.numpy_helper.from_array
    graph.initializer.extend(
        [
            add(weight, f"{EMBEDDING}_quantized"),
            add(scale, f"{EMBEDDING}_scale"),
            add(np.uint8(_ZERO_POINT), "embedding_zero_point"),
            add(np.float32(_ZERO_POINT), "embedding_zero_point_float"),
        ]
    )
    nodes = []
    transposed = None
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] == EMBEDDING:
            nodes += _lookup(onnx.helper.make_node, node.input[1], node.output[0])
        elif node.op_type == "Transpose" and node.input[0] == EMBEDDING:
            transposed = node.output[0]
        elif node.op_type == "MatMul" and node.input[1] == transposed:
            graph.initializer.append(add(np.ascontiguousarray(scale.T), "lm_head_scale"))
            nodes += _product(onnx.helper.make_node, node.input[0], node.output[0])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _lookup(make_node: Any, ids: str, output: str) -> list[Any]:
    """Return nodes for `(table[ids] - 128) * scale[ids]`."""
    return [
        make_node("Gather", [f"{EMBEDDING}_quantized", ids], ["embedding_rows"]),
        make_node("Gather", [f"{EMBEDDING}_scale", ids], ["embedding_row_scales"]),
        make_node("Cast", ["embedding_rows"], ["embedding_rows_float"], to=1),
        make_node("Sub", ["embedding_rows_float", "embedding_zero_point_float"],
                  ["embedding_rows_centred"]),
        make_node("Mul", ["embedding_rows_centred", "embedding_row_scales"], [output]),
    ]  # fmt: skip


def _product(make_node: Any, hidden: str, output: str) -> list[Any]:
    """Return nodes for `hidden table^T` as an integer product; the transpose costs no bytes."""
    return [
        make_node("Transpose", [f"{EMBEDDING}_quantized"], ["lm_head_quantized"], perm=[1, 0]),
        make_node("DynamicQuantizeLinear", [hidden],
                  ["hidden_quantized", "hidden_scale", "hidden_zero_point"]),
        make_node("MatMulInteger", ["hidden_quantized", "lm_head_quantized", "hidden_zero_point",
                                    "embedding_zero_point"], ["lm_head_sums"]),
        make_node("Cast", ["lm_head_sums"], ["lm_head_sums_float"], to=1),
        make_node("Mul", ["hidden_scale", "lm_head_scale"], ["lm_head_scales"]),
        make_node("Mul", ["lm_head_sums_float", "lm_head_scales"], [output]),
    ]  # fmt: skip
