"""Fields: for each pixel of a picture to be made, where to look in one that exists. Pure tensor functions.

A field is (B, S, S, 2): x (right) and y (down) from -1 to 1, as torch's ``grid_sample`` reads them with
``align_corners=False``. Letters: B pictures, S picture side, s side of a coarser grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def places(side: int, device: torch.device) -> Tensor:
    """The field that changes nothing: pixel centres, (1, side, side, 2) float32."""
    line = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def sample(pictures: Tensor, field: Tensor) -> Tensor:
    """(B, C, S, S) looked up at a field, bilinearly, edges repeated; in the dtype of ``pictures``.

    In float32 inside: half precision would miss by whole pixels.
    """
    found = F.grid_sample(pictures.float(), field, mode="bilinear", padding_mode="border", align_corners=False)
    return found.to(pictures.dtype)


def shift_of(field: Tensor, side: int) -> Tensor:
    """How far a field looks away from each place, pooled: (B, 2, side, side)."""
    shift = rearrange(field - places(field.shape[1], field.device), "b h w c -> b c h w")
    return F.avg_pool2d(shift, field.shape[1] // side)


def corrected(field: Tensor, flow: Tensor) -> Tensor:
    """The field looked up where ``flow`` (B, 2, s, s), float32 in half picture sides, points: (B, S, S, 2).

    So the flow says where a pixel is in the picture that the field already makes.
    """
    side = field.shape[1]
    flow = F.interpolate(flow, size=(side, side), mode="bilinear", align_corners=False)
    at = places(side, field.device) + rearrange(flow, "b c h w -> b h w c")
    return rearrange(sample(rearrange(field, "b h w c -> b c h w"), at), "b c h w -> b h w c")


def enlarged(field: Tensor, side: int) -> Tensor:
    """The same movement at another side: (B, side, side, 2)."""
    shift = rearrange(field - places(field.shape[1], field.device), "b h w c -> b c h w")
    shift = F.interpolate(shift, size=(side, side), mode="bilinear", align_corners=False)
    return places(side, field.device) + rearrange(shift, "b c h w -> b h w c")
