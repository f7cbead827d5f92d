"""The networks of a preset, freshly initialised; layer norms can start from data.

A layer norm removes what the channels of one sample share, not what the samples share. In a fresh net nearly all of a
pooled feature is common to all images; the heads then learn that part only, and hundreds of steps change nothing. So
``standardise_norms`` gives each channel mean 0 and spread 1 over a batch of real images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from personalive.models.attention import FrameTransformer, SpatialTransformer
from personalive.models.blocks import ResnetBlock
from personalive.models.detail import DetailHead
from personalive.models.motion_encoder import MotionEncoder
from personalive.models.networks import Networks
from personalive.models.pose import MotionExtractor, PoseGuider
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
            detail=DetailHead(preset.model.detail, preset.unet.channels[0]) if preset.model.detail.width else None,
        )
    _begin_without_branches(networks.denoising_unet)
    _begin_without_branches(networks.reference_unet)
    if preset.model.schedule.prediction == "residual":
        _begin_as_given(networks.denoising_unet)
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
def _begin_as_given(unet: DenoisingUNet) -> None:
    """A net that predicts what a sample lacks starts by finding that nothing is missing.

    At the few low levels of a small model that is nearly right wherever nothing moves: training begins with what
    does.
    """
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(cast(Any, unet.conv_out.bias))


MIN_SPREAD = 1e-4


@torch.no_grad()
def standardise_norms(module: nn.Module, forward: Callable[[], object]) -> None:
    """Set weight and bias of all layer norms of ``module`` from one ``forward``, in the order they are reached."""
    norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm)]
    handles = [norm.register_forward_hook(_fit) for norm in norms]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()


def _fit(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Change the affine part so that ``output`` is standardised, and pass on what it now gives."""
    assert isinstance(norm, nn.LayerNorm)
    width = norm.normalized_shape[0]
    axis = next(i for i in range(output.ndim - 1, -1, -1) if output.shape[i] == width)
    axis = 1 if output.ndim == 4 and output.shape[1] == width else axis
    others = [i for i in range(output.ndim) if i != axis]
    spread = output.std(dim=others).clamp(min=MIN_SPREAD)
    mean = output.mean(dim=others)
    norm.weight.div_(spread)
    norm.bias.sub_(mean).div_(spread)
    shape = [-1 if i == axis else 1 for i in range(output.ndim)]
    return (output - mean.view(shape)) / spread.view(shape)
