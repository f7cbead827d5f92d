"""Linear layers in eight bits: weights and activations narrowed for the product, everything else as it was (ours).

Symmetric, by the largest absolute value: of each output channel once, of each token anew in every call. Letters: N
tokens, I and O input and output widths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INT8, FP8 = "int8", "fp8"
KINDS = (INT8, FP8)
_FORMATS = {INT8: torch.int8, FP8: torch.float8_e4m3fn}
_LARGEST = {INT8: 127.0, FP8: 448.0}
_BLOCKS = "transformer_blocks"  # of both kinds of attention
_MULTIPLE = 16  # that matrix units want widths to be of
_FEWEST = 17  # tokens that the integer product of CUDA takes


class QuantizedLinear(nn.Module):
    """``nn.Linear`` with the product in eight bits."""

    weight: Tensor  # (O, I) int8 or float8
    scale: Tensor  # (O,) float32

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        self._kind = kind
        weight, scale = _narrowed(linear.weight.detach().float(), kind)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale[:, 0])
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        tokens = x.flatten(0, -2)
        if len(tokens) < _FEWEST:
            return F.linear(x, (self.weight.float() * self.scale[:, None]).to(x.dtype), self.bias)
        product = _PRODUCTS[self._kind](tokens, self.weight, self.scale).to(x.dtype)
        product = product if self.bias is None else product + self.bias
        return product.unflatten(0, x.shape[:-1])


def quantize_transformers(unet: nn.Module, kind: str) -> int:
    """Replace the linear layers of a U-Net's transformer blocks, where their widths suit; returns how many."""
    count = 0
    for path, parent in list(unet.named_modules()):
        for name, child in list(parent.named_children()):
            inside = _BLOCKS in f"{path}.{name}".split(".")
            if inside and type(child) is nn.Linear and not (child.in_features | child.out_features) % _MULTIPLE:
                setattr(parent, name, QuantizedLinear(child, kind))
                count += 1
    return count


def _narrowed(values: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """(N, I) float32 -> the same in eight bits, and what its rows are to be multiplied with, (N, 1)."""
    scale = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / _LARGEST[kind]
    scaled = values / scale
    return (scaled.round() if kind == INT8 else scaled).to(_FORMATS[kind]), scale


def _int8_product(tokens: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    narrow, own = _narrowed(tokens.float(), INT8)
    return torch.ops.aten._int_mm(narrow, weight.t()) * own * scale


def _fp8_product(tokens: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    narrow, own = _narrowed(tokens.float(), FP8)
    return torch.ops.aten._scaled_mm(narrow, weight.t(), scale_a=own, scale_b=scale[None], out_dtype=torch.bfloat16)


_PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {INT8: _int8_product, FP8: _fp8_product}
