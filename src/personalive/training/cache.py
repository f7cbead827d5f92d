"""Outputs of the frozen networks for every training frame, computed once: latents, poses, face crops, thumbnails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.models.networks import Networks
from personalive.training.data import PEOPLE, RenderedSet
from personalive.training.extractor import extract_all
from personalive.training.vae import encode_all
from personalive.vision.canvas import crop_faces, face_box
from personalive.vision.keypoints import HeadPose, as_held_by, transform_keypoints
from personalive.vision.warps import move_head

CHUNK = 64
TOKENS = "tokens.npy"  # (N, T, K) float16
EFFECT = "effect.npy"  # (C,) float32
EFFECT_SAMPLE = 16  # images it is measured on
REFERENCES = 2  # frames of a person whose image is moved to every other frame's pose
_MAKERS = {  # of what may not be there yet: its name in errors, and the stage that makes it
    "tokens": ("motion tokens", "tokens"),
    "latents": ("latents", "latents"),
    "effect": ("latents", "latents"),
    "moved": ("moved portraits", "moved"),
    "flow": ("flows", "moved"),
}
NUDGE = 0.5  # how far a latent channel is moved, of its spread


class FrameCache:
    """Memory maps over all N = G * P * K frames, in the order of the rendered set."""

    def __init__(self, folder: Path, data: RenderedSet, networks: Networks) -> None:
        config = data.config
        self.shape = (config.groups, PEOPLE, config.frames)
        count = int(np.prod(self.shape))
        channels, side = networks.unet_config.in_channels, config.size_px // _stride(networks)
        face, thumb = networks.config.motion_encoder.face_size_px, networks.clip.config.image_size
        self.folder = folder
        self.sizes = {
            "latents.f16": (np.float16, (count, channels, side, side)),
            "moved.f16": (np.float16, (count, REFERENCES, channels, side, side)),
            "flow.f16": (np.float16, (count, REFERENCES, 2, side, side)),  # half image sides
            "faces.u8": (np.uint8, (count, face, face, 3)),
            "thumbs.u8": (np.uint8, (count, thumb, thumb, 3)),
        }

    def open(self) -> FrameCache:
        """Map the finished files. What is not made yet is None; poses, faces and thumbnails have to be there."""
        tokens, effect = self.folder / TOKENS, self.folder / EFFECT
        try:
            self.tokens = np.load(tokens, mmap_mode="r", allow_pickle=False) if tokens.exists() else None
            self.effect = torch.from_numpy(np.load(effect, allow_pickle=False)) if effect.exists() else None
            self.latents, self.moved, self.flow = (
                self._map(name) if (self.folder / name).exists() else None
                for name in ("latents.f16", "moved.f16", "flow.f16")
            )
            self.faces, self.thumbs = self._map("faces.u8"), self._map("thumbs.u8")
            with np.load(self.folder / "poses.npz") as file:
                self.pose = HeadPose(**{f.name: torch.from_numpy(file[f.name]) for f in fields(HeadPose)})
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{self.folder}: no cache of this training set: run the faces stage first") from error
        return self

    def _map(self, name: str) -> np.memmap:
        dtype, shape = self.sizes[name]
        return np.memmap(self.folder / name, dtype, "r", shape=shape)

    def known(self, name: str) -> Any:
        """``tokens``, ``latents``, ``moved``, ``flow``, or ``effect``: (C,) of each latent channel on an image.

        Raises:
            InputError: it is not made yet.
        """
        if (found := getattr(self, name)) is None:
            what, stage = _MAKERS[name]
            raise InputError(f"{self.folder}: no {what} yet: run the {stage} stage first")
        return found

    def index(self, group: int, person: int, frame: int) -> int:
        """Row of one frame."""
        return (group * self.shape[1] + person) * self.shape[2] + frame

    def reference(self, group: int, person: int, which: int) -> int:
        """Row of the first (0) or second (1) frame that serves as this person's portrait."""
        frames = self.shape[2]
        return self.index(group, person, 0 if which == 0 else 1 + (3 * group + 5 * person) % (frames - 1))

    def fill_latents(self, data: RenderedSet, networks: Networks, progress: Callable[[int], None]) -> None:
        """Scaled latents of every frame, and what each of their channels does to an image."""
        (latents,) = self._new("latents.f16")
        images = data.images.reshape(-1, *data.images.shape[3:])
        device = next(networks.vae.parameters()).device
        for start in range(0, len(images), CHUNK):
            part = slice(start, min(start + CHUNK, len(images)))
            latents[part] = (encode_all(networks.vae, images[part], device).float() * _scaling(networks)).numpy()
            progress(part.stop)
        some = np.linspace(0, len(images) - 1, EFFECT_SAMPLE).astype(int)
        effect = channel_effect(networks, torch.from_numpy(latents[some]).float().to(device))
        np.save(self.folder / EFFECT, effect.numpy(), allow_pickle=False)

    def fill_faces(self, data: RenderedSet, networks: Networks, progress: Callable[[int], None]) -> None:
        """Poses, face crops and thumbnails of every frame."""
        faces, thumbs = self._new("faces.u8", "thumbs.u8")
        images = data.images.reshape(-1, *data.images.shape[3:])
        poses = []
        for start in range(0, len(images), CHUNK):
            part = slice(start, min(start + CHUNK, len(images)))
            pose = extract_all(
                networks.motion_extractor, images[part], networks.config.motion_extractor.input_size_px
            )
            poses.append(pose)
            faces[part] = faces_of(images[part], pose, faces.shape[1])
            thumbs[part] = np.stack([_thumb(image, thumbs.shape[1]) for image in images[part]])
            progress(part.stop)
        found = HeadPose.cat(poses)
        np.savez(
            self.folder / "poses.npz",
            allow_pickle=False,
            **{f.name: getattr(found, f.name).numpy() for f in fields(HeadPose)},
        )

    def fill_moved(self, data: RenderedSet, networks: Networks, progress: Callable[[int], None]) -> None:
        """Scaled latents of every person's references, moved to the pose of each of the person's frames.

        And the optical flow that is still missing to the frames themselves.
        """
        moved, flow = self._new("moved.f16", "flow.f16")
        images = data.images.reshape(-1, *data.images.shape[3:])
        device, frames = next(networks.vae.parameters()).device, self.shape[2]
        for first in range(0, len(images), frames):
            group, person = divmod(first // frames, PEOPLE)
            targets = torch.arange(first, first + frames)
            for which in range(REFERENCES):
                row = self.reference(group, person, which)
                held = self.pose[torch.full_like(targets, row)]
                picture = torch.from_numpy(np.array(images[row])).permute(2, 0, 1)[None].float()
                shown = move_head(picture.expand(frames, -1, -1, -1), held, as_held_by(held, self.pose[targets]))
                pixels = shown.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
                latents = encode_all(networks.vae, pixels, device).float() * _scaling(networks)
                moved[first : first + frames, which] = latents.numpy()
                flows = [missing_flow(*two, flow.shape[-1]) for two in zip(images[targets], pixels, strict=True)]
                flow[first : first + frames, which] = np.stack(flows)
            progress(first + frames)

    def _new(self, *names: str) -> list[np.memmap]:
        self.folder.mkdir(parents=True, exist_ok=True)
        sizes = [self.sizes[name] for name in names]
        return [
            np.memmap(self.folder / n, dtype, "w+", shape=shape)
            for n, (dtype, shape) in zip(names, sizes, strict=True)
        ]

    @torch.no_grad()
    def fill_tokens(self, encoder: nn.Module, progress: Callable[[int], None]) -> None:
        """Motion tokens of every face crop, by the trained encoder."""
        device = next(encoder.parameters()).device
        tokens = []
        for start in range(0, len(self.faces), CHUNK):
            faces = torch.from_numpy(np.array(self.faces[start : start + CHUNK])).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                tokens.append(encoder(faces.permute(0, 3, 1, 2).float() / 127.5 - 1).half().cpu())
            progress(start + len(faces))
        np.save(self.folder / TOKENS, torch.cat(tokens).numpy(), allow_pickle=False)


def missing_flow(frame: np.ndarray, moved: np.ndarray, side: int) -> np.ndarray:
    """Flow from ``frame`` to ``moved``, both (S, S, 3) uint8: (2, side, side) in half image sides.

    Dense inverse search (Kroeger et al. 2016), OpenCV's.
    """
    grey = [cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY) for picture in (frame, moved)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow_px = search.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), np.float32))
    pooled = cv2.resize(flow_px, (side, side), interpolation=cv2.INTER_AREA)
    return pooled.transpose(2, 0, 1) / (frame.shape[0] / 2)


@torch.no_grad()
def channel_effect(networks: Networks, latents: Tensor) -> Tensor:
    """Mean squared change of the images of (N, C, h, w) scaled latents per unit of noise in each channel: (C,)."""
    generator = torch.Generator().manual_seed(0)
    plain = _decode(networks, latents)
    effects = []
    for channel in range(latents.shape[1]):
        noise = torch.randn(latents[:, channel].shape, generator=generator).to(latents)
        moved = latents.clone()
        moved[:, channel] += NUDGE * noise
        effects.append((_decode(networks, moved) - plain).square().mean() / NUDGE**2)
    return torch.stack(effects).cpu()


def _decode(networks: Networks, latents: Tensor) -> Tensor:
    with torch.autocast(latents.device.type, torch.bfloat16):
        return networks.vae.decode(latents / _scaling(networks)).sample.float()


def _scaling(networks: Networks) -> float:
    return networks.vae.config.scaling_factor


def faces_of(images: np.ndarray, pose: HeadPose, size_px: int) -> np.ndarray:
    """(N, S, S, 3) uint8 and their poses -> face crops (N, s, s, 3) uint8, cut as the engine cuts them."""
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
    boxes = face_box(transform_keypoints(pose), images.shape[1])
    crops: Tensor = crop_faces(pixels, boxes, size_px)
    return crops.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _thumb(image: np.ndarray, size_px: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BICUBIC))


def _stride(networks: Networks) -> int:
    return 2 ** (len(networks.vae.config.block_out_channels) - 1)
