"""Weight-only quantisation: matrices of 8 or 4 bits in place of `nn.Linear` and `nn.Embedding`.

| method | a weight is | bits a weight |
|---|---|---|
| `int8` | int8 x the scale of its row | 8 |
| `int4` | (nibble - 8) x the scale of its group + the zero of its group | 4.5 to 5 |

The embedding, which is the output matrix too where the head is tied, has 8 bits in both: its rows
are few, and every token's prediction depends on all of them. Norms and biases stay as they are.

The modules are in `model.quantized`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from minimind.errors import CheckpointError, ConfigError, did_you_mean
from minimind.model import quantize_bnb
from minimind.model.layers import replace_module
from minimind.model.lora import LoRALinear
from minimind.model.moe import Experts
from minimind.model.quantize_bnb import converter
from minimind.model.quantized import Int4Linear, Int8Embedding, Int8Linear, QuantizedMatrix
from minimind.model.quantized_experts import QuantizedExperts

if TYPE_CHECKING:
    from minimind.model.transformer import CausalLM

METHODS = ("int8", "int4", *quantize_bnb.METHODS)
QUANT_METHOD = "minimind"
PREFIX = "minimind-quantized-"
GROUP_SIZES = (32, 64, 128, 256)
"""Those that torch's int4 kernel has."""
GROUP_SIZE = 32


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the matrices of a model were rounded: `quantization_config` of its config.json.

    Attributes:
        method: one of `METHODS`.
        group_size: of `int4`, else None.
    """

    method: str
    group_size: int | None = None

    def mark(self, config: dict[str, Any]) -> dict[str, Any]:
        """Add this to a config.json.

        Ours gets a `model_type` that other programs refuse: transformers only warns of a method
        that it doesn't know, and takes the integers for weights.
        """
        config = config | {"quantization_config": self.to_json()}
        if self.method not in quantize_bnb.METHODS:
            config["model_type"] = PREFIX + config["model_type"]
            config["architectures"] = ["MiniMindQuantizedForCausalLM"]
        return config

    @classmethod
    def unmark(cls, config: dict[str, Any]) -> tuple[dict[str, Any], Quantization | None]:
        """Return a config.json as it was before `mark`, and what was added, if anything.

        Raises:
            CheckpointError: see `from_json`.
        """
        if config.get("quantization_config") is None:
            return config, None
        quantization = cls.from_json(config["quantization_config"])
        plain = {k: v for k, v in config.items() if k != "quantization_config"}
        plain["model_type"] = str(plain.get("model_type")).removeprefix(PREFIX)
        return plain, quantization

    def to_json(self) -> dict[str, Any]:
        """Return `quantization_config`; that of bitsandbytes is what transformers reads."""
        if self.method == "bnb-int8":
            return {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False,
                    "llm_int8_threshold": quantize_bnb.OUTLIER}  # fmt: skip
        if self.method == "bnb-nf4":
            return {"quant_method": "bitsandbytes", "load_in_8bit": False, "load_in_4bit": True,
                    "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16",
                    "bnb_4bit_use_double_quant": False}  # fmt: skip
        values = {"quant_method": QUANT_METHOD, "method": self.method, "version": 1}
        return values if self.group_size is None else values | {"group_size": self.group_size}

    @classmethod
    def from_json(cls, values: object) -> Quantization:
        """Read `quantization_config`.

        Raises:
            CheckpointError: another program's, or damaged; says what can be read.
        """
        known = values if isinstance(values, dict) else {}
        if known.get("quant_method") == "bitsandbytes":
            if known.get("load_in_8bit"):
                return cls("bnb-int8")
            if known.get("load_in_4bit") and known.get("bnb_4bit_quant_type") == "nf4":
                return cls("bnb-nf4")
        method, group_size = known.get("method"), known.get("group_size")
        if known.get("quant_method") == QUANT_METHOD and known.get("version") == 1:
            if method == "int8" and group_size is None:
                return cls("int8")
            if method == "int4" and group_size in GROUP_SIZES:
                return cls("int4", group_size)
        raise CheckpointError(
            f"config.json: quantization_config is {values!r}; this program reads what `minimind "
            "quantize` writes, and bitsandbytes' 8 bits and nf4. Take the unquantised weights"
        )


def quantize_model(model: CausalLM, method: str, *, group_size: int = GROUP_SIZE) -> list[str]:
    """Replace every matrix of `model` in place; return the names of the replaced modules.

    Args:
        model: with plain weights; adapters must be merged. It is put into eval mode, and can't be
            trained afterwards.
        method: one of `METHODS`.
        group_size: int4: weights that share a scale. A matrix whose shape doesn't fit (see
            `Int4Linear.fits`) gets groups of 32, or 8 bits.

    Raises:
        ConfigError: no such method or group size; the model is quantised or has adapters.
        MissingExtraError: bitsandbytes is not installed.
    """
    check_method(method, group_size=group_size)
    check_plain(model)
    if method in quantize_bnb.METHODS and model.config.moe is not None:
        raise ConfigError(
            f"{method}: bitsandbytes has no layer for the experts of a mixture, and transformers "
            "wouldn't read one. Use int8 or int4"
        )
    plain = converter(method) if method in quantize_bnb.METHODS else None
    replaced = []
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            if plain is None:
                size = group_size if name != "lm_head" else None
                new = _quantized(module.weight, module.bias, method, size)
            elif name != "lm_head":
                new = plain(module)
            else:
                continue
        elif isinstance(module, Experts):
            new = QuantizedExperts.of(
                module, lambda matrix: _quantized(matrix, None, method, group_size)
            )
        elif isinstance(module, nn.Embedding) and plain is None:
            new = Int8Embedding.of(module.weight)
        else:
            continue
        replace_module(model, name, new)
        replaced.append(name)
    pack(model)
    model.quantization = Quantization(method, group_size if method == "int4" else None)
    model.eval().requires_grad_(False)
    return replaced


def _quantized(
    weight_OI: Tensor, bias_O: Tensor | None, method: str, group_size: int | None
) -> QuantizedMatrix:
    if method == "int4" and group_size is not None:
        for size in (group_size, min(GROUP_SIZES)):
            if Int4Linear.fits(weight_OI, size):
                return Int4Linear.of(weight_OI, bias_O, group_size=size)
    return Int8Linear.of(weight_OI, bias_O)


def check_method(method: str, *, group_size: int = GROUP_SIZE) -> None:
    """Refuse what can't be asked for.

    Raises:
        ConfigError: no such method or group size.
    """
    if method not in METHODS:
        raise ConfigError(
            f"there is no quantisation {method!r}.{did_you_mean(method, METHODS)} "
            f"Methods: {', '.join(METHODS)}"
        )
    if group_size not in GROUP_SIZES:
        raise ConfigError(
            f"group_size = {group_size}: torch's int4 kernel has {', '.join(map(str, GROUP_SIZES))}"
        )


def check_plain(model: CausalLM) -> None:
    """Refuse a model that can't be quantised.

    Raises:
        ConfigError: it is quantised already, or has adapters.
    """
    if model.quantization is not None:
        raise ConfigError("the model is quantised already: quantise the original")
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ConfigError("the model has LoRA adapters: merge_lora(model) first")


def pack(model: nn.Module) -> None:
    """Put the weights where and as this processor's kernels want them, once they are loaded."""
    for module in model.modules():
        if isinstance(module, Int4Linear | Int8Linear):
            module.pack()


def weight_bytes(model: CausalLM) -> int:
    """Return the bytes that a model's weights take in memory, tables and scales included."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():  # bitsandbytes keeps its scales beside the weights
        state, scales = getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)
        tensors += [t for t in (scales, getattr(state, "absmax", None)) if t is not None]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def bytes_read_per_token(model: CausalLM) -> int:
    """Return the bytes of weights that decoding one token reads: the bound of its speed.

    A single row of an untied embedding is read, and all of a tied one.
    """
    total = weight_bytes(model)
    if model.lm_head is not None:
        total -= sum(t.nbytes for t in model.model.embed_tokens.state_dict().values())
    return total
