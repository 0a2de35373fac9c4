"""Which experts of a mixture took which tokens of a reading."""

from __future__ import annotations

from typing import Any

from minimind.inference.experts import chosen_experts
from minimind.inspect.reading import Reading


def experts(reading: Reading) -> dict[str, Any] | None:
    """Return each layer's choices for each token, best first; None for a dense model."""
    moe = reading.model.config.moe
    if moe is None:
        return None
    chosen_LTC, weights_LTC = chosen_experts(reading.model, reading.ids)
    return {
        "experts": moe.num_experts,
        "choices": moe.num_experts_per_tok,
        "chosen": chosen_LTC.tolist(),
        "weights": [
            [[float(f"{weight:.3g}") for weight in token] for token in layer]
            for layer in weights_LTC.tolist()
        ],
    }
