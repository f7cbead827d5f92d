"""Refusals of the engine, each in one line that names the thing and says what is needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from personalive.engine.engine import Engine
from personalive.errors import InputError

MakeImages = Callable[[int, int], np.ndarray]
IMAGE = np.zeros((64, 64, 3), np.uint8)
WINDOW = np.zeros((4, 64, 64, 3), np.uint8)


def assert_one_line(error: pytest.ExceptionInfo[InputError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "portrait",
    [
        IMAGE.astype(np.float32),
        IMAGE.astype(np.int64),
        IMAGE[:32],
        IMAGE[..., :1],
        IMAGE[..., 0],
        IMAGE[None],
        IMAGE[:0, :0],
        torch.from_numpy(IMAGE),
        [[0, 0, 0]],
        None,
    ],
    ids=["float", "int64", "oblong", "grey", "flat", "batch", "empty", "tensor", "list", "none"],
)
def test_a_portrait_of_another_kind_is_refused(engine: Engine, portrait):
    with pytest.raises(InputError) as error:
        engine.start(portrait)
    assert_one_line(error, "portrait", "uint8", "(S, S, 3)", "frame it first")


@pytest.mark.parametrize(
    "window",
    [
        WINDOW / 255,
        WINDOW[:3],
        np.concatenate([WINDOW, WINDOW]),
        WINDOW[0],
        WINDOW[:, :, :32],
        WINDOW[..., :2],
        torch.from_numpy(WINDOW),
        None,
    ],
    ids=["float", "three", "eight", "one", "oblong", "two-channels", "tensor", "none"],
)
def test_a_window_of_another_kind_is_refused(engine: Engine, window):
    state = engine.start(IMAGE)
    with pytest.raises(InputError) as error:
        engine.step(state, window)
    assert_one_line(error, "window", "uint8", "(4, S, S, 3)")


@pytest.mark.parametrize("shape", [(1, 4, 11, 8, 8), (4, 12, 8, 8), (1, 4, 12, 16, 16), (1, 3, 12, 8, 8)])
def test_start_noise_of_another_shape_is_refused(engine: Engine, shape: tuple[int, ...]):
    with pytest.raises(InputError) as error:
        engine.start(IMAGE, noise=torch.zeros(shape))
    assert_one_line(error, "noise", str(shape), "(1, 4, 12, 8, 8)")


def test_call_noise_of_another_shape_is_refused(engine: Engine):
    with pytest.raises(InputError) as error:
        engine.step(engine.start(IMAGE), WINDOW, noise=torch.zeros(1, 4, 12, 8, 8))
    assert_one_line(error, "noise", "(1, 4, 12, 8, 8)", "(1, 4, 4, 8, 8)")


@pytest.mark.parametrize("threshold", [float("nan"), -1.0, float("-inf")])
def test_a_threshold_that_is_no_distance_is_refused(engine: Engine, threshold: float):
    with pytest.raises(InputError) as error:
        engine.start(IMAGE, keyframe_threshold=threshold)
    assert_one_line(error, "keyframe threshold", str(threshold), "infinity")


def test_a_negative_seed_is_refused(engine: Engine):
    with pytest.raises(InputError) as error:
        engine.start(IMAGE, seed=-1)
    assert_one_line(error, "seed -1")


@pytest.mark.parametrize("cut", [-1, 4, 17])
def test_a_cut_outside_the_window_is_refused(engine: Engine, cut: int):
    state, _ = engine.step(engine.start(IMAGE), WINDOW)
    with pytest.raises(InputError) as error:
        engine.step(state, WINDOW, cut=cut)
    assert_one_line(error, f"cut {cut}", "0 to 3")


def test_a_refused_window_costs_the_stream_nothing(engine: Engine, make_images: MakeImages):
    frames = make_images(5, 1)
    state = engine.start(frames[0])
    with pytest.raises(InputError):
        engine.step(state, frames[:3])
    _, chunk = engine.step(state, frames[1:])
    _, undisturbed = engine.step(engine.start(frames[0]), frames[1:])
    assert torch.equal(chunk, undisturbed)


def test_images_that_share_memory_or_are_read_only_are_taken(engine: Engine, make_images: MakeImages):
    frames = make_images(5, 1)
    flipped = frames[:, :, ::-1]
    flipped.setflags(write=False)
    _, found = engine.step(engine.start(flipped[0]), flipped[1:])
    copy = np.ascontiguousarray(flipped)
    _, wanted = engine.step(engine.start(copy[0]), copy[1:])
    assert torch.equal(found, wanted)
