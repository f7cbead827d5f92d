"""A stream over time: warm-up, alignment, keyframes, flush, cuts, whole clip against windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.engine.state import Conditioning, StreamState, Window, entering_latents
from personalive.models.networks import Networks
from personalive.vision.keypoints import HeadPose, interpolated_start, retarget
from personalive.vision.warps import move_head

MakeImages = Callable[[int, int], np.ndarray]
CHUNK, WARMUP, TOKENS_PER_IMAGE = 4, 12, 64


def after(engine: Engine, frames: np.ndarray, calls: int, **options) -> StreamState:
    """The state once ``frames[1:]`` went in, chunk by chunk; ``frames[0]`` is the portrait."""
    state = engine.start(frames[0], **options)
    for call in range(calls):
        state, _ = engine.step(state, frames[1 + CHUNK * call : 1 + CHUNK * (call + 1)])
    return state


def tokens(engine: Engine, state: StreamState, window: np.ndarray) -> Tensor:
    """The motion tokens of one later window."""
    with torch.no_grad():
        return engine.conditioner.drive(state, window).motion


# --- warm-up and alignment ----------------------------------------------------------------------------------


def test_the_start_is_the_portrait_noised_to_three_levels(engine: Engine, make_images: MakeImages):
    noise = torch.zeros(1, 4, WARMUP, 8, 8)
    state = engine.start(make_images(1, 1)[0], noise=noise)
    levels = engine.schedule.alphas_cumprod[[0] * 4 + [333] * 4 + [666] * 4].sqrt()
    wanted = state.reference.latent[:, :, None] * levels[None, None, :, None, None]
    torch.testing.assert_close(state.latents, wanted)
    assert (state.call, state.keyframes, state.driver) == (0, 0, None)
    assert state.motion.shape[1] == state.pose.shape[2] == 0


@torch.no_grad()
def test_without_the_interpolated_start_all_of_the_ease_in_is_the_first_driving_frame(
    engine: Engine, make_images: MakeImages
):
    config = dataclasses.replace(engine.config, interpolated_start=False)
    plain = Engine(dataclasses.replace(engine.networks, config=config))
    portrait, *frames = make_images(5, 2)
    found = plain.conditioner.drive(plain.start(portrait), np.stack(frames))
    usual = engine.conditioner.drive(engine.start(portrait), np.stack(frames))
    assert torch.equal(found.motion[:, WARMUP:], usual.motion[:, WARMUP:])
    for tensor, at in ((found.motion, 1), (found.pose, 2)):
        first = tensor.narrow(at, WARMUP, 1)
        torch.testing.assert_close(tensor.narrow(at, 0, WARMUP), first.expand_as(tensor.narrow(at, 0, WARMUP)))


def test_the_first_twelve_frames_lead_from_the_portrait_to_the_first_driving_frame(
    engine: Engine, make_images: MakeImages
):
    frames = make_images(5, 1)
    state = engine.start(frames[0])
    with torch.no_grad():
        conditioning = engine.conditioner.drive(state, frames[1:])
        own = engine.conditioner.extract(engine.conditioner._image(frames[1:]))
    assert conditioning.motion.shape[1] == conditioning.pose.shape[2] == WARMUP + CHUNK
    first, last = state.reference.motion[:, 0], conditioning.motion[:, WARMUP]
    assert (first - last).abs().max() > 0.01
    for frame in range(WARMUP):
        wanted = first + (last - first) * frame / WARMUP
        torch.testing.assert_close(conditioning.motion[:, frame], wanted, atol=1e-5, rtol=1e-5)
    poses = interpolated_start(state.reference.pose, own[0], WARMUP)
    torch.testing.assert_close(conditioning.pose[:, :, :WARMUP], engine.conditioner.pose_features(poses))
    torch.testing.assert_close(
        conditioning.pose[:, :, :1], engine.conditioner.pose_features(state.reference.pose), atol=1e-5, rtol=1e-5
    )


def test_a_driving_frame_leaves_three_calls_after_it_entered(engine: Engine, make_images: MakeImages):
    frames = make_images(1 + 5 * CHUNK, 1)
    entered = after(engine, frames, 2)
    third = tokens(engine, entered, frames[9:13])
    for calls, place in ((3, 8), (4, 4), (5, 0)):
        torch.testing.assert_close(after(engine, frames, calls).motion[:, place : place + CHUNK], third)


def test_every_chunk_has_the_models_size(engine: Engine, make_images: MakeImages):
    small = np.ascontiguousarray(make_images(5, 1)[:, ::2, ::2])
    _, chunk = engine.step(engine.start(small[0]), small[1:])
    assert (chunk.shape, chunk.dtype) == ((CHUNK, 64, 64, 3), torch.uint8)


def test_the_future_does_not_change_the_past(engine: Engine, make_images: MakeImages):
    one, other = make_images(1 + 4 * CHUNK, 1), make_images(1 + 4 * CHUNK, 2)
    other[: 1 + 2 * CHUNK] = one[: 1 + 2 * CHUNK]
    states = [engine.start(frames[0]) for frames in (one, other)]
    for call in range(4):
        window = slice(1 + CHUNK * call, 1 + CHUNK * (call + 1))
        (states[0], a), (states[1], b) = (
            engine.step(state, f[window]) for state, f in zip(states, (one, other), strict=True)
        )
        assert torch.equal(a, b) == (call < 2)


# --- what enters --------------------------------------------------------------------------------------------


def test_frames_enter_as_the_portrait(engine: Engine, make_images: MakeImages):
    frames = make_images(5, 1)
    state = engine.start(frames[0])
    with torch.no_grad():
        given = engine.conditioner.drive(state, frames[1:])
    assert given.entering is None
    assert torch.equal(
        entering_latents(state, given, CHUNK), state.reference.latent[:, :, None].expand(-1, -1, 4, -1, -1)
    )


def test_frames_of_a_moving_model_enter_with_the_head_where_the_driver_has_it(
    moving: Engine, make_images: MakeImages
):
    frames = make_images(5, 1)
    state, conditioner = moving.start(frames[0]), moving.conditioner
    with torch.no_grad():
        given = conditioner.drive(state, frames[1:])
        own = conditioner.extract(conditioner._image(frames[1:]))
        wanted = retarget(state.reference.pose, own, own[0], gain=1.0, scale_gain=1.0)
        held = HeadPose.cat([state.reference.pose] * CHUNK)
        moved = move_head(state.reference.image.expand(CHUNK, -1, -1, -1), held, wanted)
        latents = conditioner.encode(moved).transpose(0, 1)[None]
    torch.testing.assert_close(entering_latents(state, given, CHUNK), latents)
    assert (latents - state.reference.latent[:, :, None]).abs().amax(dim=(0, 1, 3, 4)).min() > 1e-3
    silent = torch.zeros(1, 4, CHUNK, 8, 8)
    with torch.no_grad():
        following, _ = moving.advance(state, given, silent)
        other, _ = moving.advance(state, dataclasses.replace(given, entering=None), silent)
    assert not torch.equal(following.latents, other.latents)


def test_a_moving_model_drains_with_its_newest_frame(moving: Engine, make_images: MakeImages):
    state = after(moving, make_images(9, 1), 2)
    entering = entering_latents(state, moving.conditioner.repeat_last(state), CHUNK)
    assert torch.equal(entering, state.latents[:, :, -1:].expand(-1, -1, CHUNK, -1, -1))


# --- whole clip and windows ---------------------------------------------------------------------------------


def test_a_clip_conditioned_as_a_whole_equals_window_by_window(engine: Engine, make_images: MakeImages):
    windows = 12
    frames = make_images(1 + windows * CHUNK, 1)
    state = whole = engine.start(frames[0], keyframe_threshold=0)
    with torch.no_grad():
        conditioning = engine.conditioner.drive(whole, frames[1:])
    first = 0
    for call in range(windows):
        window = slice(1 + CHUNK * call, 1 + CHUNK * (call + 1))
        state, chunk = engine.step(state, frames[window])
        last = WARMUP + CHUNK * (call + 1)
        part = Conditioning(
            conditioning.motion[:, first:last],
            conditioning.pose[:, :, first:last],
            conditioning.poses[first:last],
            conditioning.driver,
        )
        with torch.no_grad():
            whole, leaving = engine.advance(whole, part)
        first = last
        assert (engine.decode(leaving).int() - chunk.int()).abs().max() <= 1
        torch.testing.assert_close(whole.latents, state.latents, atol=1e-3, rtol=1e-3)
    assert whole.keyframes == state.keyframes == 3


# --- gradients ----------------------------------------------------------------------------------------------


def test_advance_carries_gradients_and_step_does_not(networks: Networks, make_images: MakeImages):
    unet = type(networks.denoising_unet)(networks.unet_config)
    unet.load_state_dict(networks.denoising_unet.state_dict())
    unet.eval().requires_grad_(False)
    temporal = {name: p for name, p in unet.named_parameters() if ".temporal_modules." in name}
    for parameter in temporal.values():
        parameter.requires_grad_(True)
    engine = Engine(dataclasses.replace(networks, denoising_unet=unet))
    frames = make_images(9, 1)
    state = engine.start(frames[0])
    with torch.no_grad():
        given = engine.conditioner.drive(state, frames[1:5])
    motion, pose = given.motion.clone().requires_grad_(True), given.pose.clone().requires_grad_(True)
    following, leaving = engine.advance(state, Conditioning(motion, pose, given.poses, given.driver))
    leaving.latents.square().mean().backward(retain_graph=True)
    assert temporal
    assert {n for n, p in temporal.items() if p.grad is None or not p.grad.any()} == set()
    assert {n for n, p in unet.named_parameters() if p.grad is not None} == temporal.keys()
    for grad in (motion.grad, pose.grad):
        assert grad is not None
        assert grad.abs().amax(dim=(2, 3) if grad is motion.grad else (1, 3, 4)).min() > 0  # every frame counts
    assert following.latents.requires_grad  # a roll-out over several calls is differentiable too
    stepped, chunk = engine.step(state, frames[1:5])
    assert not chunk.requires_grad
    assert not stepped.latents.requires_grad


# --- keyframes ----------------------------------------------------------------------------------------------


def test_three_keyframes_enter_from_the_tenth_call_on_and_then_nothing_grows(engine: Engine, make_images: MakeImages):
    frames = make_images(1 + 15 * CHUNK, 1)
    state = engine.start(frames[0], keyframe_threshold=0)
    portrait = {name: pair.key for name, pair in state.reference.kv.items()}
    counts = []
    for call in range(15):
        state, _ = engine.step(state, frames[1 + CHUNK * call : 1 + CHUNK * (call + 1)])
        counts.append(state.keyframes)
        images_seen = {pair.key.shape[1] // portrait[name].shape[1] for name, pair in state.reference.kv.items()}
        assert images_seen == {1 + state.keyframes}
        assert len(state.bank) == 1 + state.keyframes
    assert counts == [0] * 9 + [1, 2] + [3] * 4
    for name, pair in state.reference.kv.items():
        assert torch.equal(pair.key[:, : portrait[name].shape[1]], portrait[name])


def test_the_bank_keeps_the_leaving_frames_motion(engine: Engine, make_images: MakeImages):
    frames = make_images(1 + 10 * CHUNK, 1)
    before = after(engine, frames, 9, keyframe_threshold=0)
    state, _ = engine.step(before, frames[1 + 9 * CHUNK :])
    assert torch.equal(state.bank[1].wait(), before.motion[:, :1])


def test_a_still_driver_is_stored_once(engine: Engine, make_images: MakeImages):
    frames = make_images(2, 1)[[0] + [1] * 13 * CHUNK]
    assert after(engine, frames, 13, keyframe_threshold=0).keyframes == 1


def test_the_threshold_is_a_distance(engine: Engine, make_images: MakeImages):
    frames = make_images(1 + 10 * CHUNK, 1)
    before = after(engine, frames, 9, keyframe_threshold=0)
    distance = torch.linalg.vector_norm(before.reference.motion - before.motion[:, :1]).item()
    for share, stored in ((0.99, 1), (1.01, 0)):
        state, _ = engine.step(dataclasses.replace(before, keyframe_threshold=share * distance), frames[37:41])
        assert state.keyframes == stored
    assert after(engine, frames, 10, keyframe_threshold=float("inf")).keyframes == 0


# --- the ends -----------------------------------------------------------------------------------------------


def test_flush_gives_exactly_the_three_chunks_in_flight(engine: Engine, make_images: MakeImages):
    state = after(engine, make_images(9, 1), 2)
    chunks = list(engine.flush(state))
    assert [tuple(chunk.shape) for chunk in chunks] == [(CHUNK, 64, 64, 3)] * 3
    by_hand = []
    with torch.no_grad():
        for _ in range(3):
            repeated = Conditioning(
                state.motion[:, -1:].repeat(1, CHUNK, 1, 1),
                state.pose[:, :, -1:].repeat(1, 1, CHUNK, 1, 1),
                state.poses[torch.full((CHUNK,), -1)],
                None,
            )
            state, leaving = engine.advance(state, repeated)
            by_hand.append(engine.decode(leaving))
    assert all(map(torch.equal, chunks, by_hand))


def test_nothing_is_in_flight_before_the_first_step(engine: Engine, make_images: MakeImages):
    assert list(engine.flush(engine.start(make_images(1, 1)[0]))) == []


# --- cuts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_cut_measures_the_driver_anew_from_its_frame_on(engine: Engine, make_images: MakeImages, cut: int):
    frames = make_images(9, 1)
    state = after(engine, frames, 1)
    assert state.driver is not None
    conditioner = engine.conditioner
    with torch.no_grad():
        plain = conditioner.drive(state, frames[5:])
        cutting = conditioner.drive(state, frames[5:], cut)
        own = conditioner.extract(conditioner._image(frames[5:]))
        new_shot = conditioner.pose_features(conditioner._on_portrait(state, own[cut:], own[cut]))
    assert cutting.driver is not None
    assert_same_pose(cutting.driver, own[cut])
    assert torch.equal(cutting.motion, plain.motion)
    torch.testing.assert_close(cutting.pose[:, :, :cut], plain.pose[:, :, :cut])
    torch.testing.assert_close(cutting.pose[:, :, cut:], new_shot)
    assert (cutting.pose[:, :, cut:] - plain.pose[:, :, cut:]).abs().max() > 1e-3
    following, _ = engine.step(state, frames[5:], cut=cut)
    assert following.driver is not None
    assert_same_pose(following.driver, own[cut])


def test_without_a_cut_the_first_driving_frame_stays_the_base(engine: Engine, make_images: MakeImages):
    frames = make_images(13, 1)
    first, third = after(engine, frames, 1).driver, after(engine, frames, 3).driver
    assert first is not None
    assert third is not None
    assert_same_pose(first, third)


def assert_same_pose(one: HeadPose, other: HeadPose) -> None:
    for field in dataclasses.fields(HeadPose):
        assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


@pytest.mark.parametrize("count", [0, 1, 3, 4, 6])
def test_a_whole_stream_gives_one_chunk_per_window(engine: Engine, make_images, count: int):
    """However few windows there are, against start, step and flush by hand without the ease-in."""
    portrait, windows = (
        make_images(1, 1)[0],
        list(make_images(4 * max(count, 1), 2).reshape(-1, 4, 64, 64, 3)[:count]),
    )
    seen: list[int] = []
    found = list(engine.stream(portrait, iter(windows), seed=5, on_step=lambda state, _: seen.append(state.call)))
    state, made = engine.start(portrait, seed=5), []
    for window in windows:
        state, frames = engine.step(state, window)
        made.append(frames)
    made += list(engine.flush(state))
    assert seen == list(range(1, count + 1))
    assert len(found) == count
    for one, other in zip(found, made[3:], strict=True):
        assert torch.equal(one, other)


def test_a_stream_gives_chunks_as_it_goes_and_takes_cuts(engine: Engine, make_images):
    portrait, windows = make_images(1, 1)[0], make_images(20, 2).reshape(5, 4, 64, 64, 3)
    taken: list[int] = []

    def given():
        for number, window in enumerate(windows):
            taken.append(number)
            yield Window(window, cut=2 if number == 1 else None)

    stream = engine.stream(portrait, given())
    first = next(stream)
    assert taken == [0, 1, 2, 3]  # no window is read ahead
    state = engine.start(portrait)
    for number in range(4):
        state, frames = engine.step(state, windows[number], cut=2 if number == 1 else None)
    assert torch.equal(first, frames)
    assert not torch.equal(first, next(engine.stream(portrait, windows)))  # the cut reaches frames in flight
