"""Networks from nothing: freshly initialised, then brought to the scale of the data (ours).

A layer norm removes what the channels of one sample share, not what the samples share. In a fresh net nearly all of a
pooled feature is common to all images; the heads then learn that part only, and hundreds of steps change nothing. So
``standardise_norms`` gives each channel mean 0 and spread 1 over a batch of real images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from personalive.models.attention import FrameTransformer, SpatialTransformer
from personalive.models.blocks import ResnetBlock
from personalive.models.detail import DetailHead
from personalive.models.motion_encoder import MotionEncoder
from personalive.models.networks import Networks
from personalive.models.pose import MotionExtractor, PoseGuider
from personalive.models.unet import DenoisingUNet, ReferenceUNet
from personalive.training.batch import BatchMaker, Compute
from personalive.training.data.sets import GroundTruth, Pair
from personalive.training.shapes import ModelShape
from personalive.vision.resize import resize_frames


def build_networks(shape: ModelShape, seed: int = 0) -> Networks:
    """All networks in float32 with weights that depend on ``seed`` alone.

    Temporal modules begin as no change, so image-level training is not disturbed by what is trained later.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: PLC0415 (takes seconds)
    from transformers.models.clip.configuration_clip import CLIPVisionConfig  # noqa: PLC0415 (takes seconds)
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = Networks(
            config=shape.model,
            unet_config=shape.unet,
            vae=cast(Any, AutoencoderKL(**shape.vae)),
            clip=CLIPVisionModelWithProjection(CLIPVisionConfig(**shape.clip)),
            reference_unet=ReferenceUNet(shape.unet),
            denoising_unet=DenoisingUNet(shape.unet),
            motion_encoder=MotionEncoder(shape.model.motion_encoder),
            motion_extractor=MotionExtractor(shape.model.motion_extractor),
            pose_guider=PoseGuider(shape.model.pose_guider, shape.unet.channels[0]),
            detail=DetailHead(shape.model.detail, shape.unet.channels[0]) if shape.model.detail.width else None,
        )
    _begin_without_branches(networks)
    return networks


def _begin_without_branches(networks: Networks) -> None:
    """Every residual branch starts at zero, as diffusion nets usually do; the autoencoder from a linear path.

    A net that predicts what a sample lacks starts by finding that nothing is missing. At the few low levels of a
    small model that is nearly right wherever nothing moves: training begins with what does.
    """
    denoiser = networks.denoising_unet
    last = [m for name, m in networks.vae.named_modules() if name.endswith(("conv2", "to_out.0"))]
    for module in (*denoiser.modules(), *networks.reference_unet.modules()):
        if isinstance(module, ResnetBlock):
            last.append(module.conv2)
        elif isinstance(module, SpatialTransformer | FrameTransformer):
            last.append(module.proj_out)
    if networks.config.schedule.prediction == "residual":
        last.append(denoiser.conv_out)
    for module in last:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)


MIN_SPREAD = 1e-4


@torch.no_grad()
def standardise_norms(module: nn.Module, forward: Callable[[], object]) -> None:
    """Set weight and bias of all layer norms of ``module`` from one ``forward``, in the order they are reached."""
    norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm)]
    handles = [norm.register_forward_hook(_fit) for norm in norms]
    forward()
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


# --- to the scale of the data ---------------------------------------------------------------------------------


@torch.no_grad()
def initialise(networks: Networks, pairs: Sequence[Pair]) -> None:
    """Start fresh networks from data: norms of spread 1, heads at the mean pose.

    Args:
        networks: on the CPU, as ``build_networks`` made them.
        pairs: some tens, of the training set.
    """
    images = torch.from_numpy(np.stack([pair.target for pair in pairs])).permute(0, 3, 1, 2).float() / 255
    _initialise_extractor(networks, images, [pair.truth[1] for pair in pairs if pair.truth is not None])
    side = networks.clip.config.image_size
    standardise_norms(networks.clip, lambda: networks.clip(pixel_values=resize_frames(images * 2 - 1, side)))
    maker = BatchMaker(networks, Compute(torch.device("cpu"), torch.float32, recompute=False))
    faces = maker.faces(images * 2 - 1, maker.poses(images * 2 - 1))
    _standardise_batch_norms(networks.motion_encoder, lambda: networks.motion_encoder(faces))


def _initialise_extractor(networks: Networks, images: Tensor, truth: Sequence[GroundTruth]) -> None:
    """Norms from images, and heads that give the mean head at rest: their noise would drown what the body learns."""
    extractor = networks.motion_extractor
    small = resize_frames(images, networks.config.motion_extractor.input_size_px)
    standardise_norms(extractor, lambda: extractor.heads(small))
    means = {}
    if truth:
        poses = torch.from_numpy(np.stack([one.pose for one in truth])).mean(dim=0)
        kp = torch.from_numpy(np.stack([one.keypoints for one in truth])).float().flatten(1).mean(dim=0)
        means = {"fc_kp": kp, "fc_scale": poses[3:4], "fc_t": torch.cat([poses[4:6], torch.zeros(1)])}
    for name in ("fc_kp", "fc_t", "fc_scale", "fc_yaw", "fc_pitch", "fc_roll"):
        head = getattr(extractor.detector, name)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        if name in means:
            head.bias.copy_(means[name])


def _standardise_batch_norms(module: nn.Module, forward: Callable[[], object]) -> None:
    """Set the statistics of all batch norms, which training leaves as they are, from one ``forward``."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    forward()
    for norm, before in zip(norms, momentum, strict=True):
        norm.eval().momentum = before
