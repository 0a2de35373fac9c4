"""What scoring asks of a model, so that models that aren't ours can be scored as well."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from torch import Tensor

from minimind.model import CausalLMOutput


class HasContext(Protocol):
    """The part of a configuration that scoring reads."""

    @property
    def max_position_embeddings(self) -> int:
        """Tokens that the model can see."""
        ...


class ScoredModel(Protocol):
    """Our `CausalLM`, or another model behind the same few names (`eval.transformers_lm`).

    Attributes:
        training: as in `nn.Module`.
    """

    training: bool

    @property
    def config(self) -> HasContext:
        """How long a row may be."""
        ...

    @property
    def output_weight(self) -> Tensor:
        """The (V, D) matrix from hidden states to logits."""
        ...

    def __call__(self, input_ids_BT: Tensor, /, *, logits: Literal["none"]) -> CausalLMOutput:
        """Read whole rows, (B, T) int64; return hidden states (B, T, D)."""
        ...

    def train(self, mode: bool = True) -> Any:
        """As in `nn.Module`."""
        ...

    def eval(self) -> Any:
        """As in `nn.Module`."""
        ...
