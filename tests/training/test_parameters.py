"""Parameters that a stage changes: exactly those that its table names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personalive.training.parameters import TRAINED, choose, named_parameters
from personalive.training.presets import PAPER_STAGES, STAGES, Stage
from support.stated import stated
from support.toy_run import TOY_DETAIL_SHAPE, toy_config, toy_loop, toy_networks

PLAIN = (  # a dropped condition has no gradient that step; and one window is enough
    *("drop.reference=0", "drop.pose=0", "drop.motion=0"),
    *("stream.frames=16", "stream.gradient_windows=0"),
)


LATENTS = ("loss.domain=latents", "loss.robust_from=0.1", "loss.by_channel=true")


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        *((stage, ()) for stage in STAGES),
        *((stage, (f"{stage}.inference_form=false",)) for stage in PAPER_STAGES),
        *((stage, LATENTS) for stage in PAPER_STAGES),
        ("motion", ("images.frames=3", "images.second_reference=1", "data.cached=3")),
    ],
    ids=str,
)
def test_one_step_changes_exactly_the_stated_parameters(stage: Stage, values: tuple[str, ...], tmp_path: Path):
    networks = toy_networks(TOY_DETAIL_SHAPE)
    if stage == "autoencoder":  # whose branches begin at zero
        with torch.no_grad():
            for parameter in networks.vae.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    before = {name: parameter.detach().clone() for name, parameter in named_parameters(networks).items()}
    buffers = {name: value.clone() for name, value in networks.motion_encoder.named_buffers()}
    config = toy_config(stage, "steps=1", "optimiser.lr=1e-3", *PLAIN, *values)
    loop = toy_loop(tmp_path, config, networks)
    adversary = None if loop.stage.adversary is None else loop.stage.adversary.discriminator
    own = {} if adversary is None else {n: p.detach().clone() for n, p in adversary.named_parameters()}
    loop.run()
    changed = {n for n, p in named_parameters(networks).items() if not torch.equal(p, before[n])}
    assert changed == stated(set(before), stage, last=1)
    assert {name for name in loop.networks.parameters if not name.startswith("readers.")} == changed
    kept = {name for name, value in networks.motion_encoder.named_buffers() if torch.equal(value, buffers[name])}
    assert ("bn1.running_mean" in {name.removeprefix("model.") for name in kept}) == (stage != "motion_encoder")
    assert stage == "motion_encoder" or kept == set(buffers)  # batch norms keep their statistics
    if adversary is not None:
        moved = {n for n, p in adversary.named_parameters() if not torch.equal(p, own[n])}
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
