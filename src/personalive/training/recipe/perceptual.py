"""Perceptual distances: LPIPS on VGG-16 where its weights are at hand, else a distance that needs none.

Letters: N pictures, C channels, H W sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.checkpoints.files import read_tensors
from personalive.errors import CheckpointError


class PerceptualLoss(Protocol):
    """How different two batches look: (N, 3, H, W) each in [-1, 1] -> a scalar, 0 for equal ones."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor: ...


# --- without weights ----------------------------------------------------------------------------------------


class FilterDistance(nn.Module):
    """A stand-in for LPIPS made of fixed filters: no learned features, so no knowledge of what people notice.

    At each scale of a pyramid both pictures go through first and second derivatives in the main directions. The
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

_CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # numbers in VGG-16's ``features``
_WIDTHS = (64, 128, 256, 512, 512)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS' input normalisation
_FEATURES_FILE, _WEIGHTS_FILE = "vgg16", "lpips_vgg"
_UNIT_EPS = 1e-10
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class Lpips(nn.Module):
    """LPIPS version 0.1 on VGG-16 (Zhang et al. 2018): weighted distances of normalised features of five layers."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        self.slices = nn.ModuleList()
        for numbers, width in zip(_CONVOLUTIONS, _WIDTHS, strict=True):
            convolutions = []
            for _ in numbers:
                convolutions.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
            self.slices.append(nn.ModuleList(convolutions))
        self.weights = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in _WIDTHS)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See ``PerceptualLoss``."""
        total = prediction.new_zeros((), dtype=torch.float32)
        made, true = self._features(prediction), self._features(target)
        for one, other, weight in zip(made, true, self.weights, strict=True):
            total = total + (weight * (_unit(one) - _unit(other)).square()).sum(dim=1).mean()
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        x, found = (images.float() - self.shift) / self.scale, []
        for number, convolutions in enumerate(self.slices):
            x = F.max_pool2d(x, 2) if number else x
            for convolution in convolutions:  # type: ignore[attr-defined]
                x = F.relu(convolution(x))
            found.append(x)
        return found


def load_lpips(folder: Path) -> Lpips:
    """LPIPS from ``vgg16`` (torchvision's state dict) and ``lpips_vgg`` (the published ``vgg.pth``) in ``folder``.

    Both may be .safetensors or PyTorch files; nothing in them is run.

    Raises:
        CheckpointError: a file is missing, unsafe or another network's.
    """
    network = Lpips()
    features = read_tensors(_find(folder, _FEATURES_FILE))
    weights = read_tensors(_find(folder, _WEIGHTS_FILE))
    try:
        with torch.no_grad():
            for numbers, convolutions in zip(_CONVOLUTIONS, network.slices, strict=True):
                for number, convolution in zip(numbers, convolutions, strict=True):  # type: ignore[arg-type]
                    convolution.weight.copy_(features[f"features.{number}.weight"])
                    convolution.bias.copy_(features[f"features.{number}.bias"])
            for i, weight in enumerate(network.weights):
                weight.copy_(_layer_weight(weights, i))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: {_FEATURES_FILE} and {_WEIGHTS_FILE} are not VGG-16 and LPIPS' weights for it ({error}): "
            "download them again, or leave loss.lpips empty"
        ) from error
    return network.eval().requires_grad_(False)


def _layer_weight(weights: Mapping[str, Tensor], layer: int) -> Tensor:
    for key in (f"lin{layer}.model.1.weight", f"lins.{layer}.model.1.weight"):
        if key in weights:
            return weights[key]
    raise KeyError(f"lin{layer}.model.1.weight")


def _find(folder: Path, stem: str) -> Path:
    for suffix in _SUFFIXES:
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise CheckpointError(
        f"{folder}: no {stem}{_SUFFIXES[0]} or {stem}{_SUFFIXES[1]} here: place it there, or leave loss.lpips empty "
        "for the distance that needs no weights"
    )


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _UNIT_EPS)
