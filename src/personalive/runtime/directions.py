"""Directions of mouth and eyes in a model's motion tokens, measured on synthetic heads (ours).

Synthetic heads can be changed in one thing at a time. Imported when first wanted: rendering needs numba.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from personalive.engine.directions import FACIAL, Directions, TokenEncoder
from personalive.synthetic import Identity, Motion, Performance, render
from personalive.synthetic.motion import EXPRESSION_INDEX


@dataclass(frozen=True, kw_only=True)
class DirectionConfig:
    """People who are rendered to find the directions."""

    people: int = 8
    first_seed: int = 5_000


def find_directions(encode: TokenEncoder, size_px: int, config: DirectionConfig | None = None) -> Directions:
    """Encode synthetic people with each part of the face at rest and in full use."""
    config = config or DirectionConfig()
    directions: dict[str, list[Tensor]] = {name: [] for name in FACIAL}
    for number in range(config.people):
        at_rest, *used = encode(_images(config.first_seed + number, size_px))[0].flatten(1).float()
        for name, tokens in zip(FACIAL, used, strict=True):
            directions[name].append(tokens - at_rest)
    means = {name: torch.stack(found).mean(dim=0) for name, found in directions.items()}
    agreement = {
        name: float(torch.cosine_similarity(torch.stack(directions[name]), mean[None]).mean())
        for name, mean in means.items()
    }
    return Directions(torch.stack(list(means.values())), agreement)


def _images(seed: int, size_px: int) -> np.ndarray:
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
