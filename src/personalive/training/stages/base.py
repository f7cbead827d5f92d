"""Interface of a stage to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from personalive.engine.schedule import Schedule
from personalive.models.networks import Networks
from personalive.progress import Progress
from personalive.training.batch import BatchMaker, Compute, Tensors
from personalive.training.config import TrainConfig
from personalive.training.data.loader import BatchCache, Source, load
from personalive.training.data.sets import Pair, TrainingSet
from personalive.training.distributed import ProcessGroup
from personalive.training.losses import LatentLoss, Output, PixelLoss
from personalive.training.presets import STAGES

_HELD_OUT, _FINISH = 1 << 40, 1 << 42  # in the place of the step: no run gets there
Rngs = list[np.random.Generator]
B = TypeVar("B", bound=Tensors)


@dataclass(frozen=True, eq=False)
class Context:
    """Parts of every stage."""

    config: TrainConfig
    networks: Networks
    compute: Compute
    data: TrainingSet
    held_out_data: TrainingSet
    processes: ProcessGroup

    @cached_property
    def maker(self) -> BatchMaker:
        """Outputs of the frozen networks."""
        return BatchMaker(self.networks, self.compute)

    @property
    def number(self) -> int:
        """Number of the stage."""
        return STAGES.index(self.config.stage)


class StageLosses(ABC, Generic[B]):
    """One stage: samples, losses, and images for people."""

    kind: type[B]
    clip: tuple[int, int] | None = None  # frames and stride of the clips it trains on; None: pairs
    updates = 1  # of the parameters, per step
    adversary: PixelLoss | LatentLoss | None = None  # whose discriminator is trained against the networks
    buffers: Mapping[str, Tensor] = MappingProxyType({})  # tensors that change while training, beside the parameters
    readers: nn.Module | None = None  # layers that are trained with the networks and dropped afterwards

    def __init__(self, context: Context) -> None:
        self.context, self.config, self.networks = context, context.config, context.networks
        self.compute, self.schedule = context.compute, Schedule(context.networks.config.schedule)

    @abstractmethod
    def make(self, samples: Sequence[Pair]) -> B:
        """A batch of samples: tensors, and outputs of networks that are frozen; without gradients or draws."""

    @abstractmethod
    def losses(self, step: int | None, batch: B, rngs: Rngs) -> Iterator[Output]:
        """``updates`` outputs for a batch of a step; the next is asked for after the update.

        ``step`` None is held out: without dropout, augmentation and adversarial terms.
        """

    @abstractmethod
    def sheet(self, rows: int) -> np.ndarray:
        """(H, W, 3) uint8 image of fixed held-out samples; the caller turns gradients off."""

    def finish(self) -> None:
        """Change that the networks need after the last step; the average is in place."""

    # --- samples --------------------------------------------------------------------------------------

    def held_out(self, rows: Sequence[int]) -> dict[str, float]:
        """Losses on fixed held-out samples, means over them and over updates; the caller turns gradients off."""
        sums: dict[str, float] = defaultdict(float)
        for start in range(0, len(rows), self.config.batch):
            chunk = rows[start : start + self.config.batch]
            found = [output.losses for output in self.losses(None, *self.held_out_batch(chunk))]
            for name in found[0]:
                mean = torch.stack([one[name] for one in found]).mean().item()
                sums[name] += len(chunk) / len(rows) * mean
        return dict(sums)

    def held_out_batch(self, rows: Sequence[int]) -> tuple[B, Rngs]:
        """Fixed held-out samples, the same in every run of the stage."""
        drawn = Source(self.context.held_out_data, (0, self.context.number), self.clip).draw(_HELD_OUT, rows)
        return self.make(drawn.samples), drawn.rngs

    def finishing_batches(self, count: int) -> Iterator[B]:
        """Batches of ``count`` samples of training that no step has, for ``finish``."""
        size = self.config.batch
        for start in range(0, count, size):
            yield self.make(self.source.draw(_FINISH, range(start, min(start + size, count))).samples)

    @property
    def source(self) -> Source:
        """Samples of training."""
        return Source(self.context.data, (self.config.seed, self.context.number), self.clip)

    def batches(self, begun: int, folder: Path, on_progress: Callable[[Progress], None]) -> Iterator[tuple[B, Rngs]]:
        """This process's batches of step ``begun`` and all that follow, on the device, one after another."""
        config, data = self.config, self.config.data
        own = self.context.processes.batches(config.accumulate)
        keys = (
            (step, range(number * config.batch, (number + 1) * config.batch))
            for step in range(begun, config.steps)
            for number in own
        )
        if not data.cached:
            for drawn in load(self.source, keys, data.workers):
                yield self.make(drawn.samples), drawn.rngs
            return
        cache = BatchCache(folder / "cache", self.kind, data.cached)
        cache.fill(config, self.source, self.make, self.context.processes, on_progress)
        for step, rows in keys:
            rngs = [self.source.rng(step, row) for row in rows]
            batch = cache.take([int(rng.integers(data.cached)) for rng in rngs])
            yield batch.to(self.compute.device), rngs
