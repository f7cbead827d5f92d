"""One U-Net family for both the reference net and the denoising net.

Letters as in attention.py. Source: released weights (Stable Diffusion 1.5 shape, image-variation flavour),
paper section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from personalive.models.attention import KV, FrameInputs, SpatialTransformer
from personalive.models.blocks import (
    RESNET_NORM_EPS,
    BlockInputs,
    BlockSizes,
    DownBlock,
    MidBlock,
    ResnetBlock,
    TimeEmbedding,
    UpBlock,
)

TIME_EXPANSION = 4  # width of the time embedding over the first level's channels
TemporalReach = Literal["window", "causal"]
CROSS_ATTENTION_BLOCKS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a U-Net; defaults are the released one. Read from ``unet/config.json`` of the checkpoint.

    Raises:
        ValueError: the lists by level differ in length, or a temporal attention that is not known.
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_attends: tuple[bool, ...] = (True, True, True, False)
    up_attends: tuple[bool, ...] = (False, True, True, True)
    frame_levels: tuple[bool, ...] | None = None  # levels with motion and temporal modules; None: every one
    layers: int = 2  # resnets per level on the way down; one more on the way up
    heads: int = 8
    groups: int = 32
    context_width: int = 768
    motion_width: int = 16  # width of one motion token
    temporal_attention: TemporalReach = "window"  # "causal": to frames that are not noisier (paper's ablation)

    def __post_init__(self) -> None:
        if self.temporal_attention not in get_args(TemporalReach):
            known = " or ".join(get_args(TemporalReach))
            raise ValueError(f"temporal_attention {self.temporal_attention!r} is not known: {known}")
        counts = {
            "block_out_channels": len(self.channels),
            "down_block_types": len(self.down_attends),
            "up_block_types": len(self.up_attends),
            "frame_levels": len(self.channels if self.frame_levels is None else self.frame_levels),
        }
        if len(set(counts.values())) > 1:
            raise ValueError("one value per level is needed in " + ", ".join(f"{k} ({n})" for k, n in counts.items()))

    @classmethod
    def from_diffusers(cls, raw: Mapping[str, Any], motion_width: int = 16) -> UNetConfig:
        """Read diffusers' ``UNet2DConditionModel`` config; its ``attention_head_dim`` means heads."""
        return cls(
            in_channels=raw["in_channels"],
            out_channels=raw["out_channels"],
            channels=tuple(raw["block_out_channels"]),
            down_attends=tuple(kind in CROSS_ATTENTION_BLOCKS for kind in raw["down_block_types"]),
            up_attends=tuple(kind in CROSS_ATTENTION_BLOCKS for kind in raw["up_block_types"]),
            frame_levels=tuple(raw["frame_levels"]) if "frame_levels" in raw else None,  # ours
            temporal_attention=raw.get("temporal_attention", "window"),  # ours
            layers=raw["layers_per_block"],
            heads=raw["attention_head_dim"],
            groups=raw["norm_num_groups"],
            context_width=raw["cross_attention_dim"],
            motion_width=motion_width,
        )


class UNet(nn.Module):
    """The trunk both nets share, with released key names."""

    def __init__(self, config: UNetConfig, sizes: BlockSizes, levels_up: int) -> None:
        super().__init__()
        channels = config.channels

        frame_levels = config.frame_levels or [True] * len(channels)
        plain = dataclasses.replace(sizes, motion_width=None)
        by_level = [sizes if framed else plain for framed in frame_levels]
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0], sizes.time_width)
        inputs = (channels[0], *channels[:-1])
        last = len(channels) - 1
        self.down_blocks = nn.ModuleList(
            DownBlock(f"down_blocks.{i}", (inputs[i], channels[i]), config.layers, attends, i == last, by_level[i])
            for i, attends in enumerate(config.down_attends)
        )
        self.mid_block = MidBlock(channels[-1], sizes)
        self.up_blocks = nn.ModuleList(
            UpBlock(f"up_blocks.{i}", resnets, config.up_attends[i], i == levels_up - 1, by_level[last - i])
            for i, resnets in enumerate(_up_widths(config)[:levels_up])
        )

    def embed_time(self, timesteps: Tensor) -> dict[str, Tensor]:
        """Time embeddings of every resnet, (B*F, C_out) by its name, at (B, F) integer timesteps."""
        time = F.silu(self.time_embedding(timesteps))
        return {n: m.time_emb_proj(time) for n, m in self.named_modules() if isinstance(m, ResnetBlock)}

    def trunk(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(B*F, C0, H, W) after ``conv_in`` -> what the last level gives: (B*F, C0, H, W) if it has them all."""
        skips = [x]
        for block in self.down_blocks:
            x, more = _level(block, inputs, x)
            skips += more
        x = _level(self.mid_block, inputs, x)
        for block in self.up_blocks:
            own = skips[-len(block.resnets) :]  # type: ignore[arg-type]
            del skips[-len(own) :]
            x = _level(block, inputs, x, own)
        return x


def _level(block: Callable[..., Any], inputs: BlockInputs, *values: Any) -> Any:
    """``block`` of its values; with ``recompute`` its activations are made again in the backward pass."""
    if not inputs.recompute:
        return block(*values, inputs)
    return checkpoint(block, *values, inputs, use_reentrant=False, preserve_rng_state=False)  # nets draw nothing


def _up_widths(config: UNetConfig) -> list[list[tuple[int, int]]]:
    """(in, out) channels of every resnet on the way up: what comes from below plus one skip each."""
    c = config.channels
    pushed = [c[0]]  # channels of every skip, in the order the way down makes them
    for i, out in enumerate(c):
        pushed += [out] * (config.layers + (i < len(c) - 1))
    levels = []
    for below, out in pairwise((c[-1], *reversed(c))):
        widths = [(below if j == 0 else out) for j in range(config.layers + 1)]
        levels.append([(width + pushed.pop(), out) for width in widths])
    return levels


def _sizes(config: UNetConfig, motion_width: int | None) -> BlockSizes:
    time_width = TIME_EXPANSION * config.channels[0]
    return BlockSizes(config.heads, config.groups, time_width, config.context_width, motion_width)


class ReferenceUNet(UNet):
    """Reads a clean latent and gives what the denoising net attends to.

    Levels on the way up end with the last that attends: nothing reads what comes after it (in the released shape the
    last one does, so all are there). For the same reason the last block ends with its kept feature; what comes after
    stays because its weights are in the checkpoint.
    """

    def __init__(self, config: UNetConfig) -> None:
        read = [i + 1 for i, attends in enumerate(config.up_attends) if attends]
        super().__init__(config, _sizes(config, None), max(read, default=0))
        self.last = [n for n, m in self.named_modules() if isinstance(m, SpatialTransformer)][-1]

    def forward(
        self, latent: Tensor, timesteps: Tensor, context: Tensor, *, recompute: bool = False
    ) -> dict[str, Tensor]:
        """(B, C, H, W), (B, 1), (B, 1, D) -> ``norm1`` outputs (B, N_i, C_i) by block name."""
        kept: dict[str, Tensor] = {}
        inputs = BlockInputs(self.embed_time(timesteps), context, last=self.last, recompute=recompute, features=kept)
        self.trunk(self.conv_in(latent), inputs)
        return kept


class DenoisingUNet(UNet):
    """Denoises every frame in flight, each at its own timestep."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, _sizes(config, config.motion_width), len(config.channels))
        self.causal = config.temporal_attention == "causal"
        self.conv_norm_out = nn.GroupNorm(config.groups, config.channels[0], eps=RESNET_NORM_EPS)
        self.conv_out = nn.Conv2d(config.channels[0], config.out_channels, 3, padding=1)

    def spatial_transformers(self) -> dict[str, SpatialTransformer]:
        """The blocks that attend to reference tokens, by name."""
        return {n: m for n, m in self.named_modules() if isinstance(m, SpatialTransformer)}

    def project_reference(self, features: Mapping[str, Tensor]) -> dict[str, KV]:
        """Keys and values of the reference features, each (B, N_i, C_i), once per portrait or keyframe."""
        return {
            name: module.block.attn1.project(features[name]) for name, module in self.spatial_transformers().items()
        }

    def features(
        self,
        latents: Tensor,
        timesteps: Tensor,
        *,
        context: Tensor,
        motion: Tensor,
        pose: Tensor,
        reference: Mapping[str, KV] | None,
        temporal: bool = True,
        recompute: bool = False,
        time_embeddings: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """All of one pass over the frames in flight but the last convolution.

        Args:
            latents: (B, C, F, H, W).
            timesteps: (B, F) integers.
            context: (B, 1, D) image embedding of the portrait.
            motion: (B, F, T, token width).
            pose: (B, C0, F, H, W) features of the pose guider, added after ``conv_in``.
            reference: projected reference tokens by block name; None attends to the frame alone.
            temporal: False leaves the temporal modules out.
            recompute: save memory in training: activations inside levels are computed again for the gradient.
            time_embeddings: ``embed_time`` of the timesteps, where they are known already.

        Returns:
            (B*F, C0, H, W).
        """
        frames = latents.shape[2]
        x = self.conv_in(rearrange(latents, "b c f h w -> (b f) c h w"))
        x = x + rearrange(pose, "b c f h w -> (b f) c h w")
        tokens = rearrange(motion, "b f t c -> (b f) t c")
        attention_mask = timesteps[0][None, :] <= timesteps[0][:, None] if self.causal else None
        along = FrameInputs(frames, tokens, attention_mask)
        embeddings = self.embed_time(timesteps) if time_embeddings is None else time_embeddings
        inputs = BlockInputs(embeddings, context, along, reference, temporal=temporal, recompute=recompute)
        return F.silu(self.conv_norm_out(self.trunk(x, inputs)))

    def prediction(self, features: Tensor, frames: int) -> Tensor:
        """(B*F, C0, H, W) of ``features`` -> (B, C, F, H, W), noise in the released model; ``frames`` is F."""
        return rearrange(self.conv_out(features), "(b f) c h w -> b c f h w", f=frames)

    def forward(self, latents: Tensor, timesteps: Tensor, **conditions: Any) -> Tensor:
        """One pass over all frames in flight, arguments as ``features``: (B, C, F, H, W), the prediction."""
        return self.prediction(self.features(latents, timesteps, **conditions), latents.shape[2])
