"""The networks of a preset, freshly initialised."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from personalive.models.attention import FrameTransformer, SpatialTransformer
from personalive.models.blocks import ResnetBlock
from personalive.models.bundle import Networks
from personalive.models.motion_encoder import MotionEncoder
from personalive.models.motion_extractor import MotionExtractor
from personalive.models.pose_guider import PoseGuider
from personalive.models.unet import DenoisingUNet, ReferenceUNet, UNet
from personalive.training.presets import TinyPreset


def build_networks(preset: TinyPreset, seed: int = 0) -> Networks:
    """All networks in float32 with weights that depend on ``seed`` alone.

    Temporal modules begin as no change, so image-level training is not disturbed by what is trained later.
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
    _begin_as_identity(networks.reference_unet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _begin_as_linear(networks.vae)
    return networks


@torch.no_grad()
def _begin_as_linear(vae: nn.Module) -> None:
    """Start the autoencoder as an orthogonal packing of pixels into channels, and back by enlarging.

    With the library's own start, a net this narrow and deep spends its first thousand steps on the mean colour of
    a picture; measured over 250 steps, this start reaches a third less error.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if name.endswith(("conv2", "to_out.0")):
            nn.init.zeros_(module.weight)
        elif name.endswith(("conv_shortcut", "quant_conv", "encoder.conv_in")) or "upsamplers" in name:
            nn.init.orthogonal_(module.weight)
        elif "downsamplers" in name:
            _pack_pixels(cast(nn.Conv2d, module))
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _pack_pixels(conv: nn.Conv2d) -> None:
    """Make a stride-2 convolution take each 2x2 block into its channels without losing a direction twice."""
    out_channels, in_channels = conv.weight.shape[:2]
    packing = nn.init.orthogonal_(torch.empty(out_channels, 4 * in_channels))
    conv.weight.zero_()
    conv.weight[:, :, :2, :2] = packing.view(out_channels, in_channels, 2, 2)


def _begin_as_identity(unet: UNet) -> None:
    """Every residual branch starts at zero, as diffusion nets usually do."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock):
            last: nn.Module = module.conv2
        elif isinstance(module, SpatialTransformer | FrameTransformer):
            last = module.proj_out
        else:
            continue
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
