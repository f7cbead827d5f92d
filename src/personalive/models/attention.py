"""Attention layers and transformer blocks of the U-Nets.

Letters: B batch, F frames in flight, C channels, H W latent height and width, N = H*W tokens of one frame,
M reference tokens, T motion tokens, D context width. Source: paper section 3 and the released weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

TRANSFORMER_GROUP_NORM_EPS = 1e-6
EXPANSION = 4  # hidden width of a feed-forward over model width, in all released networks
MAX_FRAMES = 32  # rows of the temporal position table


class KV(NamedTuple):
    """Projected keys and values of reference tokens, each (B, M, C)."""

    key: Tensor
    value: Tensor


class FrameInputs(NamedTuple):
    """Inputs of the modules along frames beside their tokens."""

    frames: int
    motion: Tensor | None = None  # (B*F, T, token width)
    attention_mask: Tensor | None = None  # (F, F) bool, which frames (columns) each frame (row) attends to; None: all


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, attention_mask: Tensor | None = None) -> Tensor:
    """Multi-head attention over already projected tokens: (B, N, C), (B, M, C), (B, M, C) -> (B, N, C).

    ``attention_mask`` (N, M) bool says which keys each query attends to, at least one each.
    """
    if q.requires_grad and not q.is_cuda:
        return _attend_with_gradient(q, k, v, heads, attention_mask)
    q, k, v = (rearrange(x, "b n (h c) -> b h n c", h=heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, attention_mask), "b h n c -> b n (h c)")


def _attend_with_gradient(q: Tensor, k: Tensor, v: Tensor, heads: int, attention_mask: Tensor | None) -> Tensor:
    """The same, spelled out: on a CPU the backward pass of the fused kernel takes up to five times as long."""
    q, k, v = (rearrange(x, "b n (h c) -> (b h) n c", h=heads) for x in (q, k, v))
    scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
    weights = (scores if attention_mask is None else scores.masked_fill(~attention_mask, float("-inf"))).softmax(
        dim=-1
    )
    return rearrange(torch.bmm(weights.to(v.dtype), v), "(b h) n c -> b n (h c)", h=heads)


class Projections(nn.Module):
    """The four linear layers of one attention, keys as released: q, k, v without bias, ``to_out.0`` with."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(source_width, width, bias=False)
        self.to_v = nn.Linear(source_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])


class ReferenceAttention(Projections):
    """Self-attention of a frame that also sees the reference tokens (spatial ``attn1``)."""

    def project(self, tokens: Tensor) -> KV:
        """Keys and values of (B, M, C) reference tokens; token-wise, so once per portrait is enough."""
        return KV(self.to_k(tokens), self.to_v(tokens))

    def forward(self, x: Tensor, reference: KV | None) -> Tensor:
        """(B*F, N, C), reference of (B, M, C) each -> (B*F, N, C)."""
        k, v = self.to_k(x), self.to_v(x)
        if reference is not None:
            frames = x.shape[0] // reference.key.shape[0]
            k = torch.cat([k, repeat(reference.key, "b m c -> (b f) m c", f=frames)], dim=1)
            v = torch.cat([v, repeat(reference.value, "b m c -> (b f) m c", f=frames)], dim=1)
        return self.to_out[0](attend(self.to_q(x), k, v, self.heads))


class ContextAttention(Projections):
    """Cross-attention to the single image-embedding token (spatial ``attn2``).

    A softmax over one key is 1, so the result is the same for every query and needs neither queries nor keys;
    their weights stay because they are in the checkpoint.
    """

    def forward(self, context: Tensor) -> Tensor:
        """(B, 1, D) -> (B, 1, C)."""
        if context.shape[1] != 1:
            raise ValueError(f"context must have one token, got {context.shape[1]}")
        return self.to_out[0](self.to_v(context))


class Geglu(nn.Module):
    """Gated linear unit with exact GELU (weights)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., hidden)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        opened = F.gelu(gate)
        if torch.is_grad_enabled():
            return value * opened
        return opened.mul_(value)  # the widest tensors of the denoiser: one less of them at its worst moment


class FeedForward(nn.Module):
    """GEGLU and a linear layer back; keys ``net.0.proj`` and ``net.2`` as released."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        # the empty middle place keeps the released numbering (a dropout stood there)
        self.net = nn.ModuleList([Geglu(width, hidden), nn.Identity(), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.net[2](self.net[0](x))


class SpatialBlock(nn.Module):
    """Transformer block over the tokens of one frame: reference attention, context, feed-forward."""

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = ReferenceAttention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)  # unused like attn2's queries: see ContextAttention
        self.attn2 = ContextAttention(width, context_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor, reference: KV | None) -> tuple[Tensor, Tensor]:
        """(B*F, N, C) -> the same and the kept feature, the output of ``norm1``."""
        feature = self.norm1(x)
        x = x + self.attn1(feature, reference)
        frames = x.shape[0] // context.shape[0]
        x = x + repeat(self.attn2(context), "b n c -> (b f) n c", f=frames)
        return x + self.ff(self.norm3(x)), feature


class SpatialTransformer(nn.Module):
    """GroupNorm, 1x1 convolution in, one spatial block, 1x1 convolution out, residual."""

    def __init__(self, width: int, heads: int, context_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=TRANSFORMER_GROUP_NORM_EPS)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(width, heads, context_width)])
        self.proj_out = nn.Conv2d(width, width, 1)

    @property
    def block(self) -> SpatialBlock:
        """The one spatial block."""
        return self.transformer_blocks[0]  # type: ignore[return-value]

    def feature(self, x: Tensor) -> Tensor:
        """(B*F, C, H, W) -> the kept feature (B*F, N, C) alone."""
        return self.block.norm1(rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c"))

    def forward(self, x: Tensor, context: Tensor, reference: KV | None) -> tuple[Tensor, Tensor]:
        """(B*F, C, H, W), (B, 1, D) -> (B*F, C, H, W) and the kept feature (B*F, N, C)."""
        H = x.shape[2]
        tokens = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        tokens, feature = self.block(tokens, context, reference)
        return x + self.proj_out(rearrange(tokens, "b (h w) c -> b c h w", h=H)), feature


class PositionTable(nn.Module):
    """Sinusoidal frame positions (sin on even, cos on odd channels), stored in the checkpoint."""

    pe: Tensor

    def __init__(self, width: int, length: int = MAX_FRAMES) -> None:
        super().__init__()
        position = torch.arange(length, dtype=torch.float64)[:, None]
        rate = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)[None]
        table = torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=-1)
        self.register_buffer("pe", table.flatten(1)[None].float())

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, N, C) -> (B, F, N, C)."""
        return x + self.pe[:, : x.shape[1], None]


class MotionAttention(Projections):
    """Cross-attention from each frame's tokens to that frame's own motion tokens (paper: 1-D motion)."""

    def forward(self, x: Tensor, inputs: FrameInputs) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""
        return self.to_out[0](attend(self.to_q(x), self.to_k(inputs.motion), self.to_v(inputs.motion), self.heads))


class TemporalAttention(Projections):
    """Self-attention along the frames at each spatial position, bidirectional in the released model."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__(width, source_width, heads)
        self.pos_encoder = PositionTable(width)

    def forward(self, x: Tensor, inputs: FrameInputs) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""
        N, along = x.shape[1], "(b f) n c -> (b n) f c"
        x = self.pos_encoder(x.unflatten(0, (-1, inputs.frames))).flatten(0, 1)
        # Projected frame by frame, where tokens lie together: by position it would be N products of F rows each.
        q, k, v = (rearrange(layer(x), along, f=inputs.frames) for layer in (self.to_q, self.to_k, self.to_v))
        x = attend(q, k, v, self.heads, inputs.attention_mask)
        return self.to_out[0](rearrange(x, "(b n) f c -> (b f) n c", n=N).contiguous())


class FrameBlock(nn.Module):
    """Two pre-norm attentions of one kind and a feed-forward, residuals around each."""

    def __init__(self, kind: type[MotionAttention | TemporalAttention], width: int, source: int, heads: int):
        super().__init__()
        self.attention_blocks = nn.ModuleList([kind(width, source, heads) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.ff = FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, inputs: FrameInputs) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = x + attention(norm(x), inputs)
        return x + self.ff(self.ff_norm(x))


class FrameTransformer(nn.Module):
    """GroupNorm per frame, linear in, one frame block, linear out, residual."""

    def __init__(
        self, kind: type[MotionAttention | TemporalAttention], width: int, source: int, heads: int, groups: int
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=TRANSFORMER_GROUP_NORM_EPS)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([FrameBlock(kind, width, source, heads)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, inputs: FrameInputs) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, H, W)."""
        H = x.shape[2]
        tokens = self.proj_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        tokens = self.proj_out(self.transformer_blocks[0](tokens, inputs))
        return x + rearrange(tokens, "b (h w) c -> b c h w", h=H)


class FrameModule(nn.Module):
    """Holder that gives a frame transformer its released key, ``temporal_transformer`` for both kinds."""

    def __init__(
        self, kind: type[MotionAttention | TemporalAttention], width: int, source: int, heads: int, groups: int
    ) -> None:
        super().__init__()
        self.temporal_transformer = FrameTransformer(kind, width, source, heads, groups)

    def forward(self, x: Tensor, inputs: FrameInputs) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, H, W)."""
        return self.temporal_transformer(x, inputs)
