"""Samples to tensors: what the frozen networks say of them, once per batch and without gradients.

Letters: B samples, F frames, C latent channels, h w latent sides, S image side, P canvas side, s face side.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from personalive.engine.backend import Backend
from personalive.engine.conditioning import Conditioner
from personalive.errors import InputError
from personalive.models.networks import Networks
from personalive.training.recipe.augment import augment_faces
from personalive.training.recipe.settings import AugmentConfig
from personalive.training.sets import Clip, Pair
from personalive.vision.canvas import crop_faces, draw_canvas, face_box
from personalive.vision.keypoints import HeadPose, as_held_by, retarget, transform_keypoints
from personalive.vision.resize import frames_to_tensor
from personalive.vision.warps import move_head

ENCODED_AT_ONCE = 8  # frames through the VAE's encoder


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Device and dtype of the networks."""

    device: torch.device
    dtype: torch.dtype
    recompute: bool

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for the code inside; no change in float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """B samples with F frames each: 1 for pairs."""

    target: Tensor  # (B, F, 3, S, S) in [-1, 1]
    latent: Tensor  # (B, C, F, h, w) of the target
    portrait: Tensor  # (B, C, h, w) of the reference
    entering: Tensor  # (B, C, F, h, w) clean latents that the frames enter a stream as
    context: Tensor  # (B, 1, D)
    canvas: Tensor  # (B*F, 3, P, P)
    faces: Tensor  # (B*F, 3, s, s) in [-1, 1], of the driver, augmented
    masks: Tensor  # (B, F, 3, G, G) in [0, 1]
    rngs: list[np.random.Generator]  # one per sample: all further draws


class Loader:
    """Turns samples into material with the frozen networks."""

    def __init__(self, networks: Networks, arithmetic: Arithmetic, augment: AugmentConfig) -> None:
        self.networks, self.arithmetic, self.augment = networks, arithmetic, augment
        self.conditioner = Conditioner(Backend(networks))

    @torch.no_grad()
    def load(
        self,
        samples: Sequence[Pair | Clip],
        rngs: list[np.random.Generator],
        *,
        follow: bool = False,
        augment: bool,
    ) -> Material:
        """Material of samples that are all pairs or all clips of one length.

        ``follow`` places the head as in use, by the model's gains, instead of where the target has it (paper).
        """
        references = np.stack([sample.reference for sample in samples])
        targets, masks = _stacked([s.target for s in samples]), _stacked([s.masks for s in samples])
        same = all(sample.driving is sample.target for sample in samples)
        driving = targets if same else _stacked([sample.driving for sample in samples])
        check_sample(references, self.networks.config.image_size_px)
        check_sample(targets, self.networks.config.image_size_px)
        B, count = targets.shape[:2]
        portrait, target, driver = (self._tensor(x) for x in (references, targets, driving))
        face_side = self.networks.config.motion_encoder.face_size_px
        own = self._poses(driver)  # float32: an angle's bins span hundreds of degrees
        faces = crop_faces(driver, face_box(transform_keypoints(own), driver.shape[-1]), face_side)
        found = own if driving is targets else self._poses(target)
        head = self._poses(portrait)
        head = head[torch.arange(B, device=head.t.device).repeat_interleave(count)]
        poses = self._place(head, found, follow)
        canvas = draw_canvas(transform_keypoints(poses), self.networks.config.pose_guider.canvas_size_px)
        with self.arithmetic.autocast():
            context = torch.cat([self.conditioner.context(picture) for picture in references])
            latent = self._encode(target)
        reference = self._encode(portrait)
        entering = repeat(reference, "b c h w -> b c f h w", f=count)
        if self.networks.config.entry == "moved":
            moved = move_head(repeat(portrait, "b c h w -> (b f) c h w", f=count), head, poses)
            entering = rearrange(self._encode(moved), "(b f) c h w -> b c f h w", b=B)
        return Material(
            target=rearrange(target, "(b f) c h w -> b f c h w", b=B),
            latent=rearrange(latent, "(b f) c h w -> b c f h w", b=B),
            portrait=reference,
            entering=entering,
            context=context.float(),
            canvas=canvas,
            faces=augment_faces(faces, rngs, self.augment, frames=count) if augment else faces,
            masks=mask_tensor(masks, self.arithmetic.device),
            rngs=rngs,
        )

    def _place(self, head: HeadPose, found: HeadPose, follow: bool) -> HeadPose:
        """The driver's pose on the portrait's head, row by row."""
        if follow:  # as if the driver had begun in the portrait's pose
            config = self.networks.config
            return retarget(head, found, head, gain=config.translation_gain, scale_gain=config.scale_gain)
        return as_held_by(head, found)

    def _tensor(self, pictures: np.ndarray) -> Tensor:
        flat = pictures.reshape(-1, *pictures.shape[-3:])
        return frames_to_tensor(flat, "signed", device=self.arithmetic.device)

    def _poses(self, images: Tensor) -> HeadPose:
        return HeadPose.cat([self.conditioner.extract(part) for part in images.split(ENCODED_AT_ONCE)])

    def _encode(self, images: Tensor) -> Tensor:
        with self.arithmetic.autocast():
            parts = [self.conditioner.encode(part) for part in images.split(ENCODED_AT_ONCE)]
        return torch.cat(parts).float()


def check_sample(image: np.ndarray, size_px: int) -> None:
    """Refuse images that are not of the model's size.

    Raises:
        InputError: naming both sizes.
    """
    if image.shape[-3:] != (size_px, size_px, 3) or image.dtype != np.uint8:
        raise InputError(
            f"the data has images of shape {image.shape[-3:]} ({image.dtype}) but the model needs "
            f"{size_px} x {size_px} RGB: prepare the data at that size"
        )


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """B images (or triples of masks) of three axes, or clips of them, to (B, F, ...)."""
    stacked = np.stack(arrays)
    return stacked[:, None] if stacked.ndim == 4 else stacked


def mask_tensor(masks: np.ndarray, device: torch.device) -> Tensor:
    """Bool masks -> float32, 0 or 1."""
    return torch.from_numpy(masks).to(device).float()


def decode(networks: Networks, latents: Tensor, *, recompute: bool) -> Tensor:
    """(N, C, h, w) clean latents -> (N, 3, S, S) about [-1, 1], float32.

    With ``recompute`` frame by frame, keeping no activations: 16 frames of 512 px would not fit (paper).
    """
    vae = networks.vae

    def one(part: Tensor) -> Tensor:
        return vae.decode(part / vae.config.scaling_factor).sample.float()

    if not recompute:
        return one(latents)
    return torch.cat(
        [checkpoint(one, part, use_reentrant=False, preserve_rng_state=False) for part in latents.split(1)]
    )
