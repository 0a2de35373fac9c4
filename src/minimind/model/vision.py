"""Sight: features of images become vectors that stand among those of words.

    image -> frozen encoder (no part of the model) -> features -> projector -> P vectors of size D

An image takes P positions of a row. In training they hold `image_token_id`, and the batch brings
the features. When generating, each position holds an id beyond the vocabulary that says which image
and which position it is (`image_ids`): caches, queues and prefixes then need to know nothing of
images, and the same picture in two prompts is the same tokens.

Axes: B batch, T positions of a row, D hidden, E features, P positions of an image, I images of a
row, M = I*P.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.config import VisionConfig
from minimind.errors import DataError
from minimind.model.layers import Linear
from minimind.vision.ids import FIRST_IMAGE_ID, image_ids, key_of, position_of

if TYPE_CHECKING:
    from minimind.model.transformer import CausalLM

PROJECTOR = "multi_modal_projector."
"""Prefix of the projector's weights."""

REMEMBERED = 64
"""Images whose vectors are kept after their request, for the next turn of a conversation."""


class SeenImage:
    """An image ready to be read; what holds it keeps its vectors in memory.

    Attributes:
        ids: of its positions.
        vectors_PD: what the language model reads there.
    """

    def __init__(self, ids: Sequence[int], vectors_PD: Tensor) -> None:
        self.ids = list(ids)
        self.vectors_PD = vectors_PD


class Sight(nn.Module):
    """The projector, and the images that prompts refer to.

    Only the two matrices with their biases are weights; they are named as LLaVA names them.
    """

    def __init__(self, config: VisionConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.linear_1 = Linear(config.feature_size, hidden_size, bias=True)
        self.linear_2 = Linear(hidden_size, hidden_size, bias=True)
        self._seen: WeakValueDictionary[str, SeenImage] = WeakValueDictionary()
        self._recent: deque[SeenImage] = deque(maxlen=REMEMBERED)

    def forward(self, features: Tensor) -> Tensor:
        """Return (..., P, D) of features (..., P, E)."""
        return self.linear_2(F.gelu(self.linear_1(features)))

    def place(self, x_BTD: Tensor, ids_BT: Tensor, features_BIPE: Tensor) -> Tensor:
        """Return `x_BTD` with images in place of `image_token_id`, in order within each row.

        Written without data-dependent shapes, so that it can be compiled.
        """
        at_image_BT = ids_BT == self.config.image_token_id
        vectors_BMD = self(features_BIPE).flatten(1, 2).to(x_BTD.dtype)
        which_BT = (at_image_BT.long().cumsum(1) - 1).clamp(0, vectors_BMD.shape[1] - 1)
        index_BTD = which_BT[..., None].expand(-1, -1, x_BTD.shape[2])
        return torch.where(at_image_BT[..., None], vectors_BMD.gather(1, index_BTD), x_BTD)

    def find(self, key: str) -> SeenImage | None:
        """Return an image that was taken in and is still held by somebody."""
        return self._seen.get(key)

    @torch.no_grad()
    def see(self, key: str, features_PE: Tensor) -> SeenImage:
        """Take in an image that a prompt will refer to.

        Whoever asks for an answer holds what is returned until the prompt was read: only held
        images, and the last `REMEMBERED`, stay in memory.
        """
        image = self._seen.get(key)
        if image is None:
            weight = self.linear_1.weight
            vectors_PD = self(features_PE.to(weight.device, weight.dtype))
            image = SeenImage(image_ids(key, self.config.positions), vectors_PD)
            self._seen[key] = image
        self._recent.append(image)
        return image

    def embed(self, embedding: nn.Module, ids_BT: Tensor) -> Tensor:
        """Return (B, T, D) of ids of which some are positions of images (see the module)."""
        at_image_BT = ids_BT >= FIRST_IMAGE_ID
        x_BTD = embedding(ids_BT.where(~at_image_BT, 0))
        if not at_image_BT.any():
            return x_BTD
        vectors = []
        for token in ids_BT[at_image_BT].tolist():
            image = self._seen.get(key_of(token))
            if image is None:
                raise DataError(f"the prompt refers to an image ({key_of(token)}) nobody holds")
            vectors.append(image.vectors_PD[position_of(token)])
        return x_BTD.masked_scatter(at_image_BT[..., None], torch.stack(vectors).to(x_BTD.dtype))


def open_eyes(model: CausalLM, config: VisionConfig) -> None:
    """Give a model eyes: a fresh projector; its language model is as it was.

    The last matrix is drawn so that an image's vectors are about as long as those of words.
    """
    weight = model.model.embed_tokens.weight
    sight = Sight(config, model.config.hidden_size)
    for matrix in (sight.linear_1, sight.linear_2):
        nn.init.normal_(matrix.weight, std=matrix.in_features**-0.5)
        nn.init.zeros_(matrix.bias)
    with torch.no_grad():
        sight.linear_2.weight.mul_(weight.std())
    model.config = dataclasses.replace(model.config, vision=config)
    model.multi_modal_projector = sight.to(weight.device, weight.dtype)


def train_only_projector(model: CausalLM) -> None:
    """Freeze everything but the projector."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(PROJECTOR))
