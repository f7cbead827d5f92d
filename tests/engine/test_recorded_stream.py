"""The whole algorithm, from images to images, against the original on the key-seeded small checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from personalive.device import HostCopy
from personalive.engine.engine import Engine
from personalive.engine.state import StreamState
from personalive.engine.stored_state import pack_state
from personalive.runtime.load import load_engine
from personalive.vision.keypoints import HeadPose
from support import golden, keyseeded

ALL_CALLS, STORED_AFTER = 16, 9  # the tenth call stores the first keyframe, and the next one uses it
TOLERANCE = {"atol": 2e-2, "rtol": 2e-2}  # of states, which drift with the rounding of each call
FIRST_PIXEL, PIXEL_STEP = 4, 8  # of those recorded


def loaded(folder: Path, salt: str = "") -> Engine:
    """An engine from files in the released layout, which are deleted again: they take 0.8 GB."""
    try:
        keyseeded.write_checkpoint(golden.manifest(), folder, salt)
        return load_engine(folder, device="cpu", dtype="float32")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return golden.load("stream_small")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return loaded(tmp_path_factory.mktemp("released") / "weights")


def make_images(recorded: dict[str, Tensor]) -> np.ndarray:
    images = golden.upsampled(recorded["images_low_resolution"], int(recorded["image_size"]))
    return images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def noises(recorded: dict[str, Tensor]) -> list[Tensor]:
    """The noise of the start and of each call."""
    generator = torch.Generator().manual_seed(int(recorded["seed"]))
    return [torch.randn(1, 4, 4 if call else 12, 32, 32, generator=generator) for call in range(ALL_CALLS + 1)]


def started(engine: Engine, recorded: dict[str, Tensor]) -> StreamState:
    threshold = float(recorded["keyframe_threshold"])
    return engine.start(make_images(recorded)[0], noise=noises(recorded)[0], keyframe_threshold=threshold)


def stored(engine: Engine, start: StreamState) -> StreamState:
    """The state after ``STORED_AFTER`` calls: the recorded values, and what follows from them and the portrait."""
    found = golden.load("stream_small_state")
    poses, driver = (
        HeadPose(**{field.name: found[f"{name}/{field.name}"] for field in dataclasses.fields(HeadPose)})
        for name in ("poses", "driver")
    )
    return dataclasses.replace(
        start,
        latents=found["latents"],
        motion=found["motion"],
        pose=engine.conditioner.pose_features(poses),
        poses=poses,
        driver=driver,
        keyframe_candidates=tuple(map(HostCopy, found["keyframe_candidates"].split(1, dim=1))),
        call=STORED_AFTER,
    )


def stepped(engine: Engine, recorded: dict[str, Tensor], state: StreamState) -> tuple[StreamState, Tensor]:
    """The next state, and the recorded pixels of the chunk."""
    window = make_images(recorded)[1 + 4 * state.call : 5 + 4 * state.call]
    state, chunk = engine.step(state, window, noise=noises(recorded)[state.call + 1])
    return state, chunk[:, FIRST_PIXEL::PIXEL_STEP, FIRST_PIXEL::PIXEL_STEP].float()


def assert_recorded(engine: Engine, recorded: dict[str, Tensor], state: StreamState, calls: int) -> StreamState:
    wanted = recorded["frames_every_8th_pixel"] * 255
    for call in range(state.call, state.call + calls):
        state, pixels = stepped(engine, recorded, state)
        error = (pixels - wanted[4 * call : 4 * call + 4]).abs()
        assert error.max() <= 1, f"call {call + 1}: off by {error.max():.2f} levels"
        assert error.mean() <= 0.3, f"call {call + 1}: off by {error.mean():.2f} levels on average"
        assert state.keyframes == recorded["keyframes_after_chunk"][call], f"keyframes after call {call + 1}"
    return state


def assert_recorded_around_keyframe(engine: Engine, recorded: dict[str, Tensor], before: StreamState) -> StreamState:
    """A keyframe is stored and used; it shows in the frames in flight at once, and in pixels two calls later."""
    state = assert_recorded(engine, recorded, before, 2)
    wanted = golden.load("stream_small_state")["latents_after_two_more"]
    torch.testing.assert_close(state.latents, wanted, **TOLERANCE)
    return state


def test_first_frames_and_those_with_a_keyframe_equal_the_recorded_ones(released: Engine, recorded):
    start = started(released, recorded)
    assert_recorded(released, recorded, start, 1)
    assert assert_recorded(released, recorded, stored(released, start), 1).keyframes == 1


@pytest.mark.full
def test_frames_in_flight_equal_the_recorded_ones_once_a_keyframe_is_used(released: Engine, recorded):
    assert_recorded_around_keyframe(released, recorded, stored(released, started(released, recorded)))


@pytest.mark.full
def test_all_recorded_frames_and_keyframes_equal(released: Engine, recorded):
    start = started(released, recorded)
    state = assert_recorded(released, recorded, start, STORED_AFTER)
    found, wanted = dict[str, Tensor](), dict[str, Tensor]()
    assert pack_state(stored(released, start), None, found) == pack_state(state, None, wanted)
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    state = assert_recorded_around_keyframe(released, recorded, state)
    assert_recorded(released, recorded, state, ALL_CALLS - state.call)


@pytest.mark.full
def test_other_weights_run_and_give_other_frames(recorded, tmp_path: Path):
    other = loaded(tmp_path / "salted", salt="other")
    _, pixels = stepped(other, recorded, started(other, recorded))
    wanted = recorded["frames_every_8th_pixel"][:4] * 255
    assert pixels.std() > 1  # neither empty nor saturated everywhere, as it is when numbers overflow
    assert (pixels - wanted).abs().mean() > 5
