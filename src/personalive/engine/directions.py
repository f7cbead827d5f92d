"""Directions of the motion tokens along which a mouth opens or eyes close, by which they are scaled alone (ours).

No axis of the tokens is "the mouth". But the same change of the same face moves them the same way for everyone, if
the encoder is any good. runtime/directions.py measures them. K is the number of values of one frame's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from personalive.device import to_device
from personalive.errors import InputError

TokenEncoder = Callable[[np.ndarray], Tensor]  # (F, S, S, 3) uint8 -> (1, F, T, K') motion tokens
MIN_AGREEMENT = 0.5  # mean cosine among people; the bundled model has 0.9, chance is near 0.35 for eight
FACIAL: dict[str, tuple[str, ...]] = {"mouth": ("jawOpen",), "eyes": ("eyeBlinkLeft", "eyeBlinkRight")}


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of parts of the face in the motion tokens.

    Attributes:
        directions: (P, K) float32, mean change of the tokens from a part at rest to one in full use, by name of
            ``FACIAL``.
        agreement: how alike that change is among people, for each part: mean cosine with ``directions``.
    """

    directions: Tensor
    agreement: dict[str, float]

    @cached_property
    def _shares(self) -> Tensor:
        """(K, P): a change of tokens times it is the share of each direction, by least squares."""
        return torch.linalg.pinv(self.directions)

    def check(self, names: Sequence[str]) -> None:
        """Refuse to scale what this model does not tell apart.

        Raises:
            InputError: people do not agree on the direction of a part.
        """
        least = MIN_AGREEMENT
        for name in names:
            if self.agreement[name] < least:
                raise InputError(
                    f"{name}: this model's motion tokens have no common direction for it on synthetic heads "
                    f"(agreement {self.agreement[name]:.2f}, needed {least:g}): leave {name} at 1 and "
                    "turn expression instead"
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
        return tokens + ((shares * more) @ self.directions).view_as(tokens).to(tokens.dtype)


DirectionFinder = Callable[[TokenEncoder, int], Directions]
"""Finds the directions by encoding images of a side in pixels."""
