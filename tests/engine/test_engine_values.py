"""The engine keeps nothing: states are values, and noise follows from seed and call."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.engine.state import StreamState, draw_noise
from personalive.engine.stored_state import pack_state, unpack_state

MakeImages = Callable[[int, int], np.ndarray]
CHUNK = 4


def run(engine: Engine, state: StreamState, frames: np.ndarray) -> tuple[StreamState, list[Tensor]]:
    finished = []
    for first in range(0, len(frames), CHUNK):
        state, chunk = engine.step(state, frames[first : first + CHUNK])
        finished.append(chunk)
    return state, finished


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def tensors_of(state: StreamState) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    pack_state(state, None, found)
    return found


def test_two_interleaved_streams_equal_two_sequential_ones(engine: Engine, make_images: MakeImages):
    drivers = make_images(48, 1), make_images(48, 2)
    portraits = make_images(2, 3)
    starts = [
        engine.start(portrait, seed=seed, keyframe_threshold=0) for seed, portrait in enumerate(portraits, start=5)
    ]
    alone = [run(engine, start, frames)[1] for start, frames in zip(starts, drivers, strict=True)]
    states, together = list(starts), ([], [])
    for first in range(0, 48, CHUNK):
        for who in (0, 1):
            states[who], chunk = engine.step(states[who], drivers[who][first : first + CHUNK])
            together[who].append(chunk)
    assert [state.keyframes for state in states] == [3, 3]
    assert same(alone[0], together[0])
    assert same(alone[1], together[1])
    assert not torch.equal(alone[0][-1], alone[1][-1])


@pytest.mark.parametrize("kind", ["engine", "moving"])
@pytest.mark.parametrize("calls", [0, 1, 11])
def test_a_saved_state_replays_bit_for_bit(
    request: pytest.FixtureRequest, make_images: MakeImages, calls: int, kind: str
):
    engine: Engine = request.getfixturevalue(kind)
    frames = make_images(CHUNK * (calls + 2), 1)
    start = engine.start(frames[0], seed=3, keyframe_threshold=0)
    state, _ = run(engine, start, frames[: CHUNK * calls])
    tensors: dict[str, torch.Tensor] = {}
    packed = json.dumps(pack_state(state, start, tensors))
    restored = unpack_state(json.loads(packed), start, load(save(tensors)), engine.device)
    assert (packed == '{"start": true}') == (calls == 0)
    rest = frames[CHUNK * calls :]
    after, wanted = run(engine, state, rest)
    again, found = run(engine, restored, rest)
    assert same(wanted, found)
    for name, tensor in tensors_of(after).items():
        assert torch.equal(tensor, tensors_of(again)[name]), name


def test_a_step_leaves_the_state_it_was_given_as_it_was(engine: Engine, make_images: MakeImages):
    frames = make_images(44, 1)
    state, _ = run(engine, engine.start(frames[0], keyframe_threshold=0), frames[:40])
    before = {name: tensor.clone() for name, tensor in tensors_of(state).items()}
    following, first = engine.step(state, frames[40:])
    _, second = engine.step(state, frames[40:])
    list(engine.flush(state))
    assert following.keyframes == state.keyframes + 1
    assert torch.equal(first, second)
    after = tensors_of(state)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_the_state_names_its_call_and_cannot_be_changed(engine: Engine, make_images: MakeImages):
    state, _ = run(engine, engine.start(make_images(1, 1)[0], seed=9), make_images(8, 2))
    assert (state.call, state.seed) == (2, 9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.call = 0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_stream_does_not_touch_the_global_random_state(engine: Engine, make_images: MakeImages):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    run(engine, engine.start(make_images(1, 1)[0]), make_images(4, 2))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


# --- noise --------------------------------------------------------------------------------------------------


def test_own_noise_is_a_function_of_seed_and_call():
    cpu = torch.device("cpu")
    draws = {pair: draw_noise(*pair, (2, 500), cpu) for pair in [(0, 0), (0, 1), (1, 0), (1, 1), (2**40, 3)]}
    for pair, noise in draws.items():
        assert torch.equal(noise, draw_noise(*pair, (2, 500), cpu))
        assert abs(noise.mean()) < 5 / math.sqrt(1000)
        assert 0.9 < noise.std() < 1.1
        others = [other for key, other in draws.items() if key != pair]
        assert all(abs((noise * other).mean()) < 5 / math.sqrt(1000) for other in others)


def test_own_noise_of_the_start_and_of_each_call_can_be_given_instead(engine: Engine, make_images: MakeImages):
    frames = make_images(9, 1)
    own, wanted = run(engine, engine.start(frames[0], seed=7), frames[1:])
    cpu = torch.device("cpu")
    state = engine.start(frames[0], seed=1, noise=draw_noise(7, 0, (1, 4, 12, 8, 8), cpu))
    for call, chunk in enumerate(wanted, start=1):
        window = frames[1 + CHUNK * (call - 1) : 1 + CHUNK * call]
        state, found = engine.step(state, window, noise=draw_noise(7, call, (1, 4, 4, 8, 8), cpu))
        assert torch.equal(found, chunk)
    assert torch.equal(state.latents, own.latents)


def test_another_seed_gives_another_video(engine: Engine, make_images: MakeImages):
    frames = make_images(5, 1)
    one, two = (run(engine, engine.start(frames[0], seed=seed), frames[1:])[1] for seed in (0, 1))
    assert (one[0].float() - two[0].float()).abs().mean() > 1
