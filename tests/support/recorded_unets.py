"""The U-Nets on the recorded inputs, with key-seeded weights; one net in memory at a time, as the full ones need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from personalive.models.attention import KV
from personalive.models.unet import DenoisingUNet, ReferenceUNet, UNetConfig
from support import keyseeded

Features = dict[str, Tensor]
NOISES = ("noise_no_keyframe", "noise_one_keyframe", "noise_two_keyframes")  # by the number of keyframes
_LATENTS = ("reference_latent", "keyframe_latent", "second_keyframe_latent")
_TOKENS = 4  # first tokens of each block that were recorded


def unet_config(manifest: Mapping[str, Any]) -> UNetConfig:
    """The shape of both nets."""
    return UNetConfig.from_diffusers(manifest["configs"]["sd-image-variations-diffusers/unet/config.json"])


def reference_unet(manifest: Mapping[str, Any], salt: str = "") -> ReferenceUNet:
    """The reference net, loaded strictly."""
    with torch.device("meta"):
        network = ReferenceUNet(unet_config(manifest))
    weights = keyseeded.state_dict(manifest["files"]["personalive/reference_unet.pth"], salt)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def denoising_unet(manifest: Mapping[str, Any], salt: str = "") -> DenoisingUNet:
    """The denoising net, from the union of its two files, loaded strictly."""
    with torch.device("meta"):
        network = DenoisingUNet(unet_config(manifest))
    weights: dict[str, Tensor] = {}
    for name in ("denoising_unet", "temporal_module"):
        weights |= keyseeded.state_dict(manifest["files"][f"personalive/{name}.pth"], salt)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def features(network: ReferenceUNet, recorded: Mapping[str, Any]) -> list[Features]:
    """Of the portrait and both keyframes."""
    clean = torch.zeros(1, 1, dtype=torch.long)
    context = torch.from_numpy(recorded["clip_embedding"])
    return [network(torch.from_numpy(recorded[name]), clean, context) for name in _LATENTS]


def first_tokens(kept: Features, recorded: Mapping[str, Any]) -> Tensor:
    """The recorded selection of the reference features, flattened."""
    names = [str(name).removesuffix(".transformer_blocks.0") for name in recorded["bank_names"]]
    return torch.cat([kept[name][0, :_TOKENS].flatten() for name in names])


@torch.inference_mode()
def noise(network: DenoisingUNet, recorded: Mapping[str, Any], images: list[Features], **options: Any) -> Tensor:
    """(1, 4, 16, h, w) predicted with the given reference images in view."""
    projected = [network.project_reference(kept) for kept in images]
    joined = {
        name: KV(*(torch.cat(parts, dim=1) for parts in zip(*(p[name] for p in projected), strict=True)))
        for name in projected[0]
    }
    return network(
        torch.from_numpy(recorded["latents"]),
        torch.from_numpy(recorded["timesteps"])[None],
        context=torch.from_numpy(recorded["clip_embedding"]),
        motion=torch.from_numpy(recorded["motion_tokens"]),
        pose=torch.from_numpy(pose_features(recorded)),
        reference=joined,
        **options,
    )


def pose_features(recorded: Mapping[str, Any]) -> np.ndarray:
    """(1, C0, 16, h, w) float32, also from the trimmed recording."""
    if "pose_features" in recorded:
        return recorded["pose_features"]
    return recorded["pose_features_8192ths"].astype(np.float32) / 8192
