"""Every setting of the system as frozen dataclasses.

A run is described by layered TOML presets and flags: `minimind train pretrain nano --optim.lr 1e-3`
lays the stage `pretrain.toml` over the shape `nano.toml`, then the flags. The result is written as
`run.toml` beside each checkpoint; running that file again repeats the run.
The strict reader is in `minimind.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from minimind.errors import ConfigError

LayerType = Literal["full_attention", "sliding_attention"]
ModelType = Literal["qwen3", "qwen2", "llama"]


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary positions are stretched past the length that was trained.

    Field names are those of `rope_parameters` in a Hugging Face config.json.

    Attributes:
        rope_type: `linear` (Chen et al. 2023), `dynamic` (dynamic NTK), `yarn` (Peng et al. 2023).
        factor: new length divided by `original_max_position_embeddings`.
        original_max_position_embeddings: positions that the model was trained on.
        beta_fast: YaRN: dimensions that turn more often than this are left alone.
        beta_slow: YaRN: dimensions that turn less often than this are interpolated fully.
    """

    rope_type: Literal["linear", "dynamic", "yarn"]
    factor: float
    original_max_position_embeddings: int = 512
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        if self.factor < 1.0:
            raise ConfigError(f"model.rope_scaling.factor = {self.factor}: must be at least 1")
        if self.original_max_position_embeddings < 1:
            raise ConfigError(
                "model.rope_scaling.original_max_position_embeddings = "
                f"{self.original_max_position_embeddings}: must be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model. Field names are those of a Hugging Face Qwen3 config.json.

    The default is the `64m` preset: 64.87M parameters. `head_dim * num_attention_heads` need not
    equal `hidden_size`. `layer_types` gives one entry a layer; without it every layer is full
    attention, or sliding if `sliding_window` is set. `model_type` says how attention differs in the
    families that `minimind import` reads: `qwen3` norms queries and keys, `qwen2` adds biases to
    queries, keys and values instead, `llama` does neither. `attention_bias` adds biases to all four
    matrices of attention.
    """

    model_type: ModelType = "qwen3"
    vocab_size: int = 12_000
    hidden_size: int = 512
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int = 8
    head_dim: int = 64
    intermediate_size: int = 4_096
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    layer_types: tuple[LayerType, ...] | None = None
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                     "num_key_value_heads", "head_dim", "intermediate_size",
                     "max_position_embeddings"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} = {getattr(self, name)}: must be at least 1")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"model.num_key_value_heads = {self.num_key_value_heads} must divide "
                f"model.num_attention_heads = {self.num_attention_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(
                f"model.head_dim = {self.head_dim}: rotary positions need an even one"
            )
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ConfigError(f"model.sliding_window = {self.sliding_window}: must be at least 1")
        if self.layer_types is not None:
            if len(self.layer_types) != self.num_hidden_layers:
                raise ConfigError(
                    f"model.layer_types has {len(self.layer_types)} entries, "
                    f"model.num_hidden_layers = {self.num_hidden_layers}"
                )
            if "sliding_attention" in self.layer_types and self.sliding_window is None:
                raise ConfigError(
                    "model.layer_types has sliding_attention: set model.sliding_window"
                )

        if self.model_type == "llama" and self.sliding_window is not None:
            raise ConfigError(
                f"model.sliding_window = {self.sliding_window}: model_type llama has none"
            )
        if self.model_type == "qwen2" and self.attention_bias:
            raise ConfigError(
                "model.attention_bias = true: model_type qwen2 has biases on queries, keys and "
                "values only, always; leave it out"
            )

    @property
    def qk_norm(self) -> bool:
        """Tell whether every query and key head is normed before its rotation."""
        return self.model_type == "qwen3"

    @property
    def qkv_bias(self) -> bool:
        """Tell whether queries, keys and values have biases."""
        return self.attention_bias or self.model_type == "qwen2"

    def window_of(self, layer: int) -> int | None:
        """Return the attention window of `layer` in tokens (itself included), or None for full."""
        if self.layer_types is not None and self.layer_types[layer] == "full_attention":
            return None
        return self.sliding_window


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021).

    `rslora` scales by alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rslora: bool = False
    target_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout = {self.dropout}: from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Where the weights come from.

    Attributes:
        checkpoint: a checkpoint directory, a run directory (its newest step) or `RUN:best`.
            None starts from random weights with the shape of `[model]`.
        tokenizer: a directory with tokenizer.json; `default` is the 12,000 one in the package.
            None takes the checkpoint's.
        rope_scaling: stretch the checkpoint's context (see `RopeScaling`).
    """

    checkpoint: str | None = None
    tokenizer: str | None = None
    rope_scaling: RopeScaling | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read and how rows are made.

    Attributes:
        train: paths, globs, or `catalogue:NAME` of JSONL or .txt files (.zst, .gz).
        weights: one number a path: its share of the bytes that are read. None: its size, so that
            all end a pass together.
        kind: `text` packs documents; `chat` packs whole conversations with the answer mask;
            `preference` pads pairs.
        sequence_length: tokens in a row.
        validation: paths of held-out rows. None: the documents that the hash holds out.
        validation_share: share of documents held out by the hash of their text.
        document_mask: attention does not cross document boundaries in a packed row.
        pack: False pads every document to a row of its own (the original's way, for comparison).
        shuffle_mb: documents are shuffled inside windows of this many MB of text.
        epochs_limit: stop after so many passes. None: until the step budget is reached.
    """

    train: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    kind: Literal["text", "chat", "preference"] = "text"
    sequence_length: int = 512
    validation: tuple[str, ...] | None = None
    validation_share: float = 0.01
    document_mask: bool = True
    pack: bool = True
    shuffle_mb: int = 256
    epochs_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        kind: `next-token`, `dpo` (Rafailov et al. 2023) or `distill` (Hinton et al. 2015).
        beta: DPO: strength of the pull towards the reference.
        label_smoothing: DPO: share of flipped labels assumed (conservative DPO).
        teacher: distill: checkpoint of the teacher.
        temperature: distill: both distributions are softened by it.
        alpha: distill: weight of the teacher's distribution against the labels.
    """

    kind: Literal["next-token", "dpo", "distill"] = "next-token"
    beta: float = 0.1
    label_smoothing: float = 0.0
    teacher: str | None = None
    temperature: float = 2.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"objective.temperature = {self.temperature}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser and its schedule.

    Attributes:
        kind: `muon` uses Muon for the hidden matrices and AdamW for the rest; `adamw` for all.
        lr: peak learning rate of AdamW.
        muon_lr: peak learning rate of Muon.
        weight_decay: decoupled, on matrices only (not on norms or embeddings).
        schedule: `wsd` warms up, stays, and decays linearly over the last `decay_share`;
            `cosine` warms up and decays to `final_lr_share`; `constant` warms up and stays.
        warmup_share: share of all steps that warm up linearly.
    """

    kind: Literal["muon", "adamw"] = "muon"
    lr: float = 3e-3
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip_grad_norm: float = 1.0
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup_share: float = 0.02
    decay_share: float = 0.4
    final_lr_share: float = 0.0

    def __post_init__(self) -> None:
        if not self.clip_grad_norm > 0:
            raise ConfigError(
                f"optim.clip_grad_norm = {self.clip_grad_norm}: must be above 0; inf never clips"
            )
        for name in ("lr", "muon_lr", "eps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"optim.{name} = {getattr(self, name)}: must not be negative")
        for name, values in (("betas", self.betas), ("muon_momentum", (self.muon_momentum,))):
            if not all(0 <= value < 1 for value in values):
                raise ConfigError(f"optim.{name} = {getattr(self, name)}: from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop.

    Attributes:
        steps: optimizer updates. None: from `tokens`, or from `epochs` passes over the data.
        tokens: token budget (slots, padding included).
        batch_rows: rows (pairs for preference) in a step, over all ranks and micro-batches.
        micro_batch_rows: rows in one forward and backward.
        precision: `bf16` and `fp16` are `torch.amp` over fp32 weights; `auto` is bf16 where the
            device computes it fast, else fp32.
        gradient_checkpointing: `none`, `all` or the layer numbers, for example `0,2,4`.
        max_bad_steps: this many non-finite steps in a row end the run.
        deterministic: ask torch for deterministic kernels (bit-identical resume on CUDA).
    """

    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    batch_rows: int = 512
    micro_batch_rows: int = 16
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = True
    attention: Literal["auto", "sdpa", "flex", "flash", "eager"] = "auto"
    gradient_checkpointing: str = "none"
    max_bad_steps: int = 10
    deterministic: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "tokens", "epochs", "threads", "max_bad_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"train.{name} = {value}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """Checkpoints: `every` steps, the last `keep_last` of them kept, and the best by validation."""

    every: int = 500
    keep_last: int = 2
    keep_best: bool = True


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What a run tells.

    Attributes:
        every: steps between lines of metrics.jsonl.
        validate_every: steps between validations; 0 only at the end.
        validate_rows: held-out rows used each time.
        sample_every: steps between samples; 0 never.
        prompts: what is continued (text) or answered (chat) when sampling.
        tracker: also send metrics there; `wandb-offline` needs no network.
        band: which loss band says whether the run is on track: `auto` is the packaged one of the
            same model and data, if there is one; `none`; or a file of `minimind report band`.
    """

    every: int = 10
    validate_every: int = 250
    validate_rows: int = 64
    sample_every: int = 0
    prompts: tuple[str, ...] = ()
    band: str = "auto"
    tracker: Literal["none", "wandb", "wandb-offline", "tensorboard", "swanlab"] = "none"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run: a model, data, an objective and an optimiser."""

    name: str = "run"
    out: str = "runs"
    seed: int = 42
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    lora: LoraConfig | None = None
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    log: LogConfig = field(default_factory=LogConfig)
