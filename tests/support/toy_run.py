"""Training runs of the recipe on the small model and the toy set: a step takes a fraction of a second."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from personalive.config import DetailConfig
from personalive.models.networks import Networks
from personalive.runtime.load import DTYPES
from personalive.training.batch import Compute
from personalive.training.config import TrainConfig
from personalive.training.data.sets import TrainingSet
from personalive.training.distributed import ProcessGroup
from personalive.training.loop import Loop
from personalive.training.overrides import resolve
from personalive.training.parameters import named_parameters
from personalive.training.presets import Stage
from personalive.training.scratch import build_networks
from personalive.training.shapes import ModelShape
from personalive.training.stages.base import Context, Rngs, StageLosses
from personalive.training.stages.denoise import DenoiserLosses
from support.small_model import SMALL_SHAPE
from support.toy_set import ToySet

QUIET = (  # small and in one process; nothing is written but rows and checkpoints
    "journal.tensorboard=false",
    "journal.held_out_samples=0",
    "journal.sheet_rows=0",
    "journal.checkpoint_every_steps=2",
    "journal.log_every_steps=1",
    "batch=2",
    "compute.precision=float32",
    "optimiser.warmup_steps=0",
    "optimiser.schedule=constant",
    "average.on=false",
    "data.workers=0",
    "data.cached=0",
    "accumulate=1",
    "optimiser.lr=5e-5",
    "compute.recompute=false",
    "motion.inference_form=true",
    "distill.inference_form=true",
    "stream.inference_form=true",
    "discriminator.channel_base=256",
    "discriminator.max_channels=8",
    "discriminator.generator_from_step=1",
    "discriminator.train_from_step=0",
)


TOY_DETAIL_SHAPE = dataclasses.replace(
    SMALL_SHAPE,
    model=dataclasses.replace(SMALL_SHAPE.model, entry="moved", detail=DetailConfig(width=8, blend_width=8)),
)


def toy_networks(shape: ModelShape = SMALL_SHAPE) -> Networks:
    """The small model with no weight at zero, so that every parameter has a gradient."""
    networks = build_networks(shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in named_parameters(networks).items():
            if not name.startswith("vae."):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return networks


def toy_config(stage: Stage, *values: str, preset: str = "full") -> TrainConfig:
    return resolve(stage, preset, pairs=[*QUIET, *values])


def toy_context(
    config: TrainConfig,
    networks: Networks | None = None,
    processes: ProcessGroup | None = None,
    data: TrainingSet | None = None,
) -> Context:
    compute = Compute(torch.device("cpu"), DTYPES[config.compute.precision], config.compute.recompute)
    sets = (data, data) if data else (ToySet(), ToySet())
    return Context(config, networks or toy_networks(), compute, *sets, processes or ProcessGroup())


def toy_loop(folder: Path, config: TrainConfig, networks: Networks | None = None) -> Loop:
    folder.mkdir(parents=True, exist_ok=True)
    return Loop(toy_context(config, networks), folder, lambda now: None, lambda line: None)


def rows(folder: Path, kind: str = "train", leave_out: Iterable[str] = ("steps_per_s",)) -> list[dict[str, Any]]:
    """The log of a run, without what depends on the clock."""
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in leave_out} for line in lines if line["kind"] == kind]


def batch_of(losses: StageLosses[Any], step: int, numbers: Iterable[int]) -> tuple[Any, Rngs]:
    """A training batch of one step, and the generators that drew it."""
    drawn = losses.source.draw(step, list(numbers))
    return losses.make(drawn.samples), drawn.rngs


def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call of the denoiser outside a stream: its input, levels, conditions, gradient mode and prediction."""
    calls: list[dict[str, Any]] = []
    real = DenoiserLosses.predict

    def predict(self, latents, levels, conditions, *, temporal=False):
        found = real(self, latents, levels, conditions, temporal=temporal)
        call = {"latents": latents.clone(), "levels": levels.clone(), "clean": found.clean.detach().clone()}
        calls.append(
            call | {"gradient": found.clean.requires_grad, "temporal": temporal, "motion": conditions.motion}
        )
        return found

    monkeypatch.setattr(DenoiserLosses, "predict", predict)
    return calls
