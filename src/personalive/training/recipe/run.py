"""One training run: weights and data in, a run folder and a weights folder out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks, save_networks
from personalive.errors import InputError, OutputError
from personalive.models.networks import Networks
from personalive.progress import Progress
from personalive.runtime.load import DTYPES, choose_device
from personalive.runtime.memory import oom_errors
from personalive.training.loop import Average
from personalive.training.presets import HELD_OUT_SEED
from personalive.training.recipe.distill import DistillLosses
from personalive.training.recipe.journal import write_whole
from personalive.training.recipe.loop import Loop
from personalive.training.recipe.material import Arithmetic
from personalive.training.recipe.motion import MotionLosses
from personalive.training.recipe.optimiser import make_player
from personalive.training.recipe.overrides import as_json, check_same, from_json
from personalive.training.recipe.parameters import choose
from personalive.training.recipe.presets import Stage
from personalive.training.recipe.settings import TrainConfig
from personalive.training.recipe.stage import Setting, StageLosses
from personalive.training.recipe.stream import StreamLosses
from personalive.training.sets import PreparedSet, TrainingSet
from personalive.training.synthetic_set import SyntheticSet

SYNTHETIC = "synthetic"  # the name of the synthetic set where a prepared folder is asked for
CONFIG, ORIGIN, WEIGHTS = "config.json", "origin.json", "weights"
_WAYS_OUT = "--set batch=1 with a larger --set accumulate, --set compute.recompute=true, or --preset tiny"
STAGE_LOSSES: dict[Stage, Callable[[Setting], StageLosses]] = {
    "motion": MotionLosses,
    "distill": DistillLosses,
    "stream": StreamLosses,
}


@dataclass(frozen=True, slots=True)
class TrainReport:
    """Result of a run."""

    weights: Path  # a folder that `personalive animate --weights` takes
    steps: int  # in all
    steps_now: int  # by this call


def train(
    config: TrainConfig,
    *,
    data: str,
    run: Path,
    weights: str,
    device: str = "auto",
    show: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda line: None,
) -> TrainReport:
    """Train one stage, or go on with it where its folder ends.

    Args:
        config: from ``resolve``.
        data: a prepared folder, or "synthetic".
        run: its folder; made if it is not there.
        weights: what the run starts from: a weights folder or "tiny".
        device: as ``load_engine``.
        show: hears of progress after every step.
        say: hears single lines: parameters, hints.

    Raises:
        InputError: data that cannot be used, or a run folder that was begun otherwise.
        CheckpointError: weights or checkpoints that cannot be used.
        TrainingError: a loss that is not a number.
        DeviceError: memory is not enough.
    """
    chosen = choose_device(device)
    folder = CheckpointFolder.open(weights)
    sets = [open_set(data, config, folder.config.image_size_px, held_out=held_out) for held_out in (False, True)]
    _claim(run, config, {"data": data, "weights": folder.name, "weights_identity": folder.identity()})
    with oom_errors(chosen, _WAYS_OUT):
        networks = load_networks(folder, device=chosen, dtype=torch.float32)
        arithmetic = Arithmetic(chosen, DTYPES[config.compute.precision], config.compute.recompute)
        loop = make_loop(Setting(config, networks, arithmetic, *sets), run, show, say)
        done = loop.run()
        if done or not (run / WEIGHTS).exists():
            with loop.averaged():
                _export(networks, run / WEIGHTS)
    return TrainReport(run / WEIGHTS, loop.finished, done)


def make_loop(setting: Setting, folder: Path, show: Callable[[Progress], None], say: Callable[[str], None]) -> Loop:
    """The stage's losses, parameters and optimisers."""
    config, device = setting.config, setting.arithmetic.device
    parameters = choose(setting.networks, config.stage)
    stage = STAGE_LOSSES[config.stage](setting)
    count = sum(parameter.numel() for parameter in parameters.values())
    say(f"{config.stage}: trains {count:,} parameters in {len(parameters)} tensors on {device}")
    player = make_player("networks", parameters, config.optimiser.lr, config, device)
    other = None
    if stage.pixels is not None:
        own = dict(stage.pixels.discriminator.named_parameters())
        other = make_player("discriminator", own, config.optimiser.discriminator_lr, config, device)
    average = Average(parameters, config.average.half_life_steps) if config.average.on else None
    return Loop(
        config=config,
        stage=stage,
        networks=player,
        discriminator=other,
        average=average,
        folder=folder,
        show=show,
        say=say,
    )


def open_set(data: str, config: TrainConfig, size_px: int, *, held_out: bool) -> TrainingSet:
    """The training set that ``data`` names.

    Raises:
        InputError: it is not there, or nothing is in it.
    """
    if data == SYNTHETIC:
        settings = config.data
        return SyntheticSet(
            first_seed=HELD_OUT_SEED if held_out else 0,
            people=settings.people,
            size_px=size_px,
            other_driver=settings.other_driver,
            held_out=held_out,
        )
    return PreparedSet(Path(data).expanduser(), held_out=held_out)


def _claim(folder: Path, config: TrainConfig, origin: dict[str, str]) -> None:
    """Make the run folder, or check that it was begun in the same way."""
    try:
        if (folder / CONFIG).exists():
            begun = from_json((folder / CONFIG).read_text(), str(folder / CONFIG))
            check_same(begun, config, str(folder))
            _check_origin(folder, origin)
        elif folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder}: holds other files and no training run: give another --run")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ORIGIN, json.dumps(origin, indent=2) + "\n")
        write_whole(folder / CONFIG, as_json(config) + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{folder}: cannot be the run folder ({error}): give another --run") from error


def _check_origin(folder: Path, origin: dict[str, str]) -> None:
    try:
        begun = json.loads((folder / ORIGIN).read_text())
    except ValueError as error:
        raise InputError(f"{folder / ORIGIN}: damaged: give another --run") from error
    for key in ("data", "weights_identity"):
        if begun.get(key) != origin[key]:
            name = "weights" if key != "data" else key
            raise InputError(
                f"{folder}: this run began with {name} {begun.get(name)!r}, not {origin[name]!r} as it is now: "
                "repeat its own command, or give another --run"
            )


def _export(networks: Networks, folder: Path) -> None:
    """Write the weights; those of an earlier, shorter training go when the new ones are whole."""
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    save_networks(networks, new)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
