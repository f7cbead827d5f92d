"""Which parameters a stage changes: exactly those that its table names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personalive.training.recipe.parameters import TRAINED, choose, named_parameters
from personalive.training.recipe.presets import STAGES, Stage
from support.stated import stated
from support.toy_run import toy_config, toy_loop, toy_networks

NO_DROPS = ("drop.reference=0", "drop.pose=0", "drop.motion=0")  # a dropped condition has no gradient that step


@pytest.mark.parametrize("form", ["true", "false"], ids=["as in use", "published"])
@pytest.mark.parametrize("stage", STAGES)
def test_one_step_changes_exactly_the_stated_parameters(stage: Stage, form: str, tmp_path: Path):
    networks = toy_networks()
    before = {name: parameter.detach().clone() for name, parameter in named_parameters(networks).items()}
    buffers = {name: value.clone() for name, value in networks.motion_encoder.named_buffers()}
    config = toy_config(stage, "steps=1", "optimiser.lr=1e-3", f"{stage}.inference_form={form}", *NO_DROPS)
    loop = toy_loop(tmp_path, config, networks)
    critic = None if loop.stage.pixels is None else loop.stage.pixels.discriminator
    own = {} if critic is None else {n: p.detach().clone() for n, p in critic.named_parameters()}
    loop.run()
    changed = {n for n, p in named_parameters(networks).items() if not torch.equal(p, before[n])}
    assert changed == stated(set(before), stage, last=1)
    assert set(loop.networks.parameters) == changed
    for name, value in networks.motion_encoder.named_buffers():  # batch norms keep their statistics
        assert torch.equal(value, buffers[name])
    if critic is not None:
        moved = {n for n, p in critic.named_parameters() if not torch.equal(p, own[n])}
        assert moved >= {n for n in own if not n.startswith("time_embedding")}  # behind projections still at zero


def test_every_stage_has_its_table():
    assert set(TRAINED) == set(STAGES)


def test_choosing_freezes_what_another_stage_trained():
    networks = toy_networks()
    choose(networks, "motion")
    chosen = choose(networks, "stream")
    wanted = {name for name, parameter in named_parameters(networks).items() if parameter.requires_grad}
    assert wanted == set(chosen)
    assert all(".temporal_modules." in name for name in wanted)
