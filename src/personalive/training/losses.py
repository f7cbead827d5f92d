"""Losses of pixels and of latents: errors, also inside the boxes that people look at, and perceptual distances.

LPIPS runs on VGG-16 where its weights are at hand; else a distance that needs none takes its place.

Letters: N images, C channels, H W their sides, S side of a square, G mask cells per side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.checkpoints.perceptual import load_lpips
from personalive.config import expand_user
from personalive.errors import CheckpointError
from personalive.models.networks import Networks
from personalive.models.perceptual import Lpips
from personalive.training.batch import Compute, decode, signed
from personalive.training.config import LossConfig, TrainConfig
from personalive.training.discriminator import Discriminator, Judged, LatentDiscriminator

PLACE_WEIGHTS = (1.0, 2.0, 4.0, 4.0)  # everywhere, and on top of it face, eyes, mouth


class Errors(NamedTuple):
    """Mean squared errors over all values; outside a mask an error counts as zero."""

    whole: Tensor
    face: Tensor
    eyes_and_mouth: Tensor

    def weighted(self, config: LossConfig, whole: float = 1.0) -> Tensor:
        """The sum that is minimised."""
        return whole * self.whole + config.face * self.face + config.eyes_and_mouth * self.eyes_and_mouth


def masked_errors(
    prediction: Tensor, target: Tensor, masks: Tensor, robust_from: float = 0.0, weight: Tensor | None = None
) -> Errors:
    """Errors of (N, C, H, W) under masks (N, 3, G, G) of face, eyes and mouth in [0, 1].

    Squared (paper), or square near zero and linear from about ``robust_from`` on; times ``weight``, which broadcasts.
    """
    error = (prediction.float() - target.float()).square()
    if robust_from:
        error = (error + robust_from**2).sqrt() - robust_from
    if weight is not None:
        error = error * weight
    masks = fit_masks(masks, prediction.shape[-2:])
    eyes_and_mouth = masks[:, 1:].amax(dim=1, keepdim=True)
    return Errors(error.mean(), (error * masks[:, :1]).mean(), (error * eyes_and_mouth).mean())


def fit_masks(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, 3, G, G) -> (N, 3, H, W): averaged where cells are joined, repeated where they are split."""
    if masks.shape[-1] > size[-1]:
        return F.adaptive_avg_pool2d(masks, (size[0], size[1]))
    return F.interpolate(masks, size=size, mode="nearest")


def place_weight(
    masks: Tensor, size: tuple[int, ...], weights: tuple[float, float, float, float] = PLACE_WEIGHTS
) -> Tensor:
    """(N, 3, G, G) masks of face, eyes and mouth -> weights of places (N, 1, H, W), mean 1."""
    inside = torch.tensor(weights[1:], device=masks.device)[:, None, None]
    weight = weights[0] + (inside * fit_masks(masks, size)).sum(dim=1, keepdim=True)
    return weight / weight.mean().clamp(min=1e-6)


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """Losses of one batch, and what the discriminator is shown of it."""

    losses: dict[str, Tensor]  # scalars; "loss" is minimised, the others are shown
    judged: tuple[Tensor, ...] = ()  # arguments of ``discriminator_loss``, detached


# --- without weights ----------------------------------------------------------------------------------------


class FilterDistance(nn.Module):
    """Stand-in for LPIPS made of fixed filters: no learned features, so no knowledge of human perception.

    At each scale of a pyramid both images go through first and second derivatives in the main directions. The
    responses are divided by the target's local contrast, so that a lost wrinkle on a cheek counts like a lost edge
    of the hair; the mean absolute difference over all scales and filters is the distance. It punishes blur, which
    squared error forgives. It does not, as LPIPS does, forgive texture that is alike but elsewhere (ours).
    """

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
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
        """Distance of two batches (N, 3, H, W) in [-1, 1]: their mean, 0 for equal images."""
        prediction, target = prediction.float(), target.float()
        total = prediction.new_zeros(())
        for scale in range(_SCALES):
            if scale:
                prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
            made, true = self._responses(prediction), self._responses(target)
            contrast = F.avg_pool2d(true.abs().mean(dim=1, keepdim=True), 5, stride=1, padding=2)
            total = total + ((made - true).abs() / (contrast + _CONTRAST_FLOOR)).mean()
        return total / _SCALES

    def _responses(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 15, H, W); colours apart, edges repeated."""
        spread = images.repeat_interleave(len(self.kernels) // 3, dim=1)
        padded = F.pad(spread, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, self.kernels, groups=spread.shape[1])


_SCALES = 4
_CONTRAST_FLOOR = 0.05  # of the range -1..1: differences below it count linearly


# --- with weights -------------------------------------------------------------------------------------------

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_perceptual(folder: Path, device: torch.device) -> Lpips:
    """LPIPS from ``vgg16`` (torchvision's state dict) and ``lpips_vgg`` (the published ``vgg.pth``) in ``folder``.

    Raises:
        CheckpointError: a file is missing, unsafe or another network's.
    """
    found = {}
    for stem in ("vgg16", "lpips_vgg"):
        paths = [path for suffix in _SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]
        if not paths:
            raise CheckpointError(
                f"{folder}: no {stem}{_SUFFIXES[0]} or {stem}{_SUFFIXES[1]} here: place it there, or leave "
                "loss.lpips empty for the distance that needs no weights"
            )
        found[stem] = paths[0]
    return load_lpips(found["vgg16"], found["lpips_vgg"], device)


# --- of decoded pixels, in stages distill and stream (paper, stage 2) ----------------------------------------


class PixelLoss:
    """Squared error, whole and masked, perceptual distance, and the adversarial term.

    The networks minimise the non-saturating logistic loss of the verdicts (Goodfellow et al. 2014), the discriminator
    the logistic one, without a gradient penalty (paper).
    """

    def __init__(self, config: TrainConfig, networks: Networks, compute: Compute) -> None:
        self.config, self.networks, self.compute, device = config, networks, compute, compute.device
        folder = config.loss.lpips
        self.perceptual = load_perceptual(expand_user(folder), device) if folder else FilterDistance().to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.discriminator = Discriminator(networks.config.image_size_px, config.discriminator).to(device)

    def output(self, clean: Tensor, target: Tensor, masks: Tensor, levels: Tensor, step: int | None) -> Output:
        """Losses of predicted latents (N, C, h, w) against uint8 images (N, 3, S, S).

        Args:
            masks: (N, 3, G, G) in [0, 1].
            levels: (N,) timesteps that the latents were predicted from.
            step: None is held out: without the adversarial term, whose scale changes while it trains.
        """
        with self.compute.autocast():
            made = decode(self.networks, clean, recompute=self.compute.recompute)
        real, weights = signed(target), self.config.loss
        errors = masked_errors(made, real, masks)
        perceptual = self.perceptual(made, real).mean()
        loss = errors.weighted(weights, whole=weights.pixel) + weights.perceptual * perceptual
        found = {"pixel": errors.whole, "perceptual": perceptual}
        if weights.adversarial and step is not None and step >= self.config.discriminator.generator_from_step:
            adversarial = F.softplus(-self._verdict(made, levels)).mean()
            loss = loss + weights.adversarial * adversarial
            found["adversarial"] = adversarial
        return Output({"loss": loss, **found}, (made.detach(), real, levels))

    def discriminator_loss(self, made: Tensor, real: Tensor, levels: Tensor) -> dict[str, Tensor]:
        """Losses that the discriminator minimises; "discriminator" carries the gradient."""
        of_made, of_real = self._verdict(made, levels), self._verdict(real, levels)
        return {
            "discriminator": F.softplus(of_made).mean() + F.softplus(-of_real).mean(),
            "verdict_made": of_made.mean(),
            "verdict_real": of_real.mean(),
        }

    def _verdict(self, images: Tensor, levels: Tensor) -> Tensor:
        with self.compute.autocast():
            return self.discriminator(images, levels)


# --- of latents (ours; squared errors of the whole: paper, stage 1) -------------------------------------------


class LatentLoss:
    """Errors of predicted clean latents, whole and masked, and the term of a discriminator that judges the face."""

    def __init__(self, config: TrainConfig, networks: Networks, compute: Compute, effect: Tensor | None) -> None:
        """
        Args:
            effect: (C,) mean squared change of the image per unit of each latent channel; None counts all alike.
        """
        self.config, self.compute = config, compute
        self.channels = None
        if effect is not None:  # its root lies half-way between counting every channel alike and counting pixels
            weight = effect.sqrt()
            self.channels = (weight / weight.mean())[None, :, None, None].to(compute.device)
        sizes = networks.config.motion_encoder
        self.discriminator = LatentDiscriminator(
            networks.unet_config.in_channels, sizes.tokens * sizes.token_width, config.seed
        ).to(compute.device)

    def errors(self, made: Tensor, real: Tensor, masks: Tensor) -> Errors:
        """Errors of ``made`` (N, C, h, w) against ``real`` under masks (N, 3, G, G)."""
        return masked_errors(made, real, masks, self.config.loss.robust_from, self.channels)

    def output(self, made: Tensor, judged: Judged, masks: Tensor, step: int | None) -> Output:
        """Losses of ``made`` (N, C, h, w) against ``judged.real``, with the adversarial term in training.

        The term's gradient is as long as ``loss.adversarial`` of the error's in the face, whatever the
        discriminator's scale; its value is 0.
        """
        errors = self.errors(made, judged.real, masks)
        loss = errors.weighted(self.config.loss)
        weight = self.config.loss.adversarial
        if weight and step is not None and step >= self.config.discriminator.generator_from_step:
            (own,) = torch.autograd.grad(loss, made, retain_graph=True)
            wanted = self._gradient(judged, made.detach(), own)
            pull = (wanted * made).sum()
            loss = loss + pull - pull.detach()
        return Output({"loss": loss, "latent": errors.whole, "face": errors.face}, (made.detach(), *judged))

    def discriminator_loss(self, made: Tensor, *judged: Tensor) -> dict[str, Tensor]:
        """Hinge loss that the discriminator minimises."""
        given = Judged(*judged)
        with self.compute.autocast():
            of_real = self.discriminator(given.real, given.entering, given.motion)
            of_made = self.discriminator(made, given.entering, given.motion)
        loss = (given.weight * (F.relu(1 - of_real) + F.relu(1 + of_made))).mean()
        return {"discriminator": loss}

    def _gradient(self, judged: Judged, made: Tensor, own: Tensor) -> Tensor:
        leaf = made.requires_grad_(True)
        with self.compute.autocast():
            scores = self.discriminator(leaf, judged.entering, judged.motion)
        (found,) = torch.autograd.grad(-(judged.weight * scores).mean(), leaf)
        matters = F.interpolate((judged.weight > _MATTERS).float()[:, None], size=made.shape[-2:])
        share = (own * matters).norm() / ((found * matters).norm() + _EPS)
        return self.config.loss.adversarial * share * found


@torch.no_grad()
def channel_effect(networks: Networks, compute: Compute, latents: Tensor) -> Tensor:
    """Mean squared change of the images of (N, C, h, w) latents per unit of noise in each channel: (C,)."""
    generator = torch.Generator().manual_seed(0)
    with compute.autocast():
        plain, effects = decode(networks, latents, recompute=False), []
        for channel in range(latents.shape[1]):
            noise = torch.randn(latents[:, channel].shape, generator=generator).to(latents)
            moved = latents.clone()
            moved[:, channel] += _NUDGE * noise
            effects.append((decode(networks, moved, recompute=False) - plain).square().mean() / _NUDGE**2)
    return torch.stack(effects)


_NUDGE = 0.5  # how far a latent channel is moved, of its spread
_MATTERS = 0.5  # of the mean weight: places where gradients are compared
_EPS = 1e-9
