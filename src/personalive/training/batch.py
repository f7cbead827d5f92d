"""Batches: samples as tensors, and outputs of the frozen networks for them, computed once and without gradients.

Letters: B samples, F frames (1 for pairs), C latent channels, h w latent sides, S image side, s face side,
K keypoints, P values of a packed pose, G mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Self

import cv2
import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from personalive.engine.backend import Backend
from personalive.engine.conditioning import Conditioner
from personalive.errors import InputError
from personalive.models.networks import Networks
from personalive.training.data.sets import Clip, Pair
from personalive.vision.canvas import crop_faces, face_box
from personalive.vision.keypoints import HeadPose, as_held_by, retarget, transform_keypoints
from personalive.vision.resize import frames_to_tensor
from personalive.vision.warps import move_head

ENCODED_AT_ONCE = 8  # frames through the VAE's encoder


@dataclass(frozen=True, slots=True)
class Compute:
    """Device and dtype of the networks."""

    device: torch.device
    dtype: torch.dtype
    recompute: bool

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for the code inside; no change in float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """A batch whose fields are tensors with the samples first, or None."""

    def tensors(self) -> dict[str, Tensor]:
        """Fields that are there, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        return type(self)(**{name: value.to(device, non_blocking=True) for name, value in self.tensors().items()})


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Tensors):
    """B samples with F frames each."""

    target: Tensor  # (B, F, 3, S, S) uint8
    latent: Tensor  # (B, C, F, h, w) of the target
    portrait: Tensor  # (B, C, h, w) of the reference
    entering: Tensor  # (B, C, F, h, w) clean latents that the frames enter a stream as
    context: Tensor  # (B, 1, D)
    keypoints: Tensor  # (B, F, K, 3) of the driver's pose on the portrait
    faces: Tensor  # (B, F, 3, s, s) in [-1, 1], of the driver
    masks: Tensor  # (B, F, 3, G, G) bool: face, eyes, mouth
    driver: Tensor | None = None  # (B, F, P) packed poses of the driver itself, of clips
    # of models with a detail head
    reference: Tensor | None = None  # (B, 3, S, S) uint8
    head: Tensor | None = None  # (B, P) packed pose of the reference
    poses: Tensor | None = None  # (B, F, P) packed poses of the driver on it
    flow: Tensor | None = None  # (B, F, 2, h, w) in half image sides, from the target to the moved reference


class BatchMaker:
    """Runs the frozen networks."""

    def __init__(self, networks: Networks, compute: Compute) -> None:
        self.networks, self.compute = networks, compute
        self.conditioner = Conditioner(Backend(networks))

    @torch.no_grad()
    def make(self, samples: Sequence[Pair], *, follow: bool = False, moved: bool = True) -> Batch:
        """Batch of samples that are all pairs or all clips of one length.

        Args:
            follow: place the head as in use, by the model's gains, instead of where the target has it (paper).
            moved: also move the reference by geometry, for models that enter frames so or have a detail head.
        """
        config, device = self.networks.config, self.compute.device
        references = np.stack([sample.reference for sample in samples])
        targets, masks = _stacked([s.target for s in samples]), _stacked([s.masks for s in samples])
        same = all(sample.driving is sample.target for sample in samples)
        driving = targets if same else _stacked([sample.driving for sample in samples])
        check_sample(references, config.image_size_px)
        check_sample(targets, config.image_size_px)
        B, count = targets.shape[:2]
        flat = (images.reshape(-1, *images.shape[-3:]) for images in (references, targets, driving))
        portrait, target, driver = (frames_to_tensor(images, "signed", device=device) for images in flat)
        own = self.poses(driver)  # float32: an angle's bins span hundreds of degrees
        found = own if same else self.poses(target)
        one = self.poses(portrait)
        head = one[torch.arange(B, device=one.t.device).repeat_interleave(count)]
        if follow:  # as if the driver had begun in the portrait's pose
            poses = retarget(head, found, head, gain=config.translation_gain, scale_gain=config.scale_gain)
        else:
            poses = as_held_by(head, found)
        with self.compute.autocast():
            context = torch.cat([self.conditioner.context(image) for image in references])
            latent = self.encode(target)
        reference = self.encode(portrait)
        entering = repeat(reference, "b c h w -> b c f h w", f=count)
        more: dict[str, Tensor] = {}
        if isinstance(samples[0], Clip):
            more["driver"] = rearrange(pack_poses(own), "(b f) p -> b f p", b=B)
        if moved and (config.entry == "moved" or self.networks.detail is not None):
            shown = move_head(repeat(portrait, "b c h w -> (b f) c h w", f=count), head, poses)
            if config.entry == "moved":
                entering = rearrange(self.encode(shown), "(b f) c h w -> b c f h w", b=B)
            if self.networks.detail is not None:
                flow = missing_flows(target, shown, latent.shape[-1])
                more["reference"] = torch.from_numpy(references).to(device).permute(0, 3, 1, 2)
                more["head"] = pack_poses(one)
                more["poses"] = rearrange(pack_poses(poses), "(b f) p -> b f p", b=B)
                more["flow"] = rearrange(flow, "(b f) d h w -> b f d h w", b=B)
        return Batch(
            target=torch.from_numpy(targets).to(device).permute(0, 1, 4, 2, 3),
            latent=rearrange(latent, "(b f) c h w -> b c f h w", b=B),
            portrait=reference,
            entering=entering,
            context=context.float(),
            keypoints=rearrange(transform_keypoints(poses), "(b f) k d -> b f k d", b=B),
            faces=rearrange(self.faces(driver, own), "(b f) c h w -> b f c h w", b=B),
            masks=torch.from_numpy(masks).to(device),
            **more,
        )

    def poses(self, images: Tensor) -> HeadPose:
        """(N, 3, S, S) in [-1, 1] -> N head poses."""
        return HeadPose.cat([self.conditioner.extract(part) for part in images.split(ENCODED_AT_ONCE)])

    def faces(self, images: Tensor, poses: HeadPose) -> Tensor:
        """(N, 3, S, S) and the poses found there -> (N, 3, s, s) crops, cut as the engine cuts them."""
        boxes = face_box(transform_keypoints(poses), images.shape[-1])
        return crop_faces(images, boxes, self.networks.config.motion_encoder.face_size_px)

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [-1, 1] -> (N, C, h, w) float32."""
        with self.compute.autocast():
            parts = [self.conditioner.encode(part) for part in images.split(ENCODED_AT_ONCE)]
        return torch.cat(parts).float()


def signed(images: Tensor) -> Tensor:
    """Uint8 pixels -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def pack_poses(poses: HeadPose) -> Tensor:
    """N poses -> (N, P) float32: yaw, pitch, roll, t, scale, keypoints."""
    angles = torch.stack([poses.yaw, poses.pitch, poses.roll], dim=1)
    return torch.cat([angles, poses.t, poses.scale, poses.kp.flatten(1)], dim=1).float()


def unpack_poses(packed: Tensor) -> HeadPose:
    """(N, P) -> N poses."""
    yaw, pitch, roll = packed[:, :3].unbind(1)
    kp = packed[:, 7:].unflatten(1, (-1, 3))
    return HeadPose(kp=kp, yaw=yaw, pitch=pitch, roll=roll, t=packed[:, 3:6], scale=packed[:, 6:7])


def missing_flows(frames: Tensor, moved: Tensor, side: int) -> Tensor:
    """Flow from N frames to N other images, (N, 3, S, S) in [-1, 1] each: (N, 2, side, side) in half image sides.

    Dense inverse search (Kroeger et al. 2016), OpenCV's, on the CPU.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [[cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in _uint8(images)] for images in (frames, moved)]
    flows = []
    for one, other in zip(*grey, strict=True):
        flow_px = search.calc(one, other, np.zeros((*one.shape, 2), np.float32))
        pooled = cv2.resize(flow_px, (side, side), interpolation=cv2.INTER_AREA)
        flows.append(pooled.transpose(2, 0, 1) / (one.shape[0] / 2))
    return torch.from_numpy(np.stack(flows)).to(frames.device)


def _uint8(images: Tensor) -> np.ndarray:
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def check_sample(image: np.ndarray, size_px: int) -> None:
    """Refuse images that are not of the model's size.

    Raises:
        InputError: naming both sizes.
    """
    if image.shape[-3:] != (size_px, size_px, 3) or image.dtype != np.uint8:
        raise InputError(
            f"the data has images of shape {image.shape[-3:]} ({image.dtype}) but the model needs "
            f"{size_px} x {size_px} RGB: prepare the data with --size {size_px}"
        )


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """B images (or triples of masks) of three axes, or clips of them, to (B, F, ...)."""
    stacked = np.stack(arrays)
    return stacked[:, None] if stacked.ndim == 4 else stacked


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
