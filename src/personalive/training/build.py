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
from personalive.training.linear_start import STEADY, spread
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
    _begin_without_branches(networks.denoising_unet)
    _begin_without_branches(networks.reference_unet)
    if preset.model.schedule.prediction == "sample":
        _begin_as_sample(networks.denoising_unet, networks.pose_guider)
    _begin_without_residuals(networks.vae)
    return networks


@torch.no_grad()
def _begin_without_residuals(vae: nn.Module) -> None:
    """Every residual branch of the autoencoder starts at zero: training begins from a linear path."""
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            nn.init.zeros_(cast(nn.Conv2d, module).weight)
            nn.init.zeros_(cast(Any, module).bias)


def _begin_without_branches(unet: UNet) -> None:
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


@torch.no_grad()
def _begin_as_sample(unet: Any, guider: PoseGuider) -> None:
    """Start a net that predicts the clean sample as the identity: what it is given, it gives.

    At the few low levels of a small model that is nearly right wherever nothing moves, and training begins with
    what moves. The latent goes in twice with opposite signs, is handed on by the outermost skip, and comes out of
    norm and activation unchanged, silu(x) - silu(-x) = x, beside constant channels that hold the norm steady. A
    net too narrow for that begins like any other.
    """
    C, groups = unet.conv_out.out_channels, unet.conv_norm_out.num_groups
    width = unet.conv_in.out_channels
    last = unet.up_blocks[-1].resnets[-1]
    room = width // groups  # channels of one group: pairs first, constants after
    pairs = -(-C // groups)
    if last.conv_shortcut is None or room < 4 * pairs:
        return
    conv_in, shortcut, out = unet.conv_in, last.conv_shortcut, unet.conv_out
    for tensor in (shortcut.weight, shortcut.bias, out.weight, out.bias, *guider.conv_out_modify.parameters()):
        nn.init.zeros_(tensor)
    skip = shortcut.in_channels - width
    shortcut.weight[:, skip:, 0, 0] = torch.eye(width)
    steady = STEADY * torch.tensor([1.0, -1.0]).repeat(room)
    for c in range(C):
        plus, minus = (c // pairs) * room + c % pairs, (c // pairs) * room + pairs + c % pairs
        for at, sign in ((plus, 1.0), (minus, -1.0)):
            conv_in.weight[at] = 0
            conv_in.bias[at] = 0
            conv_in.weight[at, c, 1, 1] = sign
            out.weight[c, at, 1, 1] = sign * spread(1.0, 2 * pairs, steady[: room - 2 * pairs])
    for g in range(groups):
        at = slice(g * room + 2 * pairs, (g + 1) * room)
        shortcut.weight[at] = 0
        shortcut.bias[at] = steady[: room - 2 * pairs]
