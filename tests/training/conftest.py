"""A training run of two steps per stage, on two groups of 128 px heads; a set prepared from small videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torch import nn

from personalive.config import DetailConfig
from personalive.errors import InputError
from personalive.training import run as module
from personalive.training.data import render_set
from personalive.training.prepare.runner import prepare
from personalive.training.presets import DataConfig, StageConfig, TinyPreset
from personalive.training.run import STEPS, Run
from support.head_films import write_heads
from support.prepared import SETTINGS, Made, write_videos
from support.small_model import SMALL_PRESET

SIDE_PX = 128  # latents of 16 x 16, the grid that masks are kept on
DATA = DataConfig(groups=2, frames=3, size_px=SIDE_PX)
_STAGE = StageConfig(steps=2, batch=2, frames=2, warmup_steps=1)
STAGES = {
    **dict.fromkeys(("decoder", "extractor", "tokens", "motion", "sharpen", "detail"), _STAGE),
    "vae": dataclasses.replace(_STAGE, start_steps=3),
    "temporal": dataclasses.replace(_STAGE, batch=1, frames=16),
}


def toy_preset() -> TinyPreset:
    model = SMALL_PRESET.model
    guider = dataclasses.replace(model.pose_guider, canvas_size_px=SIDE_PX)
    detail = DetailConfig(width=8, blend_width=8)
    model = dataclasses.replace(model, image_size_px=SIDE_PX, pose_guider=guider, entry="moved", detail=detail)
    return dataclasses.replace(SMALL_PRESET, model=model)


def toy_run(folder: Path, said: list[str] | None = None) -> Run:
    say = [].append if said is None else said.append
    return Run(folder, "cpu", steps=None, minutes=None, groups=2, say=say, preset=toy_preset(), stages=STAGES)


@dataclass
class Record:
    """What the stages of a finished run did."""

    folder: Path
    said: list[str] = field(default_factory=list)
    rendered: list[int] = field(default_factory=list)
    # by stage: names of parameters, each behind its network's name
    asked: dict[str, set[str]] = field(default_factory=dict)  # that the stage says it trains
    reached: dict[str, set[str]] = field(default_factory=dict)  # that a loss gives a gradient
    all: set[str] = field(default_factory=set)


def _names(run: Run, chosen) -> set[str]:
    parts = run.networks.modules() | {"reader": nn.ModuleList([run.reader.read, run.reader.early])}
    return {f"{part}.{n}" for part, network in parts.items() for n, p in network.named_parameters() if chosen(p)}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Every stage once; before each, its loss is taken at the stage's start and near its end."""
    record = Record(tmp_path_factory.mktemp("run"))
    render_set(record.folder / "data", DATA, record.rendered.append, workers=1)
    train = module.train

    def watched(name, network, loss_of, config, *rest, **options):
        for done in (0.0, 0.9):
            loss_of(7, done)["loss"].backward()
        record.asked[name] = _names(run, lambda p: p.requires_grad)
        record.reached[name] = _names(run, lambda p: p.grad is not None)
        network.zero_grad()
        return train(name, network, loss_of, config, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train", watched)
        for step in STEPS[1:]:
            run = toy_run(record.folder, record.said)
            run.do(step)
    record.all = _names(run, lambda p: True)
    return record


class Toy:
    """Runs at toy size that are meant to fail."""

    def error(self, folder: Path, stage: str) -> str:
        with pytest.raises(InputError) as error:
            toy_run(folder).do(stage)
        assert "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A set of one video of each kind, that no test changes."""
    place = tmp_path_factory.mktemp("prepared")
    videos, out = write_videos(place / "videos"), place / "set"
    return Made(videos, out, prepare(videos, out, **SETTINGS))


@pytest.fixture
def one_video(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with one short video of a head."""

    def make(frames: int = 20, seed: int = 0) -> Path:
        folder = tmp_path / "videos"
        folder.mkdir(exist_ok=True)
        write_heads(folder / "one.mp4", range(frames), seed=seed)
        return folder

    return make
