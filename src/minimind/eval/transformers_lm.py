"""Any causal language model of transformers, measured by our own evaluation.

For models whose shape isn't ours (GPT-2, say; `minimind import` reads those that are): the class
and the weights are transformers', and what `label_log_probs` asks of a model is answered from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minimind.errors import CheckpointError, require
from minimind.importing.vocabulary import make_tokenizer
from minimind.model import CausalLMOutput
from minimind.tokenizer import Tokenizer

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length")
_UNSTATED_LENGTH = 2048
"""Context taken where a configuration states none (models without position embeddings)."""
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The two fields of a configuration that evaluation reads."""

    vocab_size: int
    max_position_embeddings: int


class TransformersLM(nn.Module):
    """A causal model of transformers behind the interface of `CausalLM` that evaluation uses.

    Its log-probabilities must be those of one matrix times the last hidden states: that is how the
    scoring avoids the logits of a whole batch. Models with something behind that matrix (a bias, a
    scale, a soft cap) are refused by trying it.
    """

    def __init__(self, model: Any) -> None:
        """Wrap a model.

        Raises:
            CheckpointError: its logits aren't those of one matrix times its last hidden states.
        """
        super().__init__()
        self.wrapped = model.eval()
        lengths = (model.config.to_dict().get(name) for name in _LENGTHS)
        self.config = Limits(
            vocab_size=self.output_weight.shape[0],
            max_position_embeddings=next((n for n in lengths if n), _UNSTATED_LENGTH),
        )
        self._check()

    @property
    def output_weight(self) -> Tensor:
        """Return the (V, D) matrix from hidden states to logits."""
        return self.wrapped.get_output_embeddings().weight

    def forward(self, input_ids_BT: Tensor, *, logits: str = "none") -> CausalLMOutput:
        """Read whole rows; logits of every position unless "none"."""
        hidden_BTD = self.wrapped.base_model(input_ids_BT, use_cache=False).last_hidden_state
        scores = None if logits == "none" else hidden_BTD @ self.output_weight.T
        return CausalLMOutput(hidden_BTD=hidden_BTD, logits=scores)

    @torch.no_grad()
    def _check(self) -> None:
        device = self.output_weight.device
        ids_BT = torch.arange(min(8, self.config.vocab_size), device=device)[None]
        theirs_BTV = self.wrapped(ids_BT).logits.float()
        ours_BTV = self(ids_BT, logits="all").logits.float()
        gap = (theirs_BTV - ours_BTV).abs().max().item()
        if not gap <= _TOLERANCE * max(1.0, theirs_BTV.abs().max().item()):
            raise CheckpointError(
                f"{type(self.wrapped).__name__}: its logits differ by {gap:.3g} from its output "
                "matrix times its last hidden states (a bias, scale or soft cap behind the head): "
                "it can't be scored here"
            )


def load_transformers(path: str | Path) -> tuple[TransformersLM, Tokenizer]:
    """Load a directory of any causal language model that transformers knows, in fp32.

    Nothing is downloaded and no code of the directory is run.

    Args:
        path: the directory; transformers must be able to give its tokenizer as tokenizer.json.

    Returns:
        The model and its tokenizer, for `bits_per_byte` and `label_log_probs`.

    Raises:
        CheckpointError: transformers can't load it, or its head isn't one matrix.
        TokenizerError: its vocabulary is no BPE.
        MissingExtraError: transformers is missing.
    """
    transformers = require("transformers", extra="reference")
    directory = Path(path)
    if not (directory / "config.json").exists():
        raise CheckpointError(f"{directory} is no Hugging Face directory: it has no config.json")
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, **options
        )
        theirs = transformers.AutoTokenizer.from_pretrained(directory, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"transformers can't load {directory}: {error}") from error
    if drawn := sorted({*loading["missing_keys"], *map(str, loading["mismatched_keys"])}):
        raise CheckpointError(
            f"{directory}: {len(drawn)} weights of {type(model).__name__} are missing or don't "
            f"fit, and transformers drew them at random: {', '.join(drawn[:4])}"
        )
    eos = model.config.eos_token_id
    named = {name: str(token) for name, token in theirs.special_tokens_map.items()
             if isinstance(token, str)}  # fmt: skip
    tokenizer = make_tokenizer(
        theirs.backend_tokenizer.to_str(),
        config=named,
        template=theirs.chat_template if isinstance(theirs.chat_template, str) else None,
        eos_ids=eos if isinstance(eos, list) else [] if eos is None else [eos],
        origin=str(directory),
    )
    return TransformersLM(model), tokenizer
