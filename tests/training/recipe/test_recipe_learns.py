"""The whole recipe at a toy budget: three stages in a row, each of which lowers its own held-out loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from personalive.training.build import build_networks
from personalive.training.recipe.presets import STAGES
from support.small_model import SMALL_PRESET
from support.toy_run import rows, toy_config, toy_loop

SETTINGS = {
    "motion": ("steps=60", "batch=2", "optimiser.lr=2e-3", "journal.held_out_samples=4"),
    "distill": ("steps=16", "batch=2", "optimiser.lr=2e-3", "journal.held_out_samples=4"),
    "stream": ("steps=16", "batch=1", "optimiser.lr=1e-2", "journal.held_out_samples=1"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, networks = tmp_path_factory.mktemp("recipe"), build_networks(SMALL_PRESET)
    for stage in STAGES:
        quiet = ("journal.held_out_every_steps=1000", "journal.checkpoint_every_steps=1000")
        toy_loop(folder / stage, toy_config(stage, *SETTINGS[stage], *quiet), networks).run()
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_its_own_held_out_loss(run: Path, stage: str):
    before, after = (row["loss"] for row in rows(run / stage, "held_out"))
    assert after < 0.99 * before
