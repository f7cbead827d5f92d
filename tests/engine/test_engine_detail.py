"""The engine with a detail head: finished frames find the portrait by their own poses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from personalive.config import DetailConfig
from personalive.engine.engine import Engine
from personalive.engine.stored_state import pack_state, unpack_state
from personalive.models.detail import add_detail
from personalive.models.networks import Networks
from personalive.vision.keypoints import interpolated_start, retarget
from support.small_engine import key_seeded_networks
from support.small_model import SMALL_SHAPE

CHUNK, WARMUP = 4, 12


@pytest.fixture(scope="module")
def detailed() -> Networks:
    model = dataclasses.replace(SMALL_SHAPE.model, detail=DetailConfig(width=8, blocks=1, blend_width=4))
    return key_seeded_networks(dataclasses.replace(SMALL_SHAPE, model=model))


def windows(frames: np.ndarray) -> list[np.ndarray]:
    return [frames[i : i + CHUNK] for i in range(1, len(frames), CHUNK)]


@torch.no_grad()
def test_poses_go_through_the_window_with_their_frames(detailed: Networks, make_images):
    engine, frames = Engine(detailed), make_images(1 + 5 * CHUNK, 1)
    state = engine.start(frames[0])
    assert len(state.poses) == 0
    own = [engine.conditioner.extract(engine.conditioner._image(window)) for window in windows(frames)]
    held, first = state.reference.pose, own[0][0]
    expected = [interpolated_start(held, first, WARMUP)[i : i + CHUNK] for i in range(0, WARMUP, CHUNK)]
    expected += [retarget(held, poses, first, gain=1.0, scale_gain=1.0) for poses in own]
    for window, poses in zip(windows(frames), expected[:5], strict=True):
        state, leaving = engine.advance(state, engine.conditioner.drive(state, window))
        for field in dataclasses.fields(poses):
            torch.testing.assert_close(
                getattr(leaving.poses, field.name), getattr(poses, field.name), atol=1e-4, rtol=1e-4
            )
        assert len(state.poses) == WARMUP
        assert leaving.features.shape[0] == CHUNK


@torch.no_grad()
def test_decoded_frames_get_the_detail_of_their_own_portrait(detailed: Networks, make_images):
    engine, frames = Engine(detailed), make_images(1 + CHUNK, 1)
    state = engine.start(frames[0])
    _, leaving = engine.advance(state, engine.conditioner.drive(state, frames[1:]))
    decoded = engine.decode_images(leaving.latents[0].transpose(0, 1))
    head, reference = detailed.detail, state.reference
    assert head is not None
    wanted = add_detail(head, decoded, leaving.features, reference.image, reference.pose, leaving.poses)
    found = engine.decode(leaving)
    bytes_ = (wanted / 2 + 0.5).clamp(0, 1).mul(255).round().permute(0, 2, 3, 1)
    assert (found.float() - bytes_).abs().max() <= 1
    plain = Engine(dataclasses.replace(detailed, detail=None)).decode(leaving)
    assert (plain.int() - found.int()).abs().float().mean() > 1
    other = engine.start(make_images(1, 7)[0])
    swapped = engine.decode(dataclasses.replace(leaving, reference=other.reference))
    assert (swapped.int() - found.int()).abs().float().mean() > 1


def test_draining_repeats_the_newest_pose(detailed: Networks, make_images):
    engine, frames = Engine(detailed), make_images(1 + 2 * CHUNK, 1)
    state = engine.start(frames[0])
    for window in windows(frames):
        state, _ = engine.step(state, window)
    newest = state.poses[-1]
    repeated = engine.conditioner.repeat_last(state).poses
    assert len(repeated) == CHUNK
    assert torch.equal(repeated.yaw, newest.yaw.expand(CHUNK))
    assert sum(len(chunk) for chunk in engine.flush(state)) == WARMUP


def test_a_stored_stream_goes_on_bit_for_bit(detailed: Networks, make_images):
    engine, frames = Engine(detailed), make_images(1 + 3 * CHUNK, 1)
    first, second, third = windows(frames)
    state, _ = engine.step(engine.step(engine.start(frames[0]), first)[0], second)
    tensors: dict[str, torch.Tensor] = {}
    packed = pack_state(state, None, tensors)
    _, chunk = engine.step(state, third)
    _, again = engine.step(unpack_state(packed, None, tensors, engine.device), third)
    assert torch.equal(chunk, again)


@torch.no_grad()
def test_half_precision_computes_fields_in_single(detailed: Networks, make_images):
    """In bfloat16 a place in an image of 64 px would be off by a quarter of a pixel."""
    halves = {name: module.to(torch.bfloat16) for name, module in copied(detailed).items()}
    networks = Networks(config=detailed.config, unet_config=detailed.unet_config, **halves)
    engine, frames = Engine(networks), make_images(1 + CHUNK, 1)
    _, chunk = engine.step(engine.start(frames[0]), frames[1:])
    assert (chunk.shape, chunk.dtype) == ((CHUNK, 64, 64, 3), torch.uint8)
    _, plain = Engine(detailed).step(Engine(detailed).start(frames[0]), frames[1:])
    assert (chunk.float() - plain.float()).abs().mean() < 8


def copied(networks: Networks) -> dict:
    preset = dataclasses.replace(SMALL_SHAPE, model=networks.config)
    return key_seeded_networks(preset).modules()
