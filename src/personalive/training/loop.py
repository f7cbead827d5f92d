"""One optimisation loop for every stage: schedule, averaging, log, and what ends it.

Several processes can share it: each takes a part of the batch, and gradients are averaged. It is worth it on a CPU
too when each has enough to do. Start them with ``torchrun``.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from personalive.errors import PersonaLiveError
from personalive.training.presets import StageConfig


@dataclass(frozen=True)
class World:
    """Rank of this process and their number."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Tell whether this process writes files and reports progress."""
        return self.rank == 0

    @torch.no_grad()
    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; a missing one counts as zero."""
        if self.size == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def agreed(self, value: float) -> float:
        """The first process's value, so that all end at the same step."""
        if self.size == 1:
            return value
        shared: Tensor = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, src=0)
        return float(shared.item())


def join_world() -> World:
    """Join the processes that ``torchrun`` describes in the environment; one process without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return World(dist.get_rank(), size)


Losses = dict[str, Tensor]
LossOf = Callable[[int, float], Losses]
Snapshot = Callable[[nn.Module, int], None]
LOG_EVERY_STEPS = 20
FINAL_LR_SHARE = 0.05


class TrainingError(PersonaLiveError):
    """Training cannot go on; what was reached is kept."""


class Average:
    """Exponential moving average of named tensors, warmed up so that early steps do not linger."""

    def __init__(
        self, tensors: Mapping[str, Tensor], half_life_steps: int, values: dict[str, Tensor] | None = None
    ) -> None:
        """
        Args:
            tensors: that change; those that are no floats are copied.
            values: their averages, which begin as equal tensors; by default new ones.
        """
        self.tensors = tensors
        self.values = values or {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.decay = 0.5 ** (1 / half_life_steps)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the tensors after step ``step``, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, mean in self.values.items():
            if mean.dtype.is_floating_point:
                mean.lerp_(self.tensors[name], weight)
            else:
                mean.copy_(self.tensors[name])


def train(
    name: str,
    module: nn.Module,
    loss_of: LossOf,
    config: StageConfig,
    log: Path,
    snapshot: Snapshot | None = None,
    snapshot_minutes: float = 5.0,
    world: World = World(),
) -> nn.Module:
    """Minimise ``loss_of(step, progress)["loss"]`` over the trainable parameters of ``module``.

    Args:
        loss_of: gives named scalars; "loss" carries the gradient. ``progress`` runs from 0 to 1.
        log: JSON-lines file, one line every few steps.
        world: the processes that share this optimisation; all must hold the same weights.
        snapshot: called with the averaged module every few minutes and at the end.

    Returns:
        The averaged module.

    Raises:
        TrainingError: the loss is not a number.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    averaged = copy.deepcopy(module).requires_grad_(False)
    average = Average(module.state_dict(), config.ema_half_life_steps, averaged.state_dict())
    begun, shown, step = time.monotonic(), time.monotonic(), 0
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as lines:
        while (done := world.agreed(progress(config, step, time.monotonic() - begun))) < 1:
            set_lr(optimiser, config, step, done)
            losses = loss_of(step, done)
            if not math.isfinite(losses["loss"].item()):
                raise TrainingError(f"{name}: the loss is not a number at step {step}: lower the learning rate")
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            world.average_gradients(parameters)
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            optimiser.step()
            average.update(step)
            step += 1
            if step % LOG_EVERY_STEPS == 0 and world.leads:
                row = {"stage": name, "step": step, "seconds": round(time.monotonic() - begun, 1)}
                row |= {key: round(value.item(), 5) for key, value in losses.items()}
                lines.write(json.dumps(row | {"norm": round(norm.item(), 4)}) + "\n")
                lines.flush()
            if snapshot and world.leads and time.monotonic() - shown > 60 * snapshot_minutes:
                snapshot(averaged, step)
                shown = time.monotonic()
    if snapshot and world.leads:
        snapshot(averaged, step)
    return averaged


def progress(config: StageConfig, step: int, seconds: float) -> float:
    """Share of the stage that is done, by steps or by time, whichever is further."""
    return max(step / config.steps, seconds / (60 * config.minutes))


def set_lr(optimiser: torch.optim.Optimizer, config: StageConfig, step: int, done: float) -> None:
    """Linear warm-up, then a cosine down to a twentieth."""
    cosine = FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    for group in optimiser.param_groups:
        group["lr"] = config.lr * cosine * min(1.0, (step + 1) / config.warmup_steps)


def trainable(modules: Iterable[nn.Module]) -> nn.ModuleList:
    """Modules set to train together."""
    return nn.ModuleList([module.train().requires_grad_(True) for module in modules])
