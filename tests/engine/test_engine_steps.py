"""Fewer denoising steps: the highest levels alone, a shorter window, any number of them on one engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from personalive.engine.controls import Controls
from personalive.engine.engine import Engine
from personalive.errors import InputError

MakeImages = Callable[[int, int], np.ndarray]
CHUNK = 4
LEVELS = (0, 333, 666, 999)


def windows_of(make_images: MakeImages, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A portrait and windows of driving frames."""
    frames = make_images(1 + CHUNK * count, 3)
    return frames[0], list(frames[1:].reshape(count, CHUNK, *frames.shape[1:]))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stream_of_fewer_steps_is_that_of_a_model_with_the_highest_levels_alone(
    engine: Engine, make_images: MakeImages, steps: int
):
    schedule = dataclasses.replace(engine.config.schedule, levels=LEVELS[-steps:])
    config = dataclasses.replace(engine.config, schedule=schedule)
    short = Engine(dataclasses.replace(engine.networks, config=config))
    portrait, windows = windows_of(make_images, 4)
    wanted = list(short.stream(portrait, windows, seed=7))
    found = list(engine.stream(portrait, windows, seed=7, steps=steps))
    assert len(found) == len(wanted) == len(windows)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_chunk_enters_at_the_highest_level_and_leaves_after_its_steps(
    engine: Engine, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, steps: int
):
    levels: list[list[int]] = []
    unet, features = engine.networks.denoising_unet, engine.networks.denoising_unet.features

    def watched(latents: Tensor, timesteps: Tensor, **named: Any) -> Tensor:
        levels.append(timesteps[0].tolist())
        return features(latents, timesteps, **named)

    monkeypatch.setattr(unet, "features", watched)
    portrait, (window, *_) = windows_of(make_images, 1)
    state = engine.start(portrait, steps=steps)
    assert state.warmup_frames == CHUNK * (steps - 1)
    state, frames = engine.step(state, window)
    assert levels == [[level for level in LEVELS[-steps:] for _ in range(CHUNK)]]
    assert frames.shape == (CHUNK, engine.image_size, engine.image_size, 3)
    assert len(list(engine.flush(state))) == steps - 1


def test_streams_of_different_steps_take_turns_on_one_engine(engine: Engine, make_images: MakeImages):
    portrait, windows = windows_of(make_images, 3)
    alone = {steps: list(engine.stream(portrait, windows, steps=steps)) for steps in (1, 3, 4)}
    states: dict[int, Any] = {steps: engine.start(portrait, steps=steps) for steps in alone}
    made: dict[int, list[Tensor]] = {steps: [] for steps in alone}
    for window in windows:
        for steps, state in list(states.items()):
            states[steps], frames = engine.step(state, window)
            made[steps].append(frames)
    for steps, frames in made.items():
        together = [*frames, *engine.flush(states[steps])][steps - 1 :]
        assert all(torch.equal(one, other) for one, other in zip(together, alone[steps], strict=True))


def test_one_step_smooths_from_the_last_frame_although_none_is_in_flight(engine: Engine, make_images: MakeImages):
    portrait, (first, second) = windows_of(make_images, 2)
    state, _ = engine.step(engine.start(portrait, steps=1), first)
    with torch.no_grad():
        plain, smooth = (
            engine.conditioner.drive(state, second, controls=Controls(smoothing=share)).motion for share in (0.0, 0.5)
        )
        before = engine.conditioner.drive(engine.start(portrait, steps=1), first).motion[:, -1]
    torch.testing.assert_close(smooth[:, 0], (plain[:, 0] + before) / 2)


@pytest.mark.parametrize("steps", [0, 5, -1, True, 2.0, "2"])
def test_other_numbers_are_refused_with_the_range(engine: Engine, make_images: MakeImages, steps: Any):
    with pytest.raises(InputError, match=r"^steps .*: give a whole number from 1 to 4$"):
        engine.start(make_images(1, 1)[0], steps=steps)
