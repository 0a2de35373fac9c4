"""A running mean of the weights: what a run validates, samples and saves in their place.

The mean over the last steps lies lower in the loss than any of them while the learning rate is
high (Polyak & Juditsky 1992; Izmailov et al. 2018). A warm-down does much the same to the weights
themselves: what is left to gain after one is measured in docs/LOG.md.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.model import CausalLM


class WeightAverage:
    """An exponential moving average of a model's trained weights, as a model of its own.

    mean = d mean + (1 - d) weights after each update, with d = min(decay, (1 + n) / (10 + n)) after
    n updates: a fixed d would hold on to the random weights that the run began with.

    Args:
        model: is averaged; frozen weights are shared with the copy, not copied.
        decay: of one step, from 0 to below 1; 1 / (1 - decay) steps weigh most.

    Attributes:
        model: the copy with the averaged weights, without gradients.
    """

    def __init__(self, model: CausalLM, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        shared: dict[int, Any] = {
            id(weight): weight for weight in model.parameters() if not weight.requires_grad
        }
        self._trained = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self.model = copy.deepcopy(model, shared)
        averaged = dict(self.model.named_parameters())
        self._averaged = {name: averaged[name] for name in self._trained}
        for weight in self._averaged.values():
            weight.requires_grad = False

    @torch.no_grad()
    def update(self) -> None:
        """Move the mean towards the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, weight in self._trained.items():
            self._averaged[name].lerp_(weight, 1 - decay)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the weights as the next step needs them: a checkpoint's model is the mean."""
        weights = {name: weight.detach() for name, weight in self._trained.items()}
        return {"updates": self.updates, "weights": weights}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; the mean was loaded into the trained model beforehand.

        Raises:
            CheckpointError: it is of another model, or of a run without an average.
        """
        weights: dict[str, Tensor] = state.get("weights", {})
        if weights.keys() != self._trained.keys():
            odd = sorted(weights.keys() ^ self._trained.keys())[0]
            raise CheckpointError(
                f"the averaged run's own weights don't fit this model: {odd!r} is on one side only."
                " Resume with the same train.average_decay and the same model"
            )
        for name, weight in self._trained.items():
            self._averaged[name].copy_(weight)
            weight.copy_(weights[name])
        self.updates = state["updates"]
