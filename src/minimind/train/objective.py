"""What is minimised: an objective maps a model and a batch to sums; only the loop divides.

Each is a frozen dataclass: its parameters are fields, its formula is the body of `__call__`.
A mean of micro-batch means is wrong on ragged rows (measured: 32 % off in gradient on SFT rows):
an objective returns a sum and a count, and `Trainer` divides once, over micro-batches and ranks.

Axes: B rows, T positions, N = B*T, D hidden, V vocabulary, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from minimind.data.batch import IGNORE, Batch
from minimind.errors import ConfigError
from minimind.model import CausalLM, CausalLMOutput, linear_cross_entropy, token_log_probs
from minimind.model.accounting import loss_chunk


@dataclass(frozen=True, slots=True)
class Loss:
    """What one micro-batch contributes to a step.

    Attributes:
        sum: scalar, differentiable: the loss summed over what is counted.
        count: scalar: how many were counted (labels, or pairs).
        metrics: more sums over the same count, detached; the loop divides them for the report.
    """

    sum: Tensor
    count: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """Maps a model and a micro-batch to its `Loss`."""

    def __call__(self, model: CausalLM, batch: Batch, /) -> Loss:
        """Return sums over this micro-batch; a row without labels adds nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """Cross-entropy of the next token: pretraining, and SFT (there the labels carry the mask).

    Attributes:
        chunk: positions whose logits exist at a time; None: what fits the device, as in the others.
    """

    chunk: int | None = None

    def __call__(self, model: CausalLM, batch: Batch, /) -> Loss:
        """Return the summed cross-entropy in nats and the number of labels."""
        output = _read(model, batch)
        total, count = linear_cross_entropy(
            _hidden(output), model.output_weight, batch.labels.flatten(),
            chunk=self.chunk or _chunk(model),
        )  # fmt: skip
        return with_auxiliary(Loss(total, count), output)


@dataclass(frozen=True, kw_only=True)
class DPO:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7).

    With `label_smoothing` e it is the conservative DPO of Mitchell (2023): each preference is
    assumed to be flipped with probability e. Rows 2i are chosen, 2i + 1 rejected. A pair where
    one side has no label is left out of the count.

    Attributes:
        reference: the frozen model that the policy is pulled towards; its weights are not trained.
        beta: strength of the pull.
    """

    reference: CausalLM
    beta: float = 0.1
    label_smoothing: float = 0.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        self.reference.eval().requires_grad_(False)

    def __call__(self, model: CausalLM, batch: Batch, /) -> Loss:
        """Return the loss summed over pairs and the number of pairs."""
        has_labels_B = (batch.labels != IGNORE).any(dim=1)
        valid_P = (has_labels_B[0::2] & has_labels_B[1::2]).float()
        with torch.no_grad():
            reference_B = sequence_log_probs(self.reference, batch, chunk=self.chunk)
        output = _read(model, batch)
        policy_B = _label_log_probs(model, output, batch, chunk=self.chunk)
        reward_B = self.beta * (policy_B - reference_B)
        chosen_P, rejected_P = reward_B[0::2], reward_B[1::2]
        margin_P = chosen_P - rejected_P
        loss_P = (
            -F.logsigmoid(margin_P) * (1 - self.label_smoothing)
            - F.logsigmoid(-margin_P) * self.label_smoothing
        )
        metrics_P = {
            "accuracy": (margin_P > 0).float(),
            "margin": margin_P,
            "chosen_reward": chosen_P,
            "rejected_reward": rejected_P,
        }
        metrics = {name: (value * valid_P).sum().detach() for name, value in metrics_P.items()}
        return with_auxiliary(Loss((loss_P * valid_P).sum(), valid_P.sum(), metrics), output)


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Knowledge distillation (Hinton et al. 2015): learn a teacher's whole distribution.

    Per label: `alpha * t^2 * KL(teacher_t || student_t) + (1 - alpha) * cross-entropy`, both
    distributions softened by the temperature t; t^2 keeps the gradient's size independent of t.

    Attributes:
        teacher: the frozen model; the same vocabulary as the student.
    """

    teacher: CausalLM
    temperature: float = 2.0
    alpha: float = 0.5
    chunk: int | None = None

    def __post_init__(self) -> None:
        self.teacher.eval().requires_grad_(False)

    def __call__(self, model: CausalLM, batch: Batch, /) -> Loss:
        """Return the summed loss and the number of labels."""
        teacher_VD, student_VD = self.teacher.output_weight, model.output_weight
        if teacher_VD.shape[0] != student_VD.shape[0]:
            raise ConfigError(
                f"objective.teacher has a vocabulary of {teacher_VD.shape[0]:,}, the student one "
                f"of {student_VD.shape[0]:,}: distillation needs the same tokenizer for both"
            )
        labels_N = batch.labels.flatten()
        with torch.no_grad():
            teacher_ND = _hidden(_read(self.teacher, batch))
        output = _read(model, batch)
        student_ND = _hidden(output)
        divergence = self.temperature**2 * self._divergence(
            student_ND, student_VD, teacher_ND, teacher_VD, labels_N != IGNORE
        )
        cross_entropy, count = linear_cross_entropy(
            student_ND, student_VD, labels_N, chunk=self.chunk or _chunk(model)
        )
        total = self.alpha * divergence + (1 - self.alpha) * cross_entropy
        metrics = {"divergence": divergence.detach(), "cross_entropy": cross_entropy.detach()}
        return with_auxiliary(Loss(total, count, metrics), output)

    def _divergence(
        self,
        student_ND: Tensor,
        student_VD: Tensor,
        teacher_ND: Tensor,
        teacher_VD: Tensor,
        counted_N: Tensor,
    ) -> Tensor:
        """Sum KL(teacher || student) over the counted positions, `chunk` positions at a time."""

        def of_chunk(student_CD: Tensor, teacher_CD: Tensor, counted_C: Tensor) -> Tensor:
            log_q_CV = _log_softmax(F.linear(student_CD, student_VD), self.temperature)
            log_p_CV = _log_softmax(F.linear(teacher_CD, teacher_VD), self.temperature)
            kl_C = (log_p_CV.exp() * (log_p_CV - log_q_CV)).sum(dim=-1)
            return (kl_C * counted_C).sum()

        chunk = self.chunk or _chunk(self.teacher)
        parts = zip(
            student_ND.split(chunk), teacher_ND.split(chunk), counted_N.split(chunk), strict=True
        )
        # Checkpointed: the backward pass makes a chunk's logits again instead of keeping them all.
        sums = [checkpoint(of_chunk, *part, use_reentrant=False) for part in parts]
        return torch.stack(sums).sum()


def sequence_log_probs(model: CausalLM, batch: Batch, *, chunk: int | None = None) -> Tensor:
    """Return (B,) fp32: the log-probability of each row's labels, 0 for a row without any."""
    return _label_log_probs(model, _read(model, batch), batch, chunk=chunk)


def with_auxiliary(loss: Loss, output: CausalLMOutput) -> Loss:
    """Add what the model itself wants minimised, if anything, and its metrics.

    That is a mean over tokens: times the count it keeps its strength whatever the objective counts.
    """
    extra = output.auxiliary
    if extra is None:
        return loss
    metrics = {name: value * loss.count for name, value in extra.metrics.items()}
    return Loss(loss.sum + extra.loss * loss.count, loss.count, loss.metrics | metrics)


def _label_log_probs(
    model: CausalLM, output: CausalLMOutput, batch: Batch, *, chunk: int | None
) -> Tensor:
    log_probs_N = token_log_probs(
        _hidden(output), model.output_weight, batch.labels.flatten(), chunk=chunk or _chunk(model)
    )
    return log_probs_N.view(batch.labels.shape).sum(dim=1)


def _read(model: CausalLM, batch: Batch) -> CausalLMOutput:
    return model(
        batch.input_ids,
        position_ids=batch.position_ids,
        document_ids=batch.document_ids,
        image_features=batch.image_features,
        document_starts=batch.document_starts,
        logits="none",
    )


def _chunk(model: CausalLM) -> int:
    return loss_chunk(model.config.vocab_size, device=model.model.norm.weight.device.type)


def _hidden(output: CausalLMOutput) -> Tensor:
    return output.hidden_BTD.flatten(0, 1)


def _log_softmax(logits_CV: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(logits_CV.float() / temperature, dim=-1)
