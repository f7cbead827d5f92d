"""Perceptual distances: LPIPS on VGG-16 where its weights are at hand, else a distance that needs none.

Letters: N images, H W sides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.checkpoints.perceptual import load_lpips
from personalive.errors import CheckpointError
from personalive.models.perceptual import Lpips


class PerceptualLoss(Protocol):
    """Distance of two batches: (N, 3, H, W) each in [-1, 1] -> (N,) or their mean, 0 for equal images."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor: ...


# --- without weights ----------------------------------------------------------------------------------------


class FilterDistance(nn.Module):
    """Stand-in for LPIPS made of fixed filters: no learned features, so no knowledge of human perception.

    At each scale of a pyramid both images go through first and second derivatives in the main directions. The
    responses are divided by the target's local contrast, so that a lost wrinkle on a cheek counts like a lost edge
    of the hair; the mean absolute difference over all scales and filters is the distance. It punishes blur, which
    squared error forgives. It does not, as LPIPS does, forgive texture that is alike but elsewhere (ours).
    """

    kernels: Tensor

    def __init__(self, scales: int = 4) -> None:
        super().__init__()
        self.scales = scales
        kernels = torch.tensor(
            [
                [[0, 0, 0], [-1, 0, 1], [0, 0, 0]],
                [[0, -1, 0], [0, 0, 0], [0, 1, 0]],
                [[-1, 0, 0], [0, 0, 0], [0, 0, 1]],
                [[0, 0, -1], [0, 0, 0], [1, 0, 0]],
                [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
            ],
            dtype=torch.float32,
        )
        self.register_buffer("kernels", (kernels / 2).repeat(3, 1, 1)[:, None])  # (3 * 5, 1, 3, 3)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See ``PerceptualLoss``."""
        prediction, target = prediction.float(), target.float()
        total = prediction.new_zeros(())
        for scale in range(self.scales):
            if scale:
                prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
            total = total + self._difference(prediction, target)
        return total / self.scales

    def _difference(self, prediction: Tensor, target: Tensor) -> Tensor:
        made, true = self._responses(prediction), self._responses(target)
        contrast = F.avg_pool2d(true.abs().mean(dim=1, keepdim=True), 5, stride=1, padding=2)
        return ((made - true).abs() / (contrast + _CONTRAST_FLOOR)).mean()

    def _responses(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 15, H, W); colours apart, edges repeated."""
        spread = images.repeat_interleave(len(self.kernels) // 3, dim=1)
        padded = F.pad(spread, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, self.kernels, groups=spread.shape[1])


_CONTRAST_FLOOR = 0.05  # of the range -1..1: differences below it count linearly


# --- with weights -------------------------------------------------------------------------------------------

_VGG_FILE, _HEADS_FILE = "vgg16", "lpips_vgg"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_perceptual(folder: Path, device: torch.device) -> Lpips:
    """LPIPS from ``vgg16`` (torchvision's state dict) and ``lpips_vgg`` (the published ``vgg.pth``) in ``folder``.

    Raises:
        CheckpointError: a file is missing, unsafe or another network's.
    """
    return load_lpips(_find(folder, _VGG_FILE), _find(folder, _HEADS_FILE), device)


def _find(folder: Path, stem: str) -> Path:
    for suffix in _SUFFIXES:
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise CheckpointError(
        f"{folder}: no {stem}{_SUFFIXES[0]} or {stem}{_SUFFIXES[1]} here: place it there, or leave loss.lpips empty "
        "for the distance that needs no weights"
    )
