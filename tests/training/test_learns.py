"""All stages at a toy budget, from nothing: each lowers its own held-out loss, and the last one's weights run."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks
from personalive.runtime.load import load_engine
from personalive.training import run as module
from personalive.training.config import TrainConfig
from personalive.training.data.sets import TrainingSet
from personalive.training.presets import PRESETS, STAGES, Stage
from personalive.training.run import TrainReport, open_set, train_all
from personalive.training.stages import encoders
from support.toy_run import TOY_DETAIL_SHAPE, rows, toy_config, toy_context
from support.toy_set import ToySet

pytestmark = pytest.mark.full  # a minute
STEPS: dict[Stage, tuple[str, ...]] = {
    "autoencoder": ("steps=30", "optimiser.lr=3e-3", "autoencoder.crop_px=32"),
    "extractor": ("steps=40", "data.cached=48", "optimiser.lr=4e-3", "optimiser.clip_norm=10"),
    "motion_encoder": ("steps=40", "data.cached=48", "optimiser.lr=2e-3", "data.other_driver=1"),
    "motion": ("steps=15", "optimiser.lr=2e-3"),
    "distill": ("steps=10", "optimiser.lr=1e-3", "discriminator.generator_from_step=5"),
    "stream": ("steps=8", "batch=1", "optimiser.lr=1e-2", "stream.frames=16", "stream.gradient_windows=0"),
    "detail": ("steps=10", "optimiser.lr=1e-2"),
}


def opened(data: str, config: TrainConfig, size_px: int, *, held_out: bool) -> TrainingSet:
    """Rendered heads for the stages that need true ones; the others get what is drawn in no time."""
    rendered = config.stage in ("extractor", "motion_encoder")
    return open_set(data, config, size_px, held_out=held_out) if rendered else ToySet(size_px)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[TrainReport]:
    quiet = ("journal.held_out_every_steps=1000", "journal.checkpoint_every_steps=1000", "journal.sheet_rows=2")
    kept = {  # of the preset, that ``toy_config`` turns to the published values
        "images.frames": 2,
        "images.second_reference": 0.25,
        "loss.domain": "latents",
        "loss.robust_from": 0.1,
        "loss.by_channel": "true",
        "data.people": 6,
    }
    pairs = [*quiet, "batch=4", "journal.held_out_samples=4", *(f"{key}={value}" for key, value in kept.items())]
    configs = [toy_config(stage, *pairs, *STEPS[stage], preset="tiny") for stage in PRESETS["tiny"].stages]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHAPES", {"tiny": TOY_DETAIL_SHAPE})
        patch.setattr(module, "open_set", opened)
        patch.setattr(encoders, "SCALING_SAMPLES", 64)
        patch.setattr(encoders, "SPREAD_SAMPLES", 64)
        run = tmp_path_factory.mktemp("all")
        return train_all(configs, data="synthetic", run=run, weights="scratch", device="cpu")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_its_own_held_out_loss(reports: list[TrainReport], stage: Stage):
    (run,) = [report.weights.parent for report in reports if report.weights.parent.name.endswith(f"-{stage}")]
    before, after = (row["loss"] for row in rows(run, "held_out"))
    assert after < 0.99 * before
    assert len(list((run / "sheets").iterdir())) == 2


def test_the_weights_of_the_last_stage_run(reports: list[TrainReport]):
    portrait = ToySet(64).clip(np.random.default_rng(0), 4, 1).target
    engine = load_engine(reports[-1].weights, device="cpu", dtype="float32", backend="eager")
    frames = [frame for chunk in engine.stream(portrait[0], [portrait]) for frame in chunk]
    assert len(frames) == 4
    assert engine.config.detail.width == TOY_DETAIL_SHAPE.model.detail.width


def test_latents_have_spread_one(reports: list[TrainReport]):
    context = toy_context(toy_config("motion"), load_networks(CheckpointFolder.open(reports[0].weights)))
    latents = context.maker.make([context.data.pair(np.random.default_rng(row)) for row in range(64)]).latent
    assert 0.8 < latents.std() < 1.25
