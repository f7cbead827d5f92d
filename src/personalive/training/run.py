"""Training runs: weights and data in, a run folder and a weights folder out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks, save_networks
from personalive.config import expand_user
from personalive.errors import InputError, OutputError
from personalive.media.paths import write_whole
from personalive.models.networks import Networks
from personalive.progress import Progress
from personalive.runtime.load import DTYPES, choose_device, find_weights
from personalive.runtime.memory import oom_errors
from personalive.synthetic.photo_heads import INDEX_FILE as HEADS_FILE
from personalive.training.batch import Compute
from personalive.training.config import TrainConfig
from personalive.training.data.sets import PreparedSet, TrainingSet
from personalive.training.data.synthetic import HELD_OUT_SEED, PhotoHeadSet, SyntheticSet
from personalive.training.distributed import join_processes
from personalive.training.loop import Loop
from personalive.training.overrides import as_json, check_same, from_json
from personalive.training.presets import SCRATCH, SYNTHETIC
from personalive.training.scratch import build_networks, initialise
from personalive.training.shapes import SHAPES
from personalive.training.stages.base import Context

CONFIG, ORIGIN, WEIGHTS = "config.json", "origin.json", "weights"
INITIAL_PAIRS = 64  # that fresh networks are brought to the scale of
_HINTS = (
    "--set batch=1 with a larger --set accumulate, --set compute.recompute=true, "
    "--set compute.shard_optimiser=true on several GPUs, or --preset tiny"
)


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
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_message: Callable[[str], None] = lambda line: None,
) -> TrainReport:
    """Train one stage, or go on with it where its folder ends; alone, or as one of ``torchrun``'s processes.

    Args:
        config: from ``resolve``.
        data: a folder by `personalive data prepare` or `personalive data heads`, or "synthetic".
        run: its folder; made if it is not there.
        weights: what the run starts from: a weights folder, "tiny", "auto", or "scratch" for fresh networks of the
            preset's shape.
        device: as ``load_engine``.
        on_progress: called after every step.
        on_message: called with single lines: parameters, hints.

    Raises:
        InputError: data that cannot be used, or a run folder that was begun otherwise.
        CheckpointError: weights or checkpoints that cannot be used.
        TrainingError: a loss that is not a number, or a process that ended.
        DeviceError: memory is not enough.
    """
    processes, device = join_processes(device)
    processes.batches(config.accumulate)
    chosen = choose_device(device)
    folder = None if weights == SCRATCH else CheckpointFolder.open(find_weights() if weights == "auto" else weights)
    size_px = (SHAPES[config.preset].model if folder is None else folder.config).image_size_px
    sets = [open_set(data, config, size_px, held_out=held_out) for held_out in (False, True)]
    if processes.writes:
        name, identity = (SCRATCH, str(config.seed)) if folder is None else (folder.name, folder.identity())
        _claim(run, config, {"data": data, "weights": name, "weights_identity": identity})
    else:  # another process reports
        on_progress, on_message = _ignore, _ignore
    processes.wait()
    with oom_errors(chosen, _HINTS):
        if folder is None:
            on_message(f"{config.stage}: begins with fresh networks of preset {config.preset}")
            networks = build_networks(SHAPES[config.preset], config.seed)
            pairs = [sets[0].pair(np.random.default_rng([config.seed, row])) for row in range(INITIAL_PAIRS)]
            initialise(networks, pairs)
        else:
            networks = load_networks(folder, dtype=torch.float32)
        for network in networks.modules().values():
            network.to(chosen)
        compute = Compute(chosen, DTYPES[config.compute.precision], config.compute.recompute)
        loop = Loop(Context(config, networks, compute, sets[0], sets[1], processes), run, on_progress, on_message)
        done = loop.run()
        if processes.writes and (done or not (run / WEIGHTS).exists()):
            with loop.networks.averaged():
                loop.stage.finish()
                _export(networks, run / WEIGHTS)
        processes.wait()
    return TrainReport(run / WEIGHTS, loop.finished, done)


def train_all(
    configs: Sequence[TrainConfig], *, data: str, run: Path, weights: str, **options: Any
) -> list[TrainReport]:
    """Train stages one after another, each in a folder of its own and from what the one before left.

    Args:
        configs: one per stage, in order.
        options: as ``train``.

    Raises:
        PersonaLiveError: as ``train``.
    """
    reports: list[TrainReport] = []
    for number, config in enumerate(configs, start=1):
        reports.append(train(config, data=data, run=run / f"{number}-{config.stage}", weights=weights, **options))
        weights = str(reports[-1].weights)
    return reports


def open_set(data: str, config: TrainConfig, size_px: int, *, held_out: bool) -> TrainingSet:
    """The training set that ``data`` names.

    Raises:
        InputError: it is not there, or nothing is in it.
    """
    options: Any = {"other_driver": config.data.other_driver, "held_out": held_out}
    if data == SYNTHETIC:
        first = HELD_OUT_SEED if held_out else 0
        return SyntheticSet(first_seed=first, people=config.data.people, size_px=size_px, **options)
    folder = expand_user(data)
    if (folder / HEADS_FILE).exists():
        return PhotoHeadSet(folder, size_px, **options)
    return PreparedSet(folder, held_out=held_out)


def _ignore(_: object) -> None: ...


def _claim(folder: Path, config: TrainConfig, origin: dict[str, str]) -> None:
    """Make the run folder, or check that it was begun in the same way."""
    try:
        if (folder / CONFIG).exists():
            begun = from_json((folder / CONFIG).read_text(), str(folder / CONFIG))
            check_same(begun, config, str(folder))
            first = json.loads((folder / ORIGIN).read_text())
            for key, name in (("data", "data"), ("weights_identity", "weights")):
                if first.get(key) != origin[key]:
                    raise InputError(
                        f"{folder}: this run began with {name} {first.get(name)!r}, not {origin[name]!r} as it is "
                        "now: repeat its own command, or give another --run"
                    )
        elif folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder}: holds other files and no training run: give another --run")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ORIGIN, json.dumps(origin, indent=2) + "\n")
        write_whole(folder / CONFIG, as_json(config) + "\n")
    except json.JSONDecodeError as error:
        raise InputError(f"{folder / ORIGIN}: damaged: give another --run") from error
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{folder}: cannot be the run folder ({error}): give another --run") from error


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
