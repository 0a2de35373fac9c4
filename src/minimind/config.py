"""Every setting of the system as frozen dataclasses.

A run is described by layered TOML presets and flags: `minimind train pretrain nano --optim.lr 1e-3`
lays the stage `pretrain.toml` over the shape `nano.toml`, then the flags. The result is written as
`run.toml` beside each checkpoint; running that file again repeats the run.
The strict reader is in `minimind.settings`.
"""

from __future__ import annotations

import re
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

    def check(self, table: str) -> None:
        """Raise a ConfigError for what can't be; `table` is where it stands."""
        for name in ("factor", "original_max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{table}.{name} = {getattr(self, name)}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """A sparse mixture of experts in place of every feed-forward (`model.moe`).

    The first four fields and `router_aux_loss_coef` have the names of a Qwen3-MoE config.json.

    Attributes:
        num_experts: feed-forwards in a layer.
        num_experts_per_tok: how many of them each token takes.
        moe_intermediate_size: width of one expert.
        norm_topk_prob: the weights of a token's experts add up to 1.
        router_balance: what keeps all experts busy. `loss`: E x sum of load x probability (Fedus et
            al. 2021, Switch, equation 4, in GShard's form for several choices). `bias`: without a
            gradient to the text's model (Wang et al. 2024, auxiliary-loss-free): each expert's
            score is shifted against its excess load. The shift is kept in the router's own
            weights, along the mean of what it reads, so nothing has to be folded in at the end.
            `none`: nothing.
        router_aux_loss_coef: strength of either.
        router_z_loss_coef: of the mean square of the router's log-normaliser (Zoph et al. 2022),
            which keeps its logits small.
    """

    num_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 512
    norm_topk_prob: bool = True
    router_balance: Literal["loss", "bias", "none"] = "loss"
    router_aux_loss_coef: float = 0.1
    router_z_loss_coef: float = 0.001

    def check(self, table: str) -> None:
        """Raise a ConfigError for what can't be; `table` is where it stands."""
        for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{table}.{name} = {getattr(self, name)}: must be at least 1")
        if self.num_experts_per_tok > self.num_experts:
            raise ConfigError(
                f"{table}.num_experts_per_tok = {self.num_experts_per_tok}: there are only "
                f"{table}.num_experts = {self.num_experts}"
            )
        if self.moe_intermediate_size % 8:
            raise ConfigError(
                f"{table}.moe_intermediate_size = {self.moe_intermediate_size}: must be a "
                "multiple of 8, as grouped matrix products want their rows aligned"
            )
        for name in ("router_aux_loss_coef", "router_z_loss_coef"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{table}.{name} = {getattr(self, name)}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """What a model that sees has beside its language model: which encoder, and a projector.

    The encoder is frozen and no part of a checkpoint, which names it; the projector is LLaVA's:
    two matrices with GELU between them (`model.vision`).

    Attributes:
        encoder: `efficientnet-lite0`, or a directory with a CLIP or SigLIP of transformers.
        encoder_sha256: of the encoder's weights; another encoder is refused.
        feature_size: numbers at each position of its grid.
        positions: tokens that an image takes.
        grid: its grid is averaged down to `grid` x `grid` positions; None: taken as it is.
        image_token_id: `<|image_pad|>`, which stands `positions` times for an image.
    """

    encoder: str
    encoder_sha256: str
    feature_size: int
    positions: int
    grid: int | None = None
    image_token_id: int = 11


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model. Field names are those of a Hugging Face Qwen3 config.json.

    The default is the `64m` preset: 64.87M parameters. `head_dim * num_attention_heads` need not
    equal `hidden_size`. `layer_types` gives one entry a layer; without it every layer is full
    attention, or sliding if `sliding_window` is set. `model_type` says how attention differs in the
    families that `minimind import` reads: `qwen3` norms queries and keys, `qwen2` adds biases to
    queries, keys and values instead, `llama` does neither. `attention_bias` adds biases to all four
    matrices of attention. With `moe` a `qwen3` is a Qwen3-MoE: every feed-forward is a mixture of
    experts, and `intermediate_size` is not used.
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
    moe: MoEConfig | None = None
    vision: VisionConfig | None = None

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
        if self.rope_scaling is not None:
            self.rope_scaling.check("model.rope_scaling")
        if self.moe is not None:
            self.moe.check("model.moe")
        if self.moe is not None and self.model_type != "qwen3":
            raise ConfigError(
                f"[model.moe] with model.model_type = {self.model_type!r}: a mixture of experts "
                "is a qwen3 here (Qwen3-MoE)"
            )
        if self.moe is not None and len(set(self.layer_types or ())) > 1:
            raise ConfigError(
                "model.layer_types mixes windows: Qwen3-MoE has one for all layers. Leave it out, "
                "and set or leave out model.sliding_window"
            )
        if self.moe is not None and self.hidden_size % 8:
            raise ConfigError(
                f"model.hidden_size = {self.hidden_size}: with [model.moe] it must be a multiple "
                "of 8, as grouped matrix products want their rows aligned"
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
class SightConfig:
    """Give a checkpoint eyes, or go on training those it has.

    Attributes:
        encoder: `efficientnet-lite0` (downloaded on first use), or a directory with a CLIP or
            SigLIP as transformers saves it. Only read when the checkpoint has no eyes yet.
        grid: average the encoder's grid down to `grid` x `grid` tokens an image: shorter rows,
            coarser sight. None keeps it (49 tokens of efficientnet-lite0, 256 to 729 of others).
        train: `projector` (alignment) leaves the language model as it is; `all` trains it too.
    """

    encoder: str = "efficientnet-lite0"
    grid: int | None = None
    train: Literal["projector", "all"] = "projector"

    def __post_init__(self) -> None:
        if self.grid is not None and self.grid < 1:
            raise ConfigError(f"vision.grid = {self.grid}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Where the weights come from.

    Attributes:
        checkpoint: a checkpoint directory, a run directory (its newest step) or `RUN:best`.
            None starts from random weights with the shape of `[model]`.
        tokenizer: a directory with tokenizer.json; `default` is the 12,000 one in the package.
            None takes the checkpoint's.
        rope_scaling: stretch the checkpoint's context (see `RopeScaling`).
        upcycle: make a dense checkpoint a mixture of experts that start as copies of its
            feed-forward (Komatsuzaki et al. 2022), or as slices of it.
        zero_projections: of fresh weights, the two matrices of a layer that write to the residual
            stream start at zero: every layer begins as the identity.
        upcycle_noise: standard deviation of what is added to the experts' weights, as a share of
            the weights' own; 0 computes what the dense model computes.
    """

    checkpoint: str | None = None
    tokenizer: str | None = None
    rope_scaling: RopeScaling | None = None
    upcycle: MoEConfig | None = None
    upcycle_noise: float = 0.0
    zero_projections: bool = False

    def __post_init__(self) -> None:
        if self.rope_scaling is not None:
            self.rope_scaling.check("init.rope_scaling")
        if self.upcycle is not None:
            self.upcycle.check("init.upcycle")
        if not self.upcycle_noise >= 0:
            raise ConfigError(f"init.upcycle_noise = {self.upcycle_noise}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read and how rows are made.

    Attributes:
        train: paths or globs of JSONL, .txt (both also .zst, .gz), Parquet or WARC files;
            `catalogue:NAME`; `hub:ORG/NAME[@REVISION][:CONFIG[:SPLIT]]`, streamed from the hub.
        weights: one number a path: its share of the bytes that are read. None: its size, so that
            all end a pass together.
        temperature: without weights: shares are size ** (1 / temperature), so above 1 the small
            sources are read more often.
        epochs_caps: one number a path: after so many passes it gives no more; 0: no cap.
        curriculum: stages `AFTER_MB:WEIGHT,WEIGHT,...`: the weights from there on. MB of rows read
            in all; a weight of 0 rests.
        accept_licences: licences, beside the open ones, under which hub data may be used.
        retry_seconds: a hub data set that is silent for longer ends the run.
        kind: `text` packs documents; `chat` packs whole conversations with the answer mask;
            `image` is chat about images, with conversations and texts among it; `preference` pads
            pairs.
        sequence_length: tokens in a row.
        validation: paths of held-out rows. None: the documents that the hash holds out.
        validation_share: share of documents held out by the hash of their text.
        document_mask: attention does not cross document boundaries in a packed row.
        pack: False pads every document to a row of its own (the original's way, for comparison).
        shuffle_mb: documents are shuffled inside windows of this many MB of text.
        epochs_limit: stop after so many passes. None: until the step budget is reached.
        num_workers: processes that encode rows; 0: a thread of the run. The rows are the same.
        cache: token shards for the next epoch and run: `auto` keeps those of large sources in
            $MINIMIND_CACHE/tokens, a folder keeps all in it, `off` none. The rows are the same.
        cache_gb: above it the least recently used shards are deleted.
    """

    train: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    kind: Literal["text", "chat", "preference", "image"] = "text"
    sequence_length: int = 512
    validation: tuple[str, ...] | None = None
    validation_share: float = 0.01
    document_mask: bool = True
    pack: bool = True
    shuffle_mb: int = 256
    epochs_limit: int | None = None
    temperature: float = 1.0
    epochs_caps: tuple[int, ...] | None = None
    curriculum: tuple[str, ...] = ()
    accept_licences: tuple[str, ...] = ()
    retry_seconds: float = 900.0
    num_workers: int = 0
    cache: str = "auto"
    cache_gb: float = 20.0


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
        minutes: wall-clock of the run, resumes included: start-up, saves and work that a kill
            undid count, the time between two processes doesn't. How many steps fit is found out
            while it trains (`train.pace`); `steps`, `tokens` or `epochs` are the first guess, by
            default one pass over the data. The length in the end is in run.toml, as `steps`.
        batch_rows: rows (pairs for preference) in a step, over all ranks and micro-batches.
        micro_batch_rows: rows in one forward and backward.
        precision: `bf16` and `fp16` are `torch.amp` over fp32 weights; `auto` is bf16 where the
            device computes it fast, else fp32. `fp8` is bf16 with the layers' matrix products in
            8 bits (torchao; H100 class or newer); weights stay fp32 and are saved as ever.
        gradient_checkpointing: `none`, `all` or the layer numbers, for example `0,2,4`.
        max_bad_steps: this many non-finite steps in a row end the run.
        deterministic: ask torch for deterministic kernels (bit-identical resume on CUDA).
        fuse_projections: queries, keys and values come from one product, gate and up from another.
            The weights stay apart: what is saved, trained and orthogonalised is the same.
        average_decay: what is validated, sampled and saved is a running mean of the weights that
            forgets so slowly (0.97: over about 33 steps; `train.average`); 0: the weights.
        parallel: several processes (torchrun) each hold the whole model (`replicate`), or a share
            of weights, gradients and optimizer (`shard`, FSDP2). One process ignores it.
    """

    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_rows: int = 512
    micro_batch_rows: int = 16
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8"] = "auto"
    compile: bool = True
    attention: Literal["auto", "sdpa", "flex", "flash", "eager"] = "auto"
    gradient_checkpointing: str = "none"
    max_bad_steps: int = 10
    deterministic: bool = False
    fuse_projections: bool = False
    average_decay: float = 0.0
    threads: int | None = None
    parallel: Literal["replicate", "shard"] = "replicate"

    def __post_init__(self) -> None:
        for name in ("steps", "tokens", "epochs", "minutes", "threads", "max_bad_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"train.{name} = {value}: must be above 0")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(
                f"train.average_decay = {self.average_decay}: from 0 (no average) to below 1"
            )


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
class KitConfig:
    """A domain: what it is called, what it says of itself, how it is examined (docs/kits.md).

    The adapters of a run with a kit carry it as kit.json; the trainer doesn't look at it.

    Attributes:
        name: what `--kit` and the served model call it.
        title: for people.
        disclaimer: in the model card and on the page of results.
        system: the system prompt with which it is served when a request has none.
        sources: of the catalogue, whose questions `minimind data kit` takes.
        safety: file of `[[rows]]` that teach manners: a path, or a file of the package.
        probes: file of `[[probes]]` that check them.
        tasks: of `minimind eval` that belong to the domain.
        general: of `minimind eval` that say what was forgotten.
        subjects: of C-Eval and CMMLU that belong to the domain.
    """

    name: str = ""
    title: str = ""
    disclaimer: str = ""
    system: str = ""
    sources: tuple[str, ...] = ()
    safety: str = ""
    probes: str = ""
    tasks: tuple[str, ...] = ()
    general: tuple[str, ...] = ("domains", "idiom_cloze", "arithmetic")
    subjects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]*", self.name):
            raise ConfigError(f"kit.name = {self.name!r}: letters, digits, - and _ only")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run: a model, data, an objective and an optimiser."""

    name: str = "run"
    out: str = "runs"
    seed: int = 42
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    lora: LoraConfig | None = None
    vision: SightConfig | None = None
    kit: KitConfig | None = None
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    log: LogConfig = field(default_factory=LogConfig)
