"""A start from data: every layer norm gives each channel mean 0 and spread 1 over a batch of real images.

A layer norm removes what the channels of one sample share, not what the samples share. In a fresh net nearly all of a
pooled feature is common to all images; the heads then learn that part only, and hundreds of steps change nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

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
