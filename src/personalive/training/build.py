"""The networks of a preset, freshly initialised."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from personalive.models.attention import FrameModule
from personalive.models.bundle import Networks
from personalive.models.motion_encoder import MotionEncoder
from personalive.models.motion_extractor import MotionExtractor
from personalive.models.pose_guider import PoseGuider
from personalive.models.unet import DenoisingUNet, ReferenceUNet
from personalive.training.presets import TinyPreset


def build_networks(preset: TinyPreset, seed: int = 0) -> Networks:
    """All networks in float32 with weights that depend on ``seed`` alone.

    Temporal modules and the pose guider's last layer begin as no change (paper: standard practice for added
    modules), so that image-level training is not disturbed by what is trained later.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: PLC0415 (takes seconds)
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: PLC0415 (takes seconds)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = Networks(
            config=preset.model,
            unet_config=preset.unet,
            vae=cast(Any, AutoencoderKL(**preset.vae)),
            clip=CLIPVisionModelWithProjection(CLIPVisionConfig(**preset.clip)),
            reference_unet=ReferenceUNet(preset.unet),
            denoising_unet=DenoisingUNet(preset.unet),
            motion_encoder=MotionEncoder(preset.model.motion_encoder),
            motion_extractor=MotionExtractor(preset.model.motion_extractor),
            pose_guider=PoseGuider(preset.model.pose_guider, preset.unet.channels[0]),
        )
    _begin_as_identity(networks.denoising_unet)
    return networks


def _begin_as_identity(unet: DenoisingUNet) -> None:
    for name, module in unet.named_modules():
        if isinstance(module, FrameModule) and "temporal_modules" in name:
            nn.init.zeros_(module.temporal_transformer.proj_out.weight)
            nn.init.zeros_(cast(nn.Parameter, module.temporal_transformer.proj_out.bias))
