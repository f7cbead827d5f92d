"""Losses: squared errors, also inside the boxes that people look at; perceptual distances; all of decoded pixels.

LPIPS runs on VGG-16 where its weights are at hand; else a distance that needs none takes its place.

Letters: N images, C channels, H W their sides, S side of a square, G mask cells per side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.checkpoints.perceptual import load_lpips
from personalive.errors import CheckpointError
from personalive.models.perceptual import Lpips
from personalive.training.recipe.discriminator import Discriminator, discriminator_loss, generator_loss
from personalive.training.recipe.material import Arithmetic
from personalive.training.recipe.settings import LossConfig, TrainConfig


class Errors(NamedTuple):
    """Mean squared errors over all values; outside a mask an error counts as zero."""

    whole: Tensor
    face: Tensor
    eyes_and_mouth: Tensor

    def weighted(self, config: LossConfig, whole: float = 1.0) -> Tensor:
        """The sum that is minimised."""
        return whole * self.whole + config.face * self.face + config.eyes_and_mouth * self.eyes_and_mouth


def masked_errors(prediction: Tensor, target: Tensor, masks: Tensor) -> Errors:
    """Errors of (N, C, H, W) under masks (N, 3, G, G) of face, eyes and mouth in [0, 1] (paper)."""
    error = (prediction.float() - target.float()).square()
    masks = fit_masks(masks, prediction.shape[-2:])
    eyes_and_mouth = masks[:, 1:].amax(dim=1, keepdim=True)
    return Errors(error.mean(), (error * masks[:, :1]).mean(), (error * eyes_and_mouth).mean())


def fit_masks(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, 3, G, G) -> (N, 3, H, W): averaged where cells are joined, repeated where they are split."""
    if masks.shape[-1] > size[-1]:
        return F.adaptive_avg_pool2d(masks, (size[0], size[1]))
    return F.interpolate(masks, size=size, mode="nearest")


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


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """One batch's losses, and what the discriminator is shown of it."""

    losses: dict[str, Tensor]  # scalars; "loss" carries the gradient
    made: Tensor | None = None  # (N, 3, S, S) detached
    real: Tensor | None = None
    levels: Tensor | None = None  # (N,) timesteps


# --- of decoded pixels, in stages distill and stream (paper, stage 2) ----------------------------------------


class PixelLoss:
    """Squared error, whole and masked, perceptual distance, and the adversarial term."""

    def __init__(self, config: TrainConfig, size_px: int, arithmetic: Arithmetic) -> None:
        self.config, self.arithmetic, device = config, arithmetic, arithmetic.device
        folder = config.loss.lpips
        self.perceptual: PerceptualLoss = (
            load_perceptual(Path(folder).expanduser(), device) if folder else FilterDistance().to(device)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.discriminator = Discriminator(size_px, config.discriminator).to(device)

    def output(self, made: Tensor, real: Tensor, masks: Tensor, levels: Tensor, step: int | None) -> Output:
        """Losses of ``made`` (N, 3, S, S) against ``real``, under masks (N, 3, G, G), at (N,) timesteps.

        ``step`` None is held out: without the adversarial term, whose scale changes while it trains.
        """
        weights = self.config.loss
        errors = masked_errors(made, real, masks)
        perceptual = self.perceptual(made, real).mean()
        loss = errors.weighted(weights, whole=weights.pixel) + weights.perceptual * perceptual
        found = {"pixel": errors.whole.detach(), "perceptual": perceptual.detach()}
        if step is not None and step >= self.config.discriminator.generator_from_step:
            adversarial = generator_loss(self._verdict(made, levels))
            loss = loss + weights.adversarial * adversarial
            found["adversarial"] = adversarial.detach()
        return Output({"loss": loss, **found}, made.detach(), real.detach(), levels)

    def discriminator_loss(self, output: Output) -> dict[str, Tensor]:
        """Losses that the discriminator minimises; "discriminator" carries the gradient."""
        assert output.made is not None and output.real is not None and output.levels is not None
        made, real = self._verdict(output.made, output.levels), self._verdict(output.real, output.levels)
        return {
            "discriminator": discriminator_loss(made, real),
            "verdict_made": made.detach().mean(),
            "verdict_real": real.detach().mean(),
        }

    def _verdict(self, images: Tensor, levels: Tensor) -> Tensor:
        with self.arithmetic.autocast():
            return self.discriminator(images, levels)
