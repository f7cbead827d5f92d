"""Person segmentation of MediaPipe's selfie segmentation (its model card; Apache-2.0).

The layers are those of the published ``selfie_segmentation.tflite``: blocks of MobileNetV3 (Howard et al. 2019), its
segmentation head, and a decoder that weighs what it is given from each level. ``scripts/convert_person_mask.py``
converts the weights, in which batch norms are folded into the convolutions.

Letters: B images, C channels, H W feature height and width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

MASK_SIDE_PX = 256
_STEM_WIDTH, _HEAD_WIDTH = 16, 128  # weights
# Weights: width, inner width, kernel, stride, width of the squeezed channels (0: none).
_BLOCKS = (
    *((16, 16, 3, 2, 8), (24, 72, 3, 2, 0), (24, 88, 3, 1, 0)),
    *((32, 96, 5, 2, 24), (32, 128, 5, 1, 32), (32, 128, 5, 1, 32), (32, 96, 5, 1, 24), (32, 96, 5, 1, 24)),
)
_HARD_SWISH_KERNEL = 5  # weights: blocks with it have hard-swish, the others ReLU
_LEVELS = (2, 0, -1)  # blocks after which features are kept for the decoder, coarsest first; -1: the stem
_LEVEL_WIDTHS = (24, 16, 16)


class PersonMask(nn.Module):
    """Mask of all people in an image (weights: ``person_mask.safetensors``)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM_WIDTH, 3, stride=2)
        self.blocks = nn.ModuleList()
        before = _STEM_WIDTH
        for width, inner, kernel, stride, squeezed in _BLOCKS:
            self.blocks.append(_Block(before, width, inner, kernel, stride, squeezed))
            before = width
        self.head = nn.Conv2d(before, _HEAD_WIDTH, 1)
        self.head_gate = nn.Conv2d(before, _HEAD_WIDTH, 1)
        self.levels = nn.ModuleList()
        before = _HEAD_WIDTH
        for width in _LEVEL_WIDTHS:
            self.levels.append(_Level(before, width))
            before = width
        self.out = nn.ConvTranspose2d(before, 1, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 256, 256) RGB in [0, 1] → masks (B, 1, 256, 256) in [0, 1], 1 on people."""
        kept = {-1: F.hardswish(self.stem(images))}
        x = kept[-1]
        for number, block in enumerate(self.blocks):
            x = kept[number] = block(x)
        x = F.relu(self.head(x)) * self.head_gate(_mean(x)).sigmoid()
        for level, number in zip(self.levels, _LEVELS, strict=True):
            x = level(x, kept[number])
        return self.out(x).sigmoid()


class _Conv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: of an odd number of rows, the more are at the bottom and the right."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups)
        total = kernel - stride
        self._before_after = (total // 2, total - total // 2) * 2

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        return super().forward(F.pad(input, self._before_after))


class _Block(nn.Module):
    """Inverted residual of MobileNetV3."""

    def __init__(self, before: int, width: int, inner: int, kernel: int, stride: int, squeezed: int) -> None:
        super().__init__()
        self.residual = before == width and stride == 1
        self.act = F.hardswish if kernel == _HARD_SWISH_KERNEL else F.relu
        self.expand = nn.Conv2d(before, inner, 1)
        self.depthwise = _Conv(inner, inner, kernel, stride, groups=inner)
        self.gate = _Gate(inner, squeezed) if squeezed else None
        self.project = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        inner = self.act(self.depthwise(self.act(self.expand(x))))
        if self.gate is not None:
            inner = inner * self.gate(inner)
        return self.project(inner) + x if self.residual else self.project(inner)


class _Gate(nn.Module):
    """Factor (B, C, 1, 1) of each channel, from its mean (squeeze and excitation)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, squeezed, 1)
        self.up = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        return self.up(F.relu(self.down(_mean(x)))).sigmoid()


class _Level(nn.Module):
    """One doubling of the decoder."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(before, width, 1)
        self.gate = _Gate(width, width)
        self.mix = nn.Conv2d(width, width, 1)
        self.depthwise = _Conv(width, width, 3, groups=width)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C', 2 H, 2 W) → (B, C', 2 H, 2 W)."""
        x = self.shrink(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        x = F.relu(self.mix(kept * self.gate(kept + x) + x))
        return x + F.relu(self.depthwise(x))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)
