"""The model: a Qwen3-shaped decoder. Parameter names are Qwen3's, so transformers loads them as is.

`ModelConfig.model_type` makes it a Qwen2 or a Llama: biases, or no norm on queries and keys.

    tokens -> embedding -> L x [ + attention(norm(x)), + SwiGLU(norm(x)) ] -> norm -> x embedding^T

Axes: B batch, T query, S key, D hidden, H heads, G kv heads, K head dim, F ffn, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minimind.config import ModelConfig
from minimind.errors import ConfigError
from minimind.model.attention import (
    Mask,
    attend,
    build_cached_masks,
    build_masks,
    check_backend,
    choose_backend,
)
from minimind.model.cache import CacheStep, KVCache
from minimind.model.compiled import CompiledStep
from minimind.model.graphs import GraphStep
from minimind.model.layers import Linear, RMSNorm, SwiGLU, project, project_together
from minimind.model.moe import Auxiliary, Routing, SparseMoE, auxiliary
from minimind.model.quantize import Quantization
from minimind.model.quantized import QuantizedMatrix
from minimind.model.quantized_experts import QuantizedExperts
from minimind.model.rope import check_rope, rotary_tables, rotate
from minimind.model.vision import Sight

Logits = Literal["all", "last", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalLMOutput:
    """What a forward pass gives.

    Attributes:
        hidden_BTD: after the last norm: what the loss functions multiply with `output_weight`.
        logits: (B, T, V) for "all"; (B, 1, V) for "last"; None for "none".
        auxiliary: what is to be minimised beside the objective's own loss; only in training mode,
            and only of a model that has such a thing.
    """

    hidden_BTD: Tensor  # noqa: N815  (shapes in names)
    logits: Tensor | None = None
    auxiliary: Auxiliary | None = None


class Attention(nn.Module):
    """Grouped-query attention with an RMSNorm on every query and key head before RoPE.

    Biases, and whether there is a norm: `ModelConfig.model_type`, `ModelConfig.attention_bias`.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.fused = False
        self.layer = layer
        self.head_dim = config.head_dim
        hidden, K = config.hidden_size, config.head_dim
        H, G = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = Linear(hidden, H * K, bias=config.qkv_bias)
        self.k_proj = Linear(hidden, G * K, bias=config.qkv_bias)
        self.v_proj = Linear(hidden, G * K, bias=config.qkv_bias)
        self.o_proj = Linear(H * K, hidden, bias=config.attention_bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:
            self.q_norm = RMSNorm(K, eps=config.rms_norm_eps)
            self.k_norm = RMSNorm(K, eps=config.rms_norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        *,
        mask: Mask,
        cache: KVCache | None = None,
        step: CacheStep | None = None,
    ) -> Tensor:
        """Return (B, T, D); with a cache, also write this layer's keys and values to it."""
        B, T, _ = x_BTD.shape
        q_BHTK, k_BGSK, v_BGSK = self.heads(x_BTD, rotary)
        if cache is not None and step is not None:
            k_BGSK, v_BGSK = cache.write(self.layer, k_BGSK, v_BGSK, step)
        out_BHTK = attend(q_BHTK, k_BGSK, v_BGSK, mask)
        return self.o_proj(out_BHTK.transpose(1, 2).reshape(B, T, -1))

    def heads(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, K), keys and values (B, G, T, K); positions are applied."""
        B, T, _ = x_BTD.shape
        heads = (B, T, -1, self.head_dim)
        if self.fused and self.training:
            q, k, v = project_together(x_BTD, self.together)
        else:
            q, k, v = [layer(x_BTD) for layer in self.together]
        q_BHTK = self.q_norm(q.view(heads)).transpose(1, 2)
        k_BGSK = self.k_norm(k.view(heads)).transpose(1, 2)
        v_BGSK = v.view(heads).transpose(1, 2)
        return rotate(q_BHTK, *rotary), rotate(k_BGSK, *rotary), v_BGSK

    @property
    def together(self) -> list[nn.Linear]:
        """Return the layers that read the same input."""
        return [self.q_proj, self.k_proj, self.v_proj]


class DecoderLayer(nn.Module):
    """Attention, then feed-forward; each reads a normed copy and adds to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.window = config.window_of(layer)
        self.self_attn = Attention(config, layer)
        self.mlp: nn.Module = SwiGLU(config)
        if config.moe is not None:
            self.mlp = SparseMoE(config.hidden_size, config.moe)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Mask,
        cache: KVCache | None = None,
        step: CacheStep | None = None,
        counted_BT: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Routing]:
        """Return (B, T, D); with experts and given which tokens count, their routing as well."""
        x_BTD = x_BTD + self.self_attn(
            self.input_layernorm(x_BTD), rotary, mask=mask, cache=cache, step=step
        )
        normed_BTD = self.post_attention_layernorm(x_BTD)
        if counted_BT is None:
            return x_BTD + self.mlp(normed_BTD)
        out_BTD, routing = self.mlp(normed_BTD, counted_BT)
        return x_BTD + out_BTD, routing


class Decoder(nn.Module):
    """The stack without the head (named `model` in Qwen3's parameter names)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class CausalLM(nn.Module):
    """Predicts each next token of a row from the tokens before it.

    Fresh weights are drawn from normal(0, `initializer_range`); the two matrices of a layer that
    write to the residual stream are scaled by 1/sqrt(2 * layers), so that its variance does not
    grow with depth (Radford et al. 2019, GPT-2, section 2.3).

    Raises:
        ConfigError: settings of `config` contradict each other.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_rope(config)
        self.config = config
        self.model = Decoder(config)
        self.lm_head: Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.multi_modal_projector: Sight | None = None
        if config.vision is not None:
            self.multi_modal_projector = Sight(config.vision, config.hidden_size)
        self._attention = "auto"
        self._checkpointed: frozenset[int] = frozenset()
        self.compiled_step: CompiledStep | GraphStep | None = None
        self.quantization: Quantization | None = None
        self._windows = {config.window_of(layer) for layer in range(config.num_hidden_layers)}
        self.reset_parameters()

    @property
    def output_weight(self) -> Tensor:
        """Return the (V, D) matrix from hidden states to logits: the embedding, if tied.

        A quantised one is converted at each call; `head` multiplies with it as it is.
        """
        matrix = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return matrix.dequantize() if isinstance(matrix, QuantizedMatrix) else matrix.weight

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Return logits (B, T, V) of hidden states."""
        if self.lm_head is not None:
            return self.lm_head(hidden_BTD)
        embedding = self.model.embed_tokens
        if isinstance(embedding, QuantizedMatrix):
            return embedding.product(hidden_BTD)
        return project(hidden_BTD, embedding.weight)

    def reset_parameters(self) -> None:
        """Draw fresh weights (see the class)."""
        std = self.config.initializer_range
        residual_std = std / math.sqrt(2 * self.config.num_hidden_layers)
        for name, weight in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(weight)
            elif name.endswith(".bias"):
                nn.init.zeros_(weight)
            else:
                # Experts are stacked in one parameter, without a `.weight`.
                writes_residual = name.removesuffix(".weight").endswith(("o_proj", "down_proj"))
                nn.init.normal_(weight, std=residual_std if writes_residual else std)

    def set_attention(self, backend: str) -> None:
        """Choose the attention kernel: `auto`, `sdpa`, `flex`, `flash` or `eager`.

        Raises:
            ConfigError: no such backend, or not on the device that the model is on.
        """
        check_backend(backend, device=self.model.norm.weight.device)
        self._attention = backend

    def set_compiled_decoding(self, *, on: bool = True) -> None:
        """Make decoding fast: `model.compiled` on a CPU, `model.graphs` on CUDA.

        Raises:
            ConfigError: the model has quantised experts, which are picked in Python.
        """
        if on and any(isinstance(module, QuantizedExperts) for module in self.modules()):
            raise ConfigError(
                "the quantised experts of a mixture can't be compiled: leave --compile out, or "
                "take the unquantised checkpoint"
            )
        on_gpu = self.model.norm.weight.device.type == "cuda"
        step = GraphStep if on_gpu else CompiledStep
        self.compiled_step = step(self) if on else None

    def set_fused_projections(self, *, on: bool = True) -> None:
        """In training, compute q, k and v by one product, and gate and up by another.

        Raises:
            ConfigError: one of these layers is not a plain matrix: adapters, or 8 bits.
        """
        for name, module in self.named_modules():
            if not isinstance(module, Attention | SwiGLU):
                continue
            odd = next((m for m in module.together if type(m) not in (Linear, nn.Linear)), None)
            if on and odd is not None:
                raise ConfigError(
                    f"train.fuse_projections = true: {name} holds a {type(odd).__name__}, and only "
                    "plain matrices can share a product. Leave it out with [lora] and with "
                    "train.precision = 'fp8'"
                )
            module.fused = on

    def set_gradient_checkpointing(self, layers: str) -> None:
        """Forget these layers' activations and compute them again in the backward pass.

        Args:
            layers: `none`, `all`, or layer numbers counted from 0, for example `0,2,4`.

        Raises:
            ConfigError: not a list of layers that exist.
        """
        self._checkpointed = parse_layers(layers, count=self.config.num_hidden_layers)

    def forward(
        self,
        input_ids_BT: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
        token_counts: Tensor | None = None,
        image_features: Tensor | None = None,
        document_starts: Tensor | None = None,
        logits: Logits = "all",
    ) -> CausalLMOutput:
        """Read T tokens of each row.

        Args:
            input_ids_BT: (B, T) int64.
            position_ids: (B, T) or (1, T); default: 0.. in order, after what the cache holds.
            document_ids: (B, T), -1 for padding; attention stays inside a document.
            cache: holds earlier tokens; these are added.
            token_counts: (B,) with a cache: how many tokens of each row are real (padding is on
                the right); the cache advances by these, and "last" is each row's last real one.
            image_features: (B, I, P, E) of the images that each row's `<|image_pad|>` stand for,
                in order; not with a cache, where ids say which image (`model.vision`).
            document_starts: what `varlen.document_starts` says of `document_ids`; only flash
                attention needs it, and finds it out by itself (the host waits) if it isn't given.
            logits: which positions get logits.

        Raises:
            ConfigError: the attention backend can't do this, or the cache is too short.
        """
        if cache is None:
            if token_counts is not None:
                raise ConfigError("token_counts says how far a cache advances: give cache as well")
            hidden_BTD, extra = self._read(
                input_ids_BT, position_ids, document_ids, image_features, document_starts
            )
        else:
            if document_ids is not None:
                raise ConfigError("document_ids can't be used with a cache: one document a row")
            hidden_BTD = self._read_cached(input_ids_BT, position_ids, cache, token_counts)
            extra = None
        return CausalLMOutput(
            hidden_BTD=hidden_BTD,
            logits=self._logits(hidden_BTD, logits, token_counts),
            auxiliary=extra,
        )

    def _read(
        self,
        input_ids_BT: Tensor,
        position_ids: Tensor | None,
        document_ids: Tensor | None,
        image_features: Tensor | None,
        document_starts: Tensor | None,
    ) -> tuple[Tensor, Auxiliary | None]:
        T, device = input_ids_BT.shape[1], input_ids_BT.device
        if position_ids is None:
            position_ids = torch.arange(T, device=device)[None]
        backend = choose_backend(
            self._attention,
            device=device,
            needs_blocks=document_ids is not None or any(w and w < T for w in self._windows),
            needs_grad=torch.is_grad_enabled()
            and any(weight.requires_grad for weight in self.parameters()),
            T=T,
        )
        masks = build_masks(
            backend, windows=self._windows, T=T, device=device, document_ids_BT=document_ids,
            starts=document_starts,
        )  # fmt: skip
        rotary = rotary_tables(self.config, position_ids)
        x_BTD = self._embed(input_ids_BT, image_features)
        counted_BT = self._counted(input_ids_BT, document_ids)
        routings: list[Routing] = []
        for number, layer in enumerate(self.model.layers):
            given = (x_BTD, rotary, masks[self.config.window_of(number)], None, None, counted_BT)
            if number in self._checkpointed and torch.is_grad_enabled():
                out = checkpoint(layer, *given, use_reentrant=False)
            else:
                out = layer(*given)
            if counted_BT is None:
                x_BTD = out
            else:
                x_BTD, routing = out
                routings.append(routing)
        moe = self.config.moe
        extra = auxiliary(routings, moe) if moe is not None and routings else None
        return self.model.norm(x_BTD), extra

    def _counted(self, input_ids_BT: Tensor, document_ids_BT: Tensor | None) -> Tensor | None:
        """Return which tokens the experts' statistics are of, if there are any: not padding."""
        if self.config.moe is None or not self.training:
            return None
        if document_ids_BT is None:
            return torch.ones_like(input_ids_BT, dtype=torch.bool)
        return document_ids_BT >= 0

    def _embed(self, input_ids_BT: Tensor, image_features: Tensor | None) -> Tensor:
        """Return the vectors of words and, of a model that sees, of images among them."""
        embedding, sight = self.model.embed_tokens, self.multi_modal_projector
        if sight is None:
            return embedding(input_ids_BT)
        if image_features is None:
            return sight.embed(embedding, input_ids_BT)
        return sight.place(embedding(input_ids_BT), input_ids_BT, image_features)

    def _read_cached(
        self,
        input_ids_BT: Tensor,
        position_ids: Tensor | None,
        cache: KVCache,
        token_counts: Tensor | None,
    ) -> Tensor:
        T, piece = input_ids_BT.shape[1], cache.longest_piece
        pieces = []
        for begin in range(0, T, piece):
            ids_Bt = input_ids_BT[:, begin : begin + piece]
            positions_Bt = None if position_ids is None else position_ids[:, begin : begin + piece]
            pieces.append(self._read_piece(ids_Bt, positions_Bt, cache))
            t = ids_Bt.shape[1]
            cache.advance(t if token_counts is None else (token_counts - begin).clamp(0, t))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def _read_piece(
        self, input_ids_BT: Tensor, position_ids: Tensor | None, cache: KVCache
    ) -> Tensor:
        step = cache.begin(input_ids_BT.shape[1])
        masks = build_cached_masks(self._attention, windows=self._windows, step=step)
        positions_BT = step.positions_BT if position_ids is None else position_ids
        rotary = rotary_tables(self.config, positions_BT)
        x_BTD = self._embed(input_ids_BT, None)
        for number, layer in enumerate(self.model.layers):
            x_BTD = layer(x_BTD, rotary, masks[self.config.window_of(number)], cache, step)
        return self.model.norm(x_BTD)

    def _logits(
        self, hidden_BTD: Tensor, which: Logits, token_counts: Tensor | None
    ) -> Tensor | None:
        if which == "none":
            return None
        if which == "last":
            if token_counts is None:
                hidden_BTD = hidden_BTD[:, -1:]
            else:
                last_B = (token_counts.to(hidden_BTD.device) - 1).clamp(min=0)
                rows_B = torch.arange(last_B.shape[0], device=hidden_BTD.device)
                hidden_BTD = hidden_BTD[rows_B, last_B][:, None]
        return self.head(hidden_BTD)


def parse_layers(layers: str, *, count: int) -> frozenset[int]:
    """Return the layer numbers that `none`, `all` or `0,2,4` names.

    Raises:
        ConfigError: something else, or a layer that doesn't exist.
    """
    text = layers.strip().lower()
    if text in {"none", "all"}:
        return frozenset(range(count) if text == "all" else ())
    try:
        numbers = frozenset(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"train.gradient_checkpointing = {layers!r}: write none, all, or layer numbers "
            "such as 0,2,4"
        ) from None
    for number in sorted(numbers):
        if not 0 <= number < count:
            raise ConfigError(
                f"train.gradient_checkpointing = {layers!r}: there is no layer {number}; the model "
                f"has {count}, numbered 0 to {count - 1}"
            )
    return numbers
