"""How the networks of a call are run. This one asks torch plainly; the others are faster and give up gradients.

Letters: C latent channels, h w latent sides, S picture side, F frames in flight, N pictures, T motion tokens of width
K, C0 first U-Net width, W width of the detail head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from personalive.models.attention import KV
from personalive.models.bundle import Networks
from personalive.streaming.backends.beside import Beside
from personalive.streaming.schedule import Schedule
from personalive.vision.keypoints import HeadPose


class Denoised(NamedTuple):
    """What one pass of the denoiser gives."""

    features: Tensor  # (F_leaving, C0, h, w) the last ones of the frames that leave
    prediction: Tensor  # (1, C, F, h, w)


class Backend:
    """Every network call of a stream, run by torch as it is written: any device, differentiable."""

    name = "eager"

    def __init__(self, networks: Networks, *, recompute: bool = False, beside: Beside | None = None) -> None:
        """
        Args:
            networks: all on one device, in eval mode.
            recompute: save memory in training, see ``DenoisingUNet``; changes no number.
            beside: where finished frames become pictures; None is in their turn.
        """
        self.networks, self.recompute = networks, recompute
        self.beside = beside or Beside()
        weight = networks.denoising_unet.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.leaving = networks.config.chunk_frames
        self.timesteps = Schedule(networks.config.schedule).timesteps(self.leaving).to(self.device)  # (1, F)

    @property
    def precision(self) -> torch.dtype:
        """The number format that most arithmetic is done in."""
        return self.dtype

    def denoise(
        self, latents: Tensor, *, context: Tensor, motion: Tensor, pose: Tensor, reference: Mapping[str, KV]
    ) -> Denoised:
        """(1, C, F, h, w) latents at the levels of the schedule; conditions as ``DenoisingUNet.features``."""
        unet = self.networks.denoising_unet
        features = unet.features(
            latents,
            self.timesteps,
            context=context,
            motion=motion,
            pose=pose,
            reference=reference,
            recompute=self.recompute,
        )
        return Denoised(features[: self.leaving], unet.prediction(features, latents.shape[2]))

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h, w) clean latents, float32 -> (N, 3, S, S) about [-1, 1]."""
        decoder = self.networks.decoder
        return decoder.decode((latents / decoder.config.scaling_factor).to(self.dtype)).sample

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [-1, 1] -> (N, C, h, w) latents: the posterior mean, scaled (weights)."""
        vae = self.networks.vae
        return vae.encode(images).latent_dist.mean * vae.config.scaling_factor

    def project(self, latent: Tensor, context: Tensor) -> dict[str, KV]:
        """A clean picture's (1, C, h, w), (1, 1, D) -> what the denoiser attends to, by block; once a picture."""
        start = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        features = self.networks.reference_unet(latent.to(self.dtype), start, context)
        return self.networks.denoising_unet.project_reference(features)

    def extract(self, images: Tensor) -> HeadPose:
        """(N, 3, s, s) in [0, 1] -> N poses."""
        return self.networks.motion_extractor(images)

    def motion_tokens(self, faces: Tensor) -> Tensor:
        """(N, 3, s, s) in [-1, 1] -> (N, T, K)."""
        return self.networks.motion_encoder(faces)

    def guide(self, canvas: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, C0, h, w)."""
        return self.networks.pose_guider(canvas)

    def correction(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """``DetailHead.correction``; only where the model has that head."""
        assert self.networks.detail is not None
        return self.networks.detail.correction(features, moved, shift)

    def trust(self, decoded: Tensor, found: Tensor, hidden: Tensor) -> Tensor:
        """``DetailHead.trust``; only where the model has that head."""
        assert self.networks.detail is not None
        return self.networks.detail.trust(decoded, found, hidden)
