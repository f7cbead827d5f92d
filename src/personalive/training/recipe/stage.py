"""Interface of a stage to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from personalive.engine.schedule import Schedule
from personalive.models.networks import Networks
from personalive.training.recipe.losses import Output, PixelLoss
from personalive.training.recipe.material import Arithmetic, Loader
from personalive.training.recipe.presets import STAGES
from personalive.training.recipe.settings import TrainConfig
from personalive.training.sets import Clip, TrainingSet

_HELD_OUT = 1 << 40  # in the place of the step: no run gets there


class Window(NamedTuple):
    """The truth of frames in flight."""

    target: Tensor  # (B, F, 3, S, S) in [-1, 1]
    masks: Tensor  # (B, F, 3, G, G) in [0, 1]
    levels: Tensor  # (B, F) timesteps


class StageLosses(ABC):
    """One stage: losses, and images for people."""

    updates = 1  # of the parameters, per step
    pixels: PixelLoss | None = None  # with the network that is trained against the others, if there is one

    @abstractmethod
    def losses(self, step: int, rows: Sequence[int]) -> Iterator[Output]:
        """``updates`` outputs for the samples ``rows`` of a step; the next is asked for after the update."""

    @abstractmethod
    def held_out(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The loss on fixed held-out samples without any dropout; the caller turns gradients off."""

    @abstractmethod
    def sheet(self, rows: int) -> np.ndarray:
        """(H, W, 3) uint8 image of fixed held-out samples; the caller turns gradients off."""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """Parts of every stage."""

    config: TrainConfig
    networks: Networks
    arithmetic: Arithmetic
    data: TrainingSet
    held_out_data: TrainingSet

    @property
    def schedule(self) -> Schedule:
        """The model's noise schedule."""
        return Schedule(self.networks.config.schedule)

    @property
    def loader(self) -> Loader:
        """Samples to tensors."""
        return Loader(self.networks, self.arithmetic, self.config.augment)

    def clips(self, step: int | None, rows: Sequence[int]) -> tuple[list[Clip], list[np.random.Generator]]:
        """Clips of one step, or held-out ones (None), and the generators that drew them."""
        rngs, config = self.rngs(step, rows), self.config.stream
        data = self.held_out_data if step is None else self.data
        return [data.clip(rng, config.frames, config.frame_stride) for rng in rngs], rngs

    def rngs(self, step: int | None, rows: Sequence[int]) -> list[np.random.Generator]:
        """One generator per sample: it depends on (seed, stage, step, row) alone; step None is held out."""
        number = STAGES.index(self.config.stage)
        key = (0, number, _HELD_OUT) if step is None else (self.config.seed, number, step)
        return [np.random.default_rng([*key, row]) for row in rows]
