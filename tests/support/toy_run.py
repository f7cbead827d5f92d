"""Training runs of the recipe on the small model and the toy set: a step takes a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from personalive.models.networks import Networks
from personalive.runtime.load import DTYPES
from personalive.training.build import build_networks
from personalive.training.recipe.loop import Loop
from personalive.training.recipe.material import Arithmetic
from personalive.training.recipe.overrides import resolve
from personalive.training.recipe.parameters import named_parameters
from personalive.training.recipe.presets import Stage
from personalive.training.recipe.run import make_loop
from personalive.training.recipe.settings import TrainConfig
from personalive.training.recipe.stage import Setting
from support.small_model import SMALL_PRESET
from support.toy_set import ToySet

QUIET = (  # nothing is written but rows and checkpoints
    "journal.tensorboard=false",
    "journal.held_out_samples=0",
    "journal.sheet_rows=0",
    "journal.checkpoint_every_steps=2",
    "optimiser.warmup_steps=0",
    "discriminator.channel_base=256",
    "discriminator.max_channels=8",
    "discriminator.generator_from_step=1",
    "discriminator.train_from_step=0",
)


def toy_networks() -> Networks:
    """The small model with no weight at zero, so that every parameter has a gradient."""
    networks = build_networks(SMALL_PRESET)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in named_parameters(networks).items():
            if not name.startswith("vae."):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return networks


def toy_config(stage: Stage, *values: str, preset: str = "tiny") -> TrainConfig:
    return resolve(stage, preset, pairs=[*QUIET, *values])


def toy_setting(config: TrainConfig, networks: Networks | None = None) -> Setting:
    arithmetic = Arithmetic(torch.device("cpu"), DTYPES[config.compute.precision], config.compute.recompute)
    return Setting(config, networks or toy_networks(), arithmetic, ToySet(), ToySet())


def toy_loop(folder: Path, config: TrainConfig, networks: Networks | None = None) -> Loop:
    folder.mkdir(parents=True, exist_ok=True)
    return make_loop(toy_setting(config, networks), folder, lambda now: None, lambda line: None)


def rows(folder: Path, kind: str = "train", leave_out: Iterable[str] = ("steps_per_s",)) -> list[dict[str, Any]]:
    """The log of a run, without what depends on the clock."""
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in leave_out} for line in lines if line["kind"] == kind]
