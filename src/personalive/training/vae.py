"""Stage 1 of the bundled model: a small autoencoder of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.training.data import CELLS, RenderedSet
from personalive.training.loop import Losses

CROP_PX = 128
SQUARE_WEIGHT = 5.0
EDGE_WEIGHT = 0.5
EDGES_FROM = 0.5  # share of the stage; before, the edge loss would reward flat images
KL_WEIGHT = 1e-4
LATENT_NOISE = 0.03  # of the latents' spread: the decoder must forgive what the denoiser gets slightly wrong


class VaeStage:
    """Losses on random crops; half of them around the face, where people look."""

    def __init__(self, vae: Any, data: RenderedSet, batch: int, device: torch.device, crop_px: int = CROP_PX) -> None:
        self.vae, self.data, self.batch, self.device, self.crop_px = vae, data, batch, device, crop_px

    def __call__(self, step: int, done: float) -> Losses:
        images = self.pictures(step)
        with torch.autocast(self.device.type, torch.bfloat16):
            posterior = self.vae.encode(images).latent_dist
            mean = posterior.mean.float()
            noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(step)).to(self.device)
            noisy = mean + LATENT_NOISE * mean.detach().std() * noise
            output = self.vae.decode(noisy).sample.float()
        pixel, edge = F.l1_loss(output, images), edge_loss(output, images)
        kl = posterior.kl().mean() / mean[0].numel()
        sharp = EDGE_WEIGHT if done > EDGES_FROM else 0.0
        return {
            "loss": pixel + SQUARE_WEIGHT * F.mse_loss(output, images) + sharp * edge + KL_WEIGHT * kl,
            "l1": pixel.detach() / 2,
            "edge": edge.detach(),
        }

    def pictures(self, step: int) -> Tensor:
        """One step's crops, (B, 3, h, w) in [-1, 1]."""
        rng = np.random.default_rng([step, 1])
        images = torch.stack([torch.from_numpy(self._crop(rng)) for _ in range(self.batch)]).to(self.device)
        return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        config = self.data.config
        g, p, k = (int(rng.integers(n)) for n in (config.groups, 2, config.frames))
        room = config.size_px - self.crop_px
        y, x = rng.integers(0, room + 1, 2)
        if rng.random() < 0.5:
            rows, columns = np.nonzero(self.data.truth.masks[g, p, k, 1:].sum(axis=0))
            if len(rows):
                pick, cell = int(rng.integers(len(rows))), config.size_px // CELLS
                jitter = rng.integers(-self.crop_px // 3, self.crop_px // 3, 2)
                y = np.clip(rows[pick] * cell - self.crop_px // 2 + jitter[0], 0, room)
                x = np.clip(columns[pick] * cell - self.crop_px // 2 + jitter[1], 0, room)
        return np.array(self.data.images[g, p, k, y : y + self.crop_px, x : x + self.crop_px])


def edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 between horizontal and vertical differences of (B, 3, H, W): keeps edges sharp."""
    return F.l1_loss(output.diff(dim=3), target.diff(dim=3)) + F.l1_loss(output.diff(dim=2), target.diff(dim=2))


@torch.no_grad()
def encode_all(vae: Any, images: np.ndarray, device: torch.device, batch: int = 32) -> Tensor:
    """Unscaled posterior means of (N, S, S, 3) uint8 images -> (N, C, h, w) float16."""
    means = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(np.array(images[start : start + batch])).to(device)
        pixels = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            means.append(vae.encode(pixels).latent_dist.mean.half().cpu())
    return torch.cat(means)
