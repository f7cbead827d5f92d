"""Transfers to the host: a call waits for nothing that is younger than three calls.

The meta device stands for an accelerator: it has no numbers, so whatever looks at one raises.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from personalive.config import DetailConfig
from personalive.engine import engine as engines
from personalive.engine.controls import Controls
from personalive.engine.directions import FACIAL, Directions
from personalive.engine.engine import Engine
from personalive.models.networks import Networks
from support.small_engine import key_seeded_networks, noise_images, small_engine
from support.small_model import SMALL_SHAPE

CALLS = 8
PORTRAIT = noise_images(1, 9)[0]
WINDOWS = noise_images(4 * CALLS, 3).reshape(CALLS, 4, 64, 64, 3)
MAKING = (torch.tensor, torch.as_tensor, Tensor.new_tensor)  # on a device they copy from memory that is not pinned


class Crossings(TorchDispatchMode):
    """Shapes of tensors that go from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and made.device != args[0].device:
            self.shapes.append(tuple(made.shape))
        return made


class Constants(TorchFunctionMode):
    """Tensors that are made of numbers on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in MAKING and made.device.type == "meta":
            self.made.append(args)
        return made


class Sent:
    """In the place of a ``HostCopy``: notes in which call it was sent, and in which somebody waited for it."""

    call = 0
    waits: list[tuple[int, int]]

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.sent = tensor.shape, Sent.call

    def wait(self) -> Tensor:
        """Motion that is far from every other."""
        Sent.waits.append((self.sent, Sent.call))
        return torch.rand(self.shape)


def detailed() -> Networks:
    """With a detail head."""
    model = dataclasses.replace(SMALL_SHAPE.model, detail=DetailConfig(width=8, blocks=1, blend_width=4))
    return key_seeded_networks(dataclasses.replace(SMALL_SHAPE, model=model))


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(engines, "HostCopy", Sent)
    monkeypatch.setattr(Sent, "waits", [], raising=False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows nothing of this device
    networks = detailed()
    networks = dataclasses.replace(networks, config=dataclasses.replace(networks.config, entry="moved"))
    for module in networks.modules().values():
        module.to("meta")
    engine = Engine(networks)
    encoder = engine.config.motion_encoder
    ways = torch.zeros(len(FACIAL), encoder.tokens * encoder.token_width, device="meta")
    vars(engine.conditioner)["directions"] = Directions(ways, dict.fromkeys(FACIAL, 1.0))
    return engine


@torch.no_grad()
def test_no_call_looks_at_the_device_nor_waits_for_the_call_before(on_meta: Engine):
    controls = Controls(mouth=1.5, eyes=0.5, expression=0.8, smoothing=0.3, head_motion=0.7, pose="relative")
    state = on_meta.start(PORTRAIT, keyframe_threshold=0.0)
    for number, window in enumerate(WINDOWS, start=1):
        Sent.call = number
        with Crossings() as crossings, Constants() as constants:
            motion = on_meta.encode_motion(window)
            cut = 2 if number == 3 else None
            conditioning = on_meta.conditioner.condition(state, motion, cut, controls)
            state, chunk = on_meta.advance(state, conditioning)
            on_meta.decode_images(chunk.latents[0].transpose(0, 1))
        if number == 4:
            state = dataclasses.replace(state, call=20)  # old enough for keyframes
        if number > 1:  # constants are copied once
            assert sorted(crossings.shapes) == sorted([(len(FACIAL),), tuple(window.shape), (1, 4, 4, 8, 8)])
            assert constants.made == []
    assert state.keyframes == 3
    assert Sent.waits
    assert all(asked - sent >= 3 for sent, asked in Sent.waits)


def test_what_the_host_knows_is_the_motion_of_the_first_frames_in_flight():
    engine = small_engine()
    state = engine.start(PORTRAIT)
    for window in WINDOWS[:2]:  # the first brings the frames of the start along
        state, _ = engine.step(state, window)
        sent = [candidate.wait() for candidate in state.keyframe_candidates]
        assert torch.equal(torch.cat(sent, dim=1), state.motion[:, :: engine.chunk_frames])
