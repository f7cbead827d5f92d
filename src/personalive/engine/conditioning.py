"""Conditioning: from frames to what the denoiser is given.

Letters as in state.py. Source: paper section 3 (hybrid motion control, MII).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from personalive.device import on_device
from personalive.engine.backend import Backend
from personalive.engine.base import PLAIN
from personalive.engine.controls import Controls
from personalive.engine.directions import FACIAL, DirectionFinder, Directions
from personalive.engine.state import Conditioning, Motion, Reference, StreamState
from personalive.errors import InputError
from personalive.vision.canvas import crop_faces, draw_canvas, face_box
from personalive.vision.keypoints import HeadPose, interpolate, interpolated_start, retarget, transform_keypoints
from personalive.vision.resize import frames_to_tensor, resize_frames, resize_portrait
from personalive.vision.warps import move_head

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # weights: CLIP's own preprocessing
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Conditioner:
    """Runs the encoders. Holds the networks and nothing of any stream; offloaded ones come for each portrait."""

    def __init__(self, backend: Backend, find_directions: DirectionFinder | None = None) -> None:
        """
        Args:
            find_directions: finds the directions of mouth and eyes when they are first wanted; None refuses them.
        """
        self.backend, self.networks, self._find_directions = backend, backend.networks, find_directions
        self.config = self.networks.config
        self.device, self.dtype = backend.device, backend.dtype

    # --- the portrait ---------------------------------------------------------------------------------

    def reference(self, portrait: np.ndarray) -> Reference:
        """Everything that is computed once per portrait.

        Args:
            portrait: (H, W, 3) uint8, square.
        """
        whole = self._image(resize_portrait(portrait, self.config.image_size_px))
        small = resize_portrait(portrait, self.config.motion_extractor.input_size_px)
        pose = self.backend.extract(frames_to_tensor(small, "unit", **self._place()))
        context = self.context(portrait)
        latent = self.encode(whole)
        kv = self.backend.project(latent, context)
        return Reference(whole, context, latent, kv, pose, self.motion_tokens(whole, pose))

    def context(self, portrait: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (1, 1, D) image embedding; square, so CLIP's centre crop removes nothing."""
        side = self.networks.clip.config.image_size
        small = np.asarray(Image.fromarray(portrait).resize((side, side), Image.Resampling.BICUBIC))
        pixels = frames_to_tensor(small, "unit", device=self.device)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
        pixels = ((pixels - mean) / std).to(self.dtype)
        with on_device(self.networks.clip, self.device):
            return self.networks.clip(pixel_values=pixels).image_embeds[:, None]

    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, S, S) in [-1, 1] -> (F, C, h, w) latents: the posterior mean, scaled (weights)."""
        with on_device(self.networks.vae.encoder, self.device):
            return self.backend.encode(images)

    @cached_property
    def directions(self) -> Directions:
        """Directions of mouth and eyes in the motion tokens: a second or two, once, when first wanted.

        Raises:
            InputError: nothing here finds them.
        """
        if self._find_directions is None:
            raise InputError("this engine has no directions of mouth and eyes: load it with load_engine")
        return self._find_directions(lambda images: self.encode_motion(images).tokens, self.config.image_size_px)

    def check(self, controls: Controls) -> bool:
        """Tell whether mouth or eyes are scaled, and prepare what that needs.

        Raises:
            InputError: this model does not tell them apart.
        """
        scaled = [name for name in FACIAL if getattr(controls, name) != 1.0]
        if scaled:
            self.directions.check(scaled)
        return bool(scaled)

    # --- the driver -----------------------------------------------------------------------------------

    def drive(
        self, state: StreamState, window: np.ndarray, cut: int | None = None, controls: Controls = PLAIN
    ) -> Conditioning:
        """``condition`` on the motion of (F, H, W, 3) uint8 square driving frames."""
        return self.condition(state, self.encode_motion(window), cut, controls)

    def encode_motion(self, window: np.ndarray) -> Motion:
        """Identity-agnostic motion of (F, H, W, 3) uint8 square driving frames: tokens and head poses."""
        frames = self._image(window)
        own = self.extract(frames)
        return Motion(self.motion_tokens(frames, own), own)

    def condition(
        self, state: StreamState, motion: Motion, cut: int | None = None, controls: Controls = PLAIN
    ) -> Conditioning:
        """Retarget the driver's motion to the portrait; in the first call also make the interpolated start.

        Args:
            cut: number of the frame that begins a new shot: the driver's place is measured anew from it.
        """
        own = motion.poses
        retargeting = {"strength": controls.head_motion, "relative": controls.pose == "relative"}
        tokens = self._apply_expression(state, motion.tokens, controls)
        if state.driver is None:
            return self._first(state, own, tokens, retargeting)
        if cut is None:
            poses, driver = self._on_portrait(state, own, state.driver, **retargeting), state.driver
        else:
            driver = own[cut]
            after = self._on_portrait(state, own[cut:], driver, **retargeting)
            before = self._on_portrait(state, own[:cut], state.driver, **retargeting)
            poses = HeadPose.cat([before, after]) if cut else after
        if controls.smoothing and state.newest is not None:
            tokens, poses = _smooth(state.newest, tokens, poses, controls.smoothing)
        return Conditioning(tokens, self.pose_features(poses), poses, driver, self.entering(state.reference, poses))

    def repeat_last(self, state: StreamState) -> Conditioning:
        """One chunk of the newest frame's conditioning again, to drain the window."""
        count = self.config.chunk_frames
        return Conditioning(
            state.motion[:, -1:].expand(-1, count, -1, -1),
            state.pose[:, :, -1:].expand(-1, -1, count, -1, -1),
            HeadPose.cat([state.poses[-1]] * count),
            state.driver,
            None if self.config.entry == "portrait" else state.latents[:, :, -1:].expand(-1, -1, count, -1, -1),
        )

    def entering(self, reference: Reference, poses: HeadPose) -> Tensor | None:
        """Clean latents (1, C, F, h, w) of the portrait moved to F poses; None where it enters as it is."""
        if self.config.entry == "portrait":
            return None
        count = len(poses)
        source = HeadPose.cat([reference.pose] * count)
        moved = move_head(reference.image.expand(count, -1, -1, -1), source, poses)
        return rearrange(self.encode(moved), "f c h w -> 1 c f h w")

    def extract(self, frames: Tensor) -> HeadPose:
        """(F, 3, S, S) in [-1, 1] -> F head poses."""
        small = resize_frames(frames, self.config.motion_extractor.input_size_px)
        return self.backend.extract((small / 2 + 0.5).clamp(0, 1))

    def motion_tokens(self, frames: Tensor, own: HeadPose) -> Tensor:
        """(F, 3, S, S) in [-1, 1] and the poses found in them -> (1, F, T, K)."""
        boxes = face_box(transform_keypoints(own), frames.shape[-1])
        faces = crop_faces(frames, boxes, self.config.motion_encoder.face_size_px)
        return self.backend.motion_tokens(faces)[None]

    def pose_features(self, poses: HeadPose) -> Tensor:
        """F poses on the portrait -> (1, C0, F, h, w)."""
        canvas = draw_canvas(transform_keypoints(poses), self.config.pose_guider.canvas_size_px)
        return rearrange(self.backend.guide(canvas.to(self.dtype)), "f c h w -> 1 c f h w")

    def _on_portrait(self, state: StreamState, own: HeadPose, first: HeadPose, **retargeting: Any) -> HeadPose:
        gains = {"gain": self.config.translation_gain, "scale_gain": self.config.scale_gain}
        return retarget(state.reference.pose, own, first, **gains, **retargeting)

    def _apply_expression(self, state: StreamState, tokens: Tensor, controls: Controls) -> Tensor:
        """Scale the tokens' difference from the portrait's own: all of it, then mouth and eyes alone."""
        own = state.reference.motion
        if controls.expression != 1.0:
            tokens = torch.lerp(own.expand_as(tokens), tokens, controls.expression)
        if self.check(controls):
            tokens = self.directions.scaled(tokens, own, {name: getattr(controls, name) for name in FACIAL})
        return tokens

    def _first(self, state: StreamState, own: HeadPose, motion: Tensor, retargeting: dict[str, Any]) -> Conditioning:
        """Warm-up frames on a straight line from the portrait to the first driving frame, then the frames."""
        count = state.warmup_frames
        driven = self._on_portrait(state, own, own[0], **retargeting)
        if self.config.interpolated_start:
            weights = torch.arange(count, device=self.device, dtype=motion.dtype)[None, :, None, None] / count
            warmup = torch.lerp(state.reference.motion, motion[:, :1], weights)
            start = interpolated_start(state.reference.pose, own[0], count, **retargeting)
        else:
            warmup, start = motion[:, :1].expand(-1, count, -1, -1), HeadPose.cat([driven[:1]] * count)
        poses = HeadPose.cat([start, driven])
        return Conditioning(
            torch.cat([warmup, motion], dim=1),
            self.pose_features(poses),
            poses,
            own[0],
            self.entering(state.reference, driven),
        )

    # --- images to tensors -- --------------------------------------------------------------------------

    def _place(self) -> dict:
        return {"device": self.device, "dtype": self.dtype}

    def _image(self, images: np.ndarray) -> Tensor:
        """uint8 (F, H, W, 3) or (H, W, 3), square -> (F, 3, S, S) in [-1, 1]."""
        frames = frames_to_tensor(images, "signed", **self._place())
        return resize_frames(frames, self.config.image_size_px)


def _smooth(newest: Motion, tokens: Tensor, poses: HeadPose, kept: float) -> tuple[Tensor, HeadPose]:
    """Exponential smoothing of the motion, from the frame that entered last on."""
    last_tokens, last_pose = newest.tokens, newest.poses
    weight = torch.full_like(last_pose.yaw, kept)
    even_tokens, even_poses = [], []
    for frame in range(tokens.shape[1]):
        last_tokens = torch.lerp(tokens[:, frame : frame + 1], last_tokens, kept)
        last_pose = interpolate(poses[frame], last_pose, weight)
        even_tokens.append(last_tokens)
        even_poses.append(last_pose)
    return torch.cat(even_tokens, dim=1), HeadPose.cat(even_poses)
