"""Stage ``autoencoder``: images to latents and back, for a model from nothing (ours).

Letters: B images, S their side, c side of a crop, C latent channels, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.training.batch import Tensors, check_sample, signed
from personalive.training.data.sets import Pair
from personalive.training.log import images_of, page
from personalive.training.losses import Output
from personalive.training.stages.base import Rngs, StageLosses

SCALING_SAMPLES = 256  # images whose latents decide the scaling factor
_SCALING_ROWS = 1 << 42  # in the place of the step


@dataclass(frozen=True, slots=True, eq=False)
class Images(Tensors):
    """Images, and where their eyes and mouths are."""

    images: Tensor  # (B, 3, S, S) uint8
    masks: Tensor  # (B, S, S) bool


class AutoencoderLosses(StageLosses[Images]):
    """Absolute and squared errors, later of edges too, of random crops; half of them around the face."""

    kind = Images

    def make(self, samples: Sequence[Pair]) -> Images:
        """Targets of pairs."""
        images = np.stack([sample.target for sample in samples])
        check_sample(images, self.networks.config.image_size_px)
        masks = np.stack([sample.masks[1:].any(axis=0) for sample in samples])
        device = self.compute.device
        return Images(torch.from_numpy(images).to(device).permute(0, 3, 1, 2), torch.from_numpy(masks).to(device))

    def losses(self, step: int | None, batch: Images, rngs: Rngs) -> Iterator[Output]:
        """One output per step; whole images where they are held out."""
        config, vae = self.config.autoencoder, self.networks.vae
        images = batch.images if step is None else self._crops(batch, rngs)
        pixels = signed(images).contiguous(memory_format=torch.channels_last)
        with self.compute.autocast():
            posterior = vae.encode(pixels).latent_dist
            mean = posterior.mean.float()
            noisy = mean if step is None else mean + config.latent_noise * mean.detach().std() * _noise(mean, rngs)
            made = vae.decode(noisy).sample.float()
        absolute, edge = F.l1_loss(made, pixels), edge_loss(made, pixels)
        kl = posterior.kl().float().mean() / mean[0].numel()
        sharp = config.edge if step is None or step >= config.edges_from_step else 0.0
        loss = absolute + config.squared * F.mse_loss(made, pixels) + sharp * edge + config.kl * kl
        yield Output({"loss": loss, "l1": absolute.detach(), "edge": edge.detach()})

    @torch.no_grad()
    def finish(self) -> None:
        """Measure the scaling factor: latents get spread 1."""
        vae, batch, values = self.networks.vae, self.config.batch, []
        for start in range(0, SCALING_SAMPLES, batch):
            drawn = self.source.draw(_SCALING_ROWS, range(start, min(start + batch, SCALING_SAMPLES)))
            with self.compute.autocast():
                values.append(vae.encode(signed(self.make(drawn.samples).images)).latent_dist.mean.float().cpu())
        vae.register_to_config(scaling_factor=1 / torch.cat(values).std().item())

    def sheet(self, rows: int) -> np.ndarray:
        """Held-out images above what they become."""
        batch, _ = self.held_out_batch(range(rows))
        with self.compute.autocast():
            made = self.networks.vae(signed(batch.images)).sample.float()
        return page([images_of(signed(batch.images)), images_of(made)])

    def _crops(self, batch: Images, rngs: Rngs) -> Tensor:
        side = batch.images.shape[-1]
        crop = min(self.config.autoencoder.crop_px, side)
        masks, crops = batch.masks.cpu().numpy(), []
        for image, mask, rng in zip(batch.images, masks, rngs, strict=True):
            place = rng.integers(0, side - crop + 1, 2)
            found = np.argwhere(mask)
            if rng.random() < 0.5 and len(found):
                jitter = rng.integers(-crop // 3, crop // 3 + 1, 2)
                place = np.clip(found[int(rng.integers(len(found)))] - crop // 2 + jitter, 0, side - crop)
            y, x = place.tolist()
            crops.append(image[:, y : y + crop, x : x + crop])
        return torch.stack(crops)


def edge_loss(made: Tensor, truth: Tensor) -> Tensor:
    """L1 between horizontal and vertical differences of (B, 3, H, W): keeps edges sharp."""
    return F.l1_loss(made.diff(dim=3), truth.diff(dim=3)) + F.l1_loss(made.diff(dim=2), truth.diff(dim=2))


def _noise(like: Tensor, rngs: Rngs) -> Tensor:
    drawn = [torch.from_numpy(rng.standard_normal(tuple(like.shape[1:]), np.float32)) for rng in rngs]
    return torch.stack(drawn).to(like)
