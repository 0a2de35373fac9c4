"""What a model shape costs: parameters, FLOPs and memory, from the configuration alone.

Axes: D hidden, H heads, G kv heads, K head dim, F ffn, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minimind.config import ModelConfig

FP32, BF16, INT8 = 4, 2, 1
"""Bytes of a number."""

LOSS_CHUNK = 1024
"""Tokens whose logits the loss holds at once: 1,024 x 12,000 in fp32 are 49 MB."""

GPU_LOGITS = 100_000_000
"""Logits that it holds at once on a GPU, 400 MB. The compiler unrolls the chunks, at 0.6 s each
whenever it meets a shape: 64 of them in a micro-batch of 65,536 tokens (docs/LOG.md)."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many parameters each part of the model has.

    Attributes:
        embedding: the token table; if tied it is the output matrix as well.
        output: the output matrix, 0 if tied.
        attention: the four matrices of every layer.
        biases: of attention (Qwen2); 0 in our own models.
        feed_forward: the three matrices of every layer, of all its experts.
        norms: every RMSNorm.
        router: of a mixture of experts; else 0.
    """

    embedding: int
    output: int
    attention: int
    feed_forward: int
    norms: int
    biases: int = 0
    router: int = 0

    @property
    def total(self) -> int:
        """Return all of them; tied weights count once."""
        return self.embedding + self.output + self.non_embedding

    @property
    def non_embedding(self) -> int:
        """Return those of the layers and norms (what scaling laws call N)."""
        return self.hidden_matrices + self.norms + self.biases + self.router

    @property
    def hidden_matrices(self) -> int:
        """Return those that Muon trains."""
        return self.attention + self.feed_forward


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes held while training with fp32 weights and bf16 autocast (`bench/memory.py` checks).

    Attributes:
        weights: fp32.
        copies: the bf16 copies that autocast makes of the matrices, until the backward pass ends.
        gradients: fp32.
        adamw: two fp32 moments for each parameter.
        muon: one fp32 momentum for the hidden matrices, AdamW for the rest.
        muon_work: what orthogonalising the largest stack of equal matrices takes for a while.
        activations: kept of one micro-batch for the backward pass, nothing checkpointed.
        activations_checkpointed: the same with every layer checkpointed.
        layer: activations of one layer, which a checkpointed one holds while it is computed again.
        loss: gradients that the loss makes in the forward pass.
        loss_work: a chunk of logits.
    """

    weights: int
    copies: int
    gradients: int
    adamw: int
    muon: int
    muon_work: int
    activations: int
    activations_checkpointed: int
    layer: int
    loss: int
    loss_work: int

    def total(
        self, *, optimizer: str = "muon", checkpointed: bool = False, averaged: bool = False
    ) -> int:
        """Return the peak of a step: at the loss, in the backward pass, or in the update.

        In the backward pass activations go as gradients come, so its two ends count. An average of
        the weights (`train.average_decay`) is a second copy of them.
        """
        state, work = {"adamw": (self.adamw, 0), "muon": (self.muon, self.muon_work)}[optimizer]
        kept = self.activations_checkpointed if checkpointed else self.activations
        forward = self.copies + kept + self.loss + self.loss_work
        first = self.copies + kept + self.loss + (self.layer if checkpointed else 0)
        last = self.copies + self.gradients + self.layer
        return (
            self.weights * (1 + averaged) + state + max(forward, first, last, self.gradients + work)
        )


@dataclass(frozen=True, kw_only=True)
class InferenceMemory:
    """Bytes held while generating: the weights in one of three precisions, and the cache.

    Attributes:
        int8: matrices as int8 with one bf16 scale for each output row, norms bf16.
        cache_per_512_tokens: keys and values of one row of 512 tokens, bf16.
    """

    fp32: int
    bf16: int
    int8: int
    cache_per_512_tokens: int


def count_parameters(config: ModelConfig) -> Parameters:
    """Return the number of parameters of each part."""
    D, K, L = config.hidden_size, config.head_dim, _layers(config)
    H, G, moe = config.num_attention_heads, config.num_key_value_heads, config.moe
    F = moe.num_experts * moe.moe_intermediate_size if moe else config.intermediate_size
    table = config.vocab_size * D
    return Parameters(
        embedding=table,
        output=0 if config.tie_word_embeddings else table,
        attention=L * (2 * D * H * K + 2 * D * G * K),
        feed_forward=L * 3 * D * F,
        norms=L * (2 * D + (2 * K if config.qk_norm else 0)) + D,
        biases=L * ((H + 2 * G) * K * config.qkv_bias + D * config.attention_bias),
        router=L * moe.num_experts * D if moe else 0,
    )


def active_parameters(config: ModelConfig) -> Parameters:
    """Return the parameters that take part in one token: of the experts only the chosen ones."""
    parts = count_parameters(config)
    if config.moe is None:
        return parts
    share = config.moe.num_experts_per_tok / config.moe.num_experts
    return replace(parts, feed_forward=round(parts.feed_forward * share))


def training_flops_per_token(config: ModelConfig, *, sequence_length: int) -> float:
    """Return the FLOPs of forward and backward for one token of a row of `sequence_length`.

    6 N + sum over layers of 12 H K keys. N are the matrices that multiply a token: 2 N forward and
    4 N backward (Kaplan et al. 2020, section 2.1). The embedding only looks up, so a tied one
    counts once, as the output matrix; norms are left out. `keys` is how many keys a token sees on
    average, (T + 1) / 2 without a window: the attention term of PaLM (Chowdhery et al. 2022,
    appendix B) without the half that causality masks. Checkpointed layers compute more; that is
    not counted as useful.
    """
    parts = active_parameters(config)
    multiplied = parts.hidden_matrices + parts.router + config.vocab_size * config.hidden_size
    return 6 * multiplied + 3 * _attention_flops(config, sequence_length=sequence_length)


def inference_flops_per_token(config: ModelConfig, *, sequence_length: int) -> float:
    """Return the FLOPs of reading one token, on average over a row: a third of training's."""
    return training_flops_per_token(config, sequence_length=sequence_length) / 3


def mean_keys(sequence_length: int, *, window: int | None) -> float:
    """Return how many keys a token of a row sees on average under a causal mask."""
    T = sequence_length
    w = T if window is None else min(window, T)
    return w - w * (w - 1) / (2 * T)


def loss_chunk(vocab_size: int, *, device: str) -> int:
    """Return how many tokens' logits the loss holds at once on a device, `cpu` or `cuda`."""
    if device != "cuda":
        return LOSS_CHUNK
    return max(LOSS_CHUNK, 1 << (GPU_LOGITS // vocab_size).bit_length() - 1)


def training_memory(
    config: ModelConfig, *, micro_batch_rows: int, sequence_length: int, device: str = "cpu"
) -> TrainingMemory:
    """Return what one process holds while training on a device, `cpu` or `cuda`, in bytes."""
    parts = count_parameters(config)
    tokens = micro_batch_rows * sequence_length
    D, L, V = config.hidden_size, _layers(config), config.vocab_size
    layer = _layer_activations(config) * tokens
    last_norm = 2 * D * FP32 * tokens
    return TrainingMemory(
        weights=FP32 * parts.total,
        copies=BF16 * (parts.total - parts.norms),
        gradients=FP32 * parts.total,
        adamw=2 * FP32 * parts.total,
        muon=FP32 * parts.hidden_matrices + 2 * FP32 * (parts.total - parts.hidden_matrices),
        # Rounded matrices, their stack, and two results of an iteration.
        muon_work=4 * BF16 * _largest_stack(config),
        activations=L * layer + last_norm,
        activations_checkpointed=L * D * FP32 * tokens + last_norm,
        layer=layer,
        loss=D * BF16 * tokens + V * D * FP32,
        # The logits, and in turn their logarithms or their gradient.
        loss_work=min(loss_chunk(V, device=device), tokens) * V * 2 * FP32,
    )


def inference_memory(config: ModelConfig) -> InferenceMemory:
    """Return what the weights and the cache of one row take, in bytes."""
    parts = count_parameters(config)
    matrices = parts.total - parts.norms
    D, K, L, moe = config.hidden_size, config.head_dim, _layers(config), config.moe
    F = moe.moe_intermediate_size if moe else config.intermediate_size
    experts = moe.num_experts if moe else 1
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    tables = 1 if config.tie_word_embeddings else 2
    rows = tables * config.vocab_size + L * (heads * K + D + experts * (2 * F + D))
    return InferenceMemory(
        fp32=FP32 * parts.total,
        bf16=BF16 * parts.total,
        int8=INT8 * (matrices - parts.router) + BF16 * (rows + parts.norms + parts.router),
        cache_per_512_tokens=cache_bytes(config, tokens=512),
    )


def cache_bytes(config: ModelConfig, *, tokens: int, bytes_per_number: int = BF16) -> int:
    """Return the size of keys and values that must be kept of one row of `tokens`."""
    row = 2 * config.num_key_value_heads * config.head_dim * bytes_per_number
    windows = (config.window_of(layer) for layer in range(_layers(config)))
    return sum(row * min(tokens, window or tokens) for window in windows)


def _layers(config: ModelConfig) -> int:
    return config.num_hidden_layers


def _attention_flops(config: ModelConfig, *, sequence_length: int) -> float:
    """Return the forward FLOPs of scores and mixing, over all layers, for one token."""
    width = config.num_attention_heads * config.head_dim
    windows = (config.window_of(layer) for layer in range(_layers(config)))
    return sum(4 * width * mean_keys(sequence_length, window=window) for window in windows)


def _layer_activations(config: ModelConfig) -> int:
    """Return the bytes that one token leaves in one layer for the backward pass (bf16 autocast).

    Counted from `DecoderLayer` with eager kernels; a test holds it to what autograd really saves.
    A compiled step saves less, for it computes cheap elementwise results again; but the attention
    that it takes on a CPU keeps the scores (docs/LOG.md has both peaks).
    """
    D, K, moe = config.hidden_size, config.head_dim, config.moe
    F = moe.num_experts_per_tok * moe.moe_intermediate_size if moe else config.intermediate_size
    H, G = config.num_attention_heads, config.num_key_value_heads
    norms = 2 * (2 * D * FP32 + D * BF16)  # input and scaled input in fp32, result in bf16
    # q_norm, k_norm: input and scaled input in fp32
    heads = (H + G) * K * (2 * FP32) if config.qk_norm else 0
    attention = (H + 2 * G) * K * BF16 + H * K * 2 * BF16 + H * FP32  # q k v, out, out again, lse
    feed_forward = 4 * F * BF16  # gate, silu(gate), up, their product
    if moe:  # each choice's copy of the token and its result; fp32: input, scores of the experts
        feed_forward += 2 * moe.num_experts_per_tok * D * BF16 + (D + 3 * moe.num_experts) * FP32
    return norms + heads + attention + feed_forward


def _largest_stack(config: ModelConfig) -> int:
    """Return how many weights the hidden matrices of one shape have, at most."""
    D, K, L, moe = config.hidden_size, config.head_dim, _layers(config), config.moe
    H, G = config.num_attention_heads, config.num_key_value_heads
    F = moe.moe_intermediate_size if moe else config.intermediate_size
    stacks: dict[tuple[int, int], int] = {}
    matrices = {"q": (H * K, D), "k": (G * K, D), "v": (G * K, D), "o": (D, H * K)}
    for shape in matrices.values():
        stacks[shape] = stacks.get(shape, 0) + L
    experts = moe.num_experts if moe else 1
    for shape, number in (((F, D), 2), ((D, F), 1)):
        stacks[shape] = stacks.get(shape, 0) + L * number * experts
    return max(rows * columns * count for (rows, columns), count in stacks.items())
