"""Stage temporal: which truth the frames in flight are held against, and how streams follow one another."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from personalive.engine.engine import Engine
from personalive.synthetic import render
from personalive.training.build import build_networks
from personalive.training.data import PEOPLE
from personalive.training.predicted import advance_predicting
from personalive.training.presets import HELD_OUT_SEED, DataConfig
from personalive.training.temporal import FIRST_SEED, TemporalStage
from training.conftest import toy_preset

FRAMES = 12


@pytest.fixture(scope="module")
def stage() -> TemporalStage:
    torch.manual_seed(0)
    networks = build_networks(toy_preset())
    for module in networks.modules().values():
        module.eval().requires_grad_(False)
    return TemporalStage(networks, torch.ones(networks.unet_config.in_channels), batch=2, frames=FRAMES)


def test_a_stream_begins_when_its_ease_in_has_left(stage: TemporalStage):
    for stream in stage.streams:
        assert stream.state.call == 3
        assert stream.state.latents.shape[2] == stream.target.shape[2] == 12
        assert stream.state.motion.shape[1] == 12


def test_frames_in_flight_are_held_against_the_frames_that_drove_them(stage: TemporalStage):
    stream = stage.streams[0]
    clean = stage._advance(stream)
    assert clean.shape == stream.target.shape
    assert stream.target.shape[2] == stage.engine.config.window_frames
    for place in (0, 7, 15):  # the newest frame is the last one drawn
        number = stream.frame - 16 + place
        image = render(stream.person, stream.performance.at(number), stage.engine.image_size).image
        truth = stage._latents([image])
        assert torch.allclose(stream.target[:, :, [place]], truth, atol=0.02)  # bfloat16, other batches
    others = stage._latents([render(stream.person, stream.performance.at(stream.frame), 128).image])
    assert not torch.allclose(stream.target[:, :, [0]], others, atol=0.02)


def test_streams_end_one_after_another_and_others_begin(stage: TemporalStage):
    people = [stream.person for stream in stage.streams]
    changed = []
    for step in range(6):
        losses = stage(step, 0.0)
        assert losses["loss"].isfinite()
        now = [stream.person for stream in stage.streams]
        changed.append([a is not b for a, b in zip(people, now, strict=True)])
        people = now
    assert changed[0] == [True, False]  # 1 and 3 windows at first, then 3 each
    assert sum(first for first, _ in changed) == sum(second for _, second in changed) == 2
    assert all(first + second < 2 for first, second in changed)


def test_without_roll_out_the_model_is_given_the_truth_so_far(stage: TemporalStage):
    stream = stage.streams[0]
    entered = torch.zeros_like(stream.target)
    state = stage._perfect(dataclasses.replace(stream, entered=entered))
    schedule, levels = stage.engine.schedule, stage.engine.schedule.timesteps(4)
    assert torch.equal(state.motion, stream.state.motion)
    found, truth = state.latents, stream.target[:, :, -12:]
    still = schedule.move(torch.zeros_like(truth), truth, levels[:, -1:].expand(-1, 12), levels[:, :12])
    assert (found - still).std() < 1.1  # noise of lower levels is left, and nothing else
    assert abs(torch.corrcoef(torch.stack([(found - still).flatten(), truth.flatten()]))[0, 1]) < 0.1


def test_people_are_neither_those_of_the_stages_before_nor_held_out():
    assert PEOPLE * (DataConfig.first_seed + DataConfig.groups) < FIRST_SEED < HELD_OUT_SEED


def test_what_leaves_is_part_of_what_is_predicted(stage: TemporalStage):
    stream = stage.streams[1]
    engine: Engine = stage.engine
    with torch.no_grad(), stage._half():
        conditioning = engine.conditioner.repeat_last(stream.state)
        _, leaving = engine.advance(stream.state, conditioning)
        following, clean = advance_predicting(engine, stream.state, conditioning)
    assert torch.equal(clean[:, :, :4], leaving.latents)
    assert following.latents.shape[2] == clean.shape[2] - 4
    assert clean.isfinite().all()
