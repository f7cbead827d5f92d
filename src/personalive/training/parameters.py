"""Trained parameters of each stage: one table of names, everything else stays frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import nn

from personalive.errors import InputError
from personalive.models.networks import Networks
from personalive.training.presets import Stage

# A softmax over the one context token is 1 whatever these are: no loss has a gradient for them.
IDLE = r".*\.(attn2\.to_[qk]\.weight|transformer_blocks\.0\.norm2\.(weight|bias))"


# Patterns of ``network.parameter``: what matches the first is trained, unless it matches the second or ``IDLE``.
# {last} is the number of the U-Nets' last level on the way up: 3 in the released model. The detail head's flow learns
# with the features that it reads; its blend has a stage of its own.
_IMAGE_LEVEL = (
    r"(denoising_unet|reference_unet|motion_encoder|pose_guider)\..*|detail\.(?!blend\.).*",
    r"denoising_unet\..*\.temporal_modules\..*|reference_unet\.up_blocks\.{last}\..*",
)
TRAINED: Mapping[Stage, tuple[str, str]] = MappingProxyType(
    {
        "autoencoder": (r"vae\..*", ""),
        "extractor": (r"motion_extractor\..*", ""),
        "motion_encoder": (r"motion_encoder\..*", ""),
        "motion": _IMAGE_LEVEL,
        "distill": _IMAGE_LEVEL,
        "stream": (r"denoising_unet\..*\.temporal_modules\..*", ""),
        "detail": (r"detail\..*", ""),
    }
)


def named_parameters(networks: Networks) -> dict[str, nn.Parameter]:
    """Every parameter of every network, as ``network.parameter``."""
    return {f"{part}.{n}": p for part, module in networks.modules().items() for n, p in module.named_parameters()}


def choose(networks: Networks, stage: Stage, freeze: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Set ``requires_grad`` of all parameters as the stage wants it, and return the trained ones by name.

    All networks stay in eval mode: batch norms keep their stored statistics (weights), and nothing draws.

    Args:
        freeze: names of networks that stay as they are.

    Raises:
        InputError: nothing is left to train.
    """
    takes, leaves = TRAINED[stage]
    leaves = leaves.replace("{last}", str(len(networks.unet_config.channels) - 1))
    frozen = re.compile("|".join((leaves, IDLE, *(rf"{name}\..*" for name in freeze))))
    for module in networks.modules().values():
        module.eval()
    trained = {}
    for name, parameter in named_parameters(networks).items():
        parameter.requires_grad_(bool(re.fullmatch(takes, name)) and not frozen.fullmatch(name))
        if parameter.requires_grad:
            trained[name] = parameter
    if not trained:
        raise InputError(f"stage {stage}: this model has nothing that it trains, or freeze names it")
    return trained
