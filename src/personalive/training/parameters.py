"""Trained parameters of each stage: one table of names, everything else stays frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from personalive.errors import InputError
from personalive.models.networks import Networks
from personalive.training.presets import Stage

# A softmax over the one context token is 1 whatever these are: no loss has a gradient for them.
IDLE = r".*\.(attn2\.to_[qk]\.weight|transformer_blocks\.0\.norm2\.(weight|bias))"


@dataclass(frozen=True, slots=True)
class Choice:
    """Patterns over ``network.parameter`` names: what matches one of ``trained`` and none of ``frozen``."""

    trained: tuple[str, ...]
    frozen: tuple[str, ...] = (IDLE,)

    def takes(self, name: str) -> bool:
        """Tell whether the parameter is trained."""
        return any(re.fullmatch(p, name) for p in self.trained) and not any(
            re.fullmatch(p, name) for p in self.frozen
        )


# {last} is the number of the U-Nets' last level on the way up: 3 in the released model. The detail head's flow learns
# with the features that it reads; its blend has a stage of its own.
_IMAGE_LEVEL = Choice(
    trained=(
        *(r"denoising_unet\..*", r"reference_unet\..*", r"motion_encoder\..*", r"pose_guider\..*"),
        r"detail\.(?!blend\.).*",
    ),
    frozen=(r"denoising_unet\..*\.temporal_modules\..*", r"reference_unet\.up_blocks\.{last}\..*", IDLE),
)
TRAINED: Mapping[Stage, Choice] = MappingProxyType(
    {
        "autoencoder": Choice(trained=(r"vae\..*",)),
        "extractor": Choice(trained=(r"motion_extractor\..*",)),
        "motion_encoder": Choice(trained=(r"motion_encoder\..*",)),
        "motion": _IMAGE_LEVEL,
        "distill": _IMAGE_LEVEL,
        "stream": Choice(trained=(r"denoising_unet\..*\.temporal_modules\..*",)),
        "detail": Choice(trained=(r"detail\..*",)),
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
    choice = TRAINED[stage]
    last = len(networks.unet_config.channels) - 1
    frozen = tuple(pattern.replace("{last}", str(last)) for pattern in choice.frozen)
    choice = Choice(choice.trained, (*frozen, *(rf"{name}\..*" for name in freeze)))
    found = named_parameters(networks)
    for module in networks.modules().values():
        module.eval()
    for name, parameter in found.items():
        parameter.requires_grad_(choice.takes(name))
    trained = {name: parameter for name, parameter in found.items() if parameter.requires_grad}
    if not trained:
        raise InputError(f"stage {stage}: this model has nothing that it trains, or freeze names it")
    return trained
