"""Training steps that benchmarks compare: ours, transformers', a textbook's, the original's.

Nothing here needs more than torch and minimind's core; `NEEDS` says what else a system does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

System = Literal["minimind", "transformers", "trainer", "textbook", "original"]
Precision = Literal["fp32", "bf16"]
Mode = Literal["eager", "compiled"]
Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One configuration, as its worker process gets it."""

    model: str
    system: System
    precision: Precision
    mode: Mode
    variant: str
    device: str
    threads: int | None
    attention: str

    @property
    def huge_pages(self) -> bool:
        """Ours runs as `minimind train` does; the others as a script does, or asked, likewise."""
        return self.system == "minimind" or self.variant == "huge-pages"

    @property
    def name(self) -> str:
        """Return what the table calls it."""
        parts = [self.model, self.system, self.precision, self.mode]
        return " ".join(parts if self.variant == "plain" else [*parts, self.variant])


PADDING = 0.4
"""Share of the slots of the original's rows that hold no token."""

NEEDS: dict[str, tuple[str, ...]] = {
    "transformers": ("transformers",), "trainer": ("transformers", "accelerate"),
}  # fmt: skip
"""Packages that a system needs beside minimind's own."""


def missing(system: str) -> str | None:
    """Return which packages a system lacks, in words; None: it can run."""
    import importlib.util

    names = [name for name in NEEDS.get(system, ()) if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(names)}" if names else None


def real_tokens(system: str) -> float:
    """Return the share of a system's slots that hold a token which is learnt."""
    return 1 - PADDING if system == "original" else 1.0


OWN_KEYS = {
    "rope_scaling", "rope_theta", "layer_types", "sliding_window", "moe", "vision", "model_type",
}  # fmt: skip
"""Of our `ModelConfig`, what transformers' Qwen3 has under other names or not at all."""


def qwen3_of(config: Any, **settings: Any) -> Any:
    """Return transformers' Qwen3 (Qwen3-MoE, if it has experts) of the same shape.

    Its weights are random; `settings` are more of its own.
    """
    import dataclasses

    import transformers

    shape = {k: v for k, v in dataclasses.asdict(config).items() if k not in OWN_KEYS}
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.moe is None:
        foreign = transformers.Qwen3Config(**shape, rope_parameters=rope, **settings)
        foreign._attn_implementation = "sdpa"
        return transformers.Qwen3ForCausalLM(foreign)
    experts = {
        name: getattr(config.moe, name)
        for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size",
                     "norm_topk_prob", "router_aux_loss_coef")
    }  # fmt: skip
    balanced = config.moe.router_balance == "loss"
    mixture = transformers.Qwen3MoeConfig(
        **shape, **experts, output_router_logits=balanced, rope_parameters=rope, **settings
    )
    mixture._attn_implementation = "sdpa"
    return transformers.Qwen3MoeForCausalLM(mixture)


def ours(spec: Spec, config: Any, ids: Any) -> Step:
    """Return one step of our trainer."""
    import torch

    from minimind.config import OptimConfig, TrainConfig
    from minimind.data.batch import Batch
    from minimind.model import CausalLM
    from minimind.train import NextToken, Trainer, build_optimizer, build_schedule

    attention = "flash" if spec.variant == "document-mask-flash" else spec.attention
    model = CausalLM(config).to(spec.device)
    model.set_attention(attention)
    optim = OptimConfig(
        kind="muon" if spec.variant == "muon" else "adamw", lr=1e-3, schedule="constant"
    )
    trainer = Trainer(
        model=model,
        objective=NextToken(),
        optimizer=build_optimizer(model, optim),
        schedule=build_schedule(optim, steps=1000),
        config=TrainConfig(
            precision="fp8" if spec.variant == "fp8" else spec.precision,
            compile=spec.mode == "compiled",
            attention=attention,  # pyright: ignore[reportArgumentType]
            fuse_projections=spec.variant == "fused",
        ),
        steps=1000,
    )
    positions = documents = None
    if spec.variant.startswith("document-mask"):  # documents of 128 tokens
        position = torch.arange(ids.shape[1] - 1).expand(ids.shape[0], -1)
        positions, documents = position % 128, position // 128
    batch = Batch(
        input_ids=ids[:, :-1], labels=ids[:, 1:], position_ids=positions, document_ids=documents
    )

    def step() -> None:
        trainer.train_step([batch])

    return step


def theirs(spec: Spec, config: Any, ids: Any) -> Step:
    """Return one step of a plain loop around transformers' Qwen3, with the same AdamW."""
    import torch

    model = qwen3_of(config, use_cache=False).train().to(spec.device)
    call: Any = torch.compile(model) if spec.mode == "compiled" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    rows = ids[:, :-1].to(spec.device)
    half = spec.precision == "bf16"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(spec.device, dtype=torch.bfloat16, enabled=half):
            loss = call(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def trainer(spec: Spec, config: Any, ids: Any) -> Step:
    """Return one step of Hugging Face's Trainer around transformers' Qwen3, on the same rows."""
    from hf_trainer import trainer_step

    model = qwen3_of(config, use_cache=False)
    return trainer_step(
        model, ids[:, :-1], device=spec.device, bf16=spec.precision == "bf16",
        compiled=spec.mode == "compiled",
    )  # fmt: skip


def textbook(spec: Spec, config: Any, ids: Any) -> Step:
    """Return one step of the loop that a textbook has: fp32, eager, all logits at once."""
    import torch
    from torch.nn import functional as F

    from minimind.model import CausalLM

    model = CausalLM(config).to(spec.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, labels = ids[:, :-1].to(spec.device), ids[:, 1:].to(spec.device)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(inputs).logits
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def synchronize(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def original(spec: Spec, config: Any, ids: Any) -> Step:
    """Return one step as jingyaogong/minimind does it: eager, AdamW, logits held, rows padded.

    Its rows are documents of their own, filled up to the row's length; here the last 40 % of each
    row are, so that 60 % of the slots are real tokens (the original's share on its own data). A
    mixture's experts are the loop over boolean masks that it trains with.
    """
    import torch
    from torch.nn import functional as F

    from minimind.data.batch import IGNORE
    from minimind.model import CausalLM

    model = CausalLM(config)
    if config.moe is not None:
        from expert_loops import MaskedExperts, replace_experts

        replace_experts(model, config, MaskedExperts)
    model = model.to(spec.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    inputs, labels = ids[:, :-1].to(spec.device), ids[:, 1:].clone().to(spec.device)
    labels[:, round(labels.shape[1] * (1 - PADDING)) :] = IGNORE
    half = spec.precision == "bf16"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(spec.device, dtype=torch.bfloat16, enabled=half):
            logits = model(inputs).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


BUILDERS: dict[str, Callable[[Spec, Any, Any], Step]] = {
    "minimind": ours, "transformers": theirs, "trainer": trainer, "textbook": textbook,
    "original": original,
}  # fmt: skip
