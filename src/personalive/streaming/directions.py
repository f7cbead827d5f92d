"""Which way motion tokens go when a mouth opens or eyes close, found by showing the reader drawn heads (ours).

The tokens are nobody's but the motion encoder's: no axis of theirs is "the mouth". But the same change of the same
face moves them the same way for everyone, if the encoder is any good, and drawn heads can be changed in one thing at
a time. K is the number of values of one frame's tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from personalive.config import DirectionConfig
from personalive.errors import InputError
from personalive.synthetic import Identity, Motion, Performance, render
from personalive.synthetic.motion import EXPRESSION_INDEX
from personalive.vision.transfer import to_device

Reader = Callable[[np.ndarray], Tensor]  # (F, S, S, 3) uint8 -> (1, F, T, K') motion tokens
FACIAL: dict[str, tuple[str, ...]] = {"mouth": ("jawOpen",), "eyes": ("eyeBlinkLeft", "eyeBlinkRight")}


@dataclass(frozen=True, eq=False)
class Directions:
    """What each part of the face does to the tokens.

    Attributes:
        ways: (P, K) float32, the mean change of the tokens from a part at rest to one that is fully in use, a row
            per name of ``FACIAL``.
        agreement: how alike that change is among people, for each part: mean cosine with ``ways``.
    """

    ways: Tensor
    agreement: dict[str, float]

    @cached_property
    def _shares(self) -> Tensor:
        """(K, P): a change of tokens times it is the share of each way, by least squares. Found once: it is slow."""
        return torch.linalg.pinv(self.ways)

    def check(self, names: Sequence[str]) -> None:
        """Refuse to turn what this model does not tell apart.

        Raises:
            InputError: people do not agree on the way of a part.
        """
        least = DirectionConfig.min_agreement
        for name in names:
            if self.agreement[name] < least:
                raise InputError(
                    f"{name}: this model's motion tokens have no common direction for it on drawn heads (agreement "
                    f"{self.agreement[name]:.2f}, needed {least:g}): leave {name} at 1 and turn expression instead"
                )

    def scaled(self, tokens: Tensor, own: Tensor, gains: dict[str, float]) -> Tensor:
        """Tokens with each part's share of what sets them apart from ``own`` multiplied by its gain.

        Args:
            tokens: (1, F, T, K').
            own: (1, 1, T, K'), the portrait's.
            gains: by name of ``FACIAL``; 1 leaves a part as it is.
        """
        difference = (tokens - own).flatten(2).float()
        shares = difference @ self._shares  # (1, F, P)
        more = to_device(torch.tensor([gains[name] - 1 for name in FACIAL]), tokens.device)
        return tokens + ((shares * more) @ self.ways).view_as(tokens).to(tokens.dtype)


def find_directions(read: Reader, size_px: int, config: DirectionConfig | None = None) -> Directions:
    """Show ``read`` drawn people with each part of the face at rest and in full use."""
    config = config or DirectionConfig()
    ways: dict[str, list[Tensor]] = {name: [] for name in FACIAL}
    for number in range(config.people):
        at_rest, *used = read(_pictures(config.first_seed + number, size_px))[0].flatten(1).float()
        for name, tokens in zip(FACIAL, used, strict=True):
            ways[name].append(tokens - at_rest)
    means = {name: torch.stack(found).mean(dim=0) for name, found in ways.items()}
    agreement = {
        name: float(torch.cosine_similarity(torch.stack(ways[name]), mean[None]).mean())
        for name, mean in means.items()
    }
    return Directions(torch.stack(list(means.values())), agreement)


def _pictures(seed: int, size_px: int) -> np.ndarray:
    """(1 + P, S, S, 3) uint8: one person in one pose, every part at rest, then each in use alone."""
    person, motion = Identity.sample(seed), Performance.sample(seed).at(0)
    rest = motion.expression.copy()
    rest[[EXPRESSION_INDEX[part] for parts in FACIAL.values() for part in parts]] = 0.0
    expressions = [rest]
    for parts in FACIAL.values():
        expressions.append(rest.copy())
        expressions[-1][[EXPRESSION_INDEX[part] for part in parts]] = 1.0
    motions: list[Motion] = [dataclasses.replace(motion, expression=expression) for expression in expressions]
    return np.stack([render(person, moved, size_px).image for moved in motions])
