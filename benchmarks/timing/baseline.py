"""The engine as a straightforward reading of the published description runs it: the baseline of all ratios.

The same networks and weights, run by torch with its fused attention; nothing is kept from one call to the next that
follows from the weights or the portrait alone. In every call and for each frame in flight, reference tokens' features
are joined to the frame's own, and all are projected to keys and values; the cross-attention to the image token has
queries, keys and a softmax; the times are embedded. The reference net runs to its end.

Letters: B batch, F frames in flight, C channels, N tokens of a frame, M reference tokens, D context width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from personalive.engine.backend import Backend, DenoiserOutput
from personalive.models.attention import (
    KV,
    FrameInputs,
    FrameTransformer,
    MotionAttention,
    Projections,
    SpatialBlock,
    SpatialTransformer,
    TemporalAttention,
)
from personalive.models.networks import Networks
from personalive.models.unet import UNet

AnyUNet = TypeVar("AnyUNet", bound=UNet)


class Baseline(Backend):
    """A reference holds features instead of keys and values: ``KV(features, features)``."""

    name = "baseline"

    def __init__(self, networks: Networks) -> None:
        """Copy the networks' structure and share their weights; the given ones stay as they are."""
        reference = straightforward(networks.reference_unet)
        reference.last = None  # type: ignore[assignment]
        denoiser = straightforward(networks.denoising_unet)
        super().__init__(dataclasses.replace(networks, reference_unet=reference, denoising_unet=denoiser))

    def project(self, latent: Tensor, context: Tensor) -> dict[str, KV]:
        """A clean image's (1, C, h, w), (1, 1, D) -> its features (1, N_i, C_i) by block, twice each."""
        start = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        features = self.networks.reference_unet(latent.to(self.dtype), start, context)
        return {
            name: KV(features[name], features[name]) for name in self.networks.denoising_unet.spatial_transformers()
        }

    def denoise(
        self, latents: Tensor, *, context: Tensor, motion: Tensor, pose: Tensor, reference: Mapping[str, KV]
    ) -> DenoiserOutput:
        """As ``Backend.denoise``, the reference being features."""
        unet, frames = self.networks.denoising_unet, latents.shape[2]
        conditions = {"context": context, "motion": motion, "pose": pose, "reference": reference}
        features = unet.features(latents, self.timesteps(frames), **conditions)
        return DenoiserOutput(features[: self.networks.config.chunk_frames], unet.prediction(features, frames))


def straightforward(unet: AnyUNet) -> AnyUNet:
    """A copy with the attention of this file; tensors are shared with the original."""
    shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
    found = copy.deepcopy(unet, shared)
    for module in list(found.modules()):
        if isinstance(module, SpatialTransformer):
            module.transformer_blocks[0] = _SpatialBlock(module.block)
        elif isinstance(module, FrameTransformer):
            attentions: Any = module.transformer_blocks[0].attention_blocks
            for number, attention in enumerate(attentions):
                attentions[number] = _KINDS[type(attention)](attention)
    return found


def attention(layers: Projections, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, N, C) queries' tokens, (B, M, C) keys' and values' tokens -> (B, N, C), as textbooks write it."""
    projected = (layers.to_q(x), layers.to_k(source), layers.to_v(source))
    q, k, v = (rearrange(t, "b n (h c) -> b h n c", h=layers.heads) for t in projected)
    return layers.to_out[0](rearrange(F.scaled_dot_product_attention(q, k, v, mask), "b h n c -> b n (h c)"))


class _SpatialBlock(nn.Module):
    def __init__(self, block: SpatialBlock) -> None:
        super().__init__()
        self.norm1, self.attn1 = block.norm1, block.attn1
        self.norm2, self.attn2 = block.norm2, block.attn2
        self.norm3, self.ff = block.norm3, block.ff

    def forward(self, x: Tensor, context: Tensor, reference: KV | None) -> tuple[Tensor, Tensor]:
        """(B*F, N, C) -> the same and the kept feature, as ``SpatialBlock``."""
        feature = self.norm1(x)
        frames = x.shape[0] // context.shape[0]
        source = feature
        if reference is not None:
            source = torch.cat([feature, repeat(reference.key, "b m c -> (b f) m c", f=frames)], dim=1)
        x = x + attention(self.attn1, feature, source)
        x = x + attention(self.attn2, self.norm2(x), repeat(context, "b n d -> (b f) n d", f=frames))
        return x + self.ff(self.norm3(x)), feature


class _MotionAttention(nn.Module):
    def __init__(self, layers: MotionAttention) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, inputs: FrameInputs) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""
        assert inputs.motion is not None
        return attention(self.layers, x, inputs.motion)


class _TemporalAttention(nn.Module):
    def __init__(self, layers: TemporalAttention) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, inputs: FrameInputs) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""
        tokens = self.layers.pos_encoder(rearrange(x, "(b f) n c -> b f n c", f=inputs.frames))
        tokens = rearrange(tokens, "b f n c -> (b n) f c")
        return rearrange(
            attention(self.layers, tokens, tokens, inputs.attention_mask), "(b n) f c -> (b f) n c", n=x.shape[1]
        )


_KINDS: dict[type, Any] = {MotionAttention: _MotionAttention, TemporalAttention: _TemporalAttention}
