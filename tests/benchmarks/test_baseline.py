"""The straightforward engine: the same images as the engine, by more work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.evaluation.benchmark import Inputs, with_keyframes
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.training.scratch import build_networks
from support.small_model import SMALL_SHAPE
from timing.baseline import Baseline
from timing.candidate import Stream, stream
from timing.seeded import released_shape, seeded_networks
from timing.stages import counted_call

META = torch.device("meta")


@pytest.fixture(scope="module")
def engines(networks: Networks) -> tuple[Engine, Engine]:
    return Engine(networks), Engine(networks, backend=Baseline(networks))


@pytest.fixture(scope="module")
def streams(engines, inputs: Inputs) -> tuple[Stream, ...]:
    """The same stream by both engines, until the first frames in flight have left."""
    return tuple(stream(engine, inputs, len(inputs.windows)) for engine in engines)


@torch.no_grad()
@pytest.mark.parametrize("keyframes", [0, 1, 3])
def test_the_baseline_gives_what_the_engine_gives(engines, streams, inputs: Inputs, keyframes: int):
    found = []
    for engine, run in zip(engines, streams, strict=True):
        state = with_keyframes(engine, run.state, keyframes)
        assert state.keyframes == keyframes
        motion = engine.conditioner.encode_motion(inputs.windows[0])
        state, leaving = engine.advance(state, engine.conditioner.condition(state, motion))
        found.append((state.latents, leaving.latents, leaving.features))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0.5  # of a size at which the tolerance means something
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_both_streams_show_the_same(streams):
    plain, baseline = (run.frames.int() for run in streams)
    assert plain.float().std() > 10
    assert (plain - baseline).abs().max() <= 1  # rounding to bytes


@torch.no_grad()
def test_keyframes_reach_the_baseline(engines, streams, inputs: Inputs):
    engine, before = engines[1], streams[1].state
    given = engine.conditioner.condition(before, engine.conditioner.encode_motion(inputs.windows[0]))
    without, with_three = (engine.advance(with_keyframes(engine, before, count), given)[1] for count in (0, 3))
    assert (without.latents - with_three.latents).abs().max() > 0.01


def test_the_given_networks_stay_as_they_are_and_lend_their_weights(networks: Networks):
    kinds = [type(module) for module in networks.denoising_unet.modules()]
    last = networks.reference_unet.last
    baseline = Baseline(networks)
    assert [type(module) for module in networks.denoising_unet.modules()] == kinds
    assert networks.reference_unet.last == last
    for name in ("denoising_unet", "reference_unet"):
        own = {tensor.data_ptr() for tensor in getattr(networks, name).parameters()}
        assert {tensor.data_ptr() for tensor in getattr(baseline.networks, name).parameters()} == own


@pytest.mark.full
@torch.no_grad()
def test_in_the_released_shape_it_takes_the_operations_that_were_counted_of_the_description():
    networks = seeded_networks(released_shape(), device=META, dtype=torch.float16)
    counts = operations(Baseline(networks), (0, 1, 3))
    expected = {"project": 0.80, "0": 24.1, "1": 26.4, "3": 31.2, "decode": 10.1}  # TFLOP
    assert {name: count / 1e12 for name, count in counts.items()} == pytest.approx(expected, rel=0.005)


@pytest.mark.full
@torch.no_grad()
def test_operations_by_stage_are_those_of_the_stage_alone(engines, streams, inputs: Inputs):
    counted = []
    for engine, run in zip(engines, streams, strict=True):
        state = run.state
        counts = {n: counted_call(engine, with_keyframes(engine, state, n), inputs.windows[0]) for n in (0, 1, 3)}
        assert counts[0] == counted_call(engine, with_keyframes(engine, state, 0), inputs.windows[0])
        assert counts[0]["conditioning"] == counts[1]["conditioning"] == counts[3]["conditioning"] > 0
        assert counts[0]["step"] == counts[0]["copy_out"] == 0
        counted.append(counts)
    assert counted[1][0]["denoiser"] > counted[0][0]["denoiser"]
    small = build_networks(SMALL_SHAPE)
    for module in small.modules().values():
        module.to("meta")
    for counts, backend in zip(counted, (Backend(small), Baseline(small)), strict=True):
        wanted = operations(backend, (0, 1, 3))
        assert {n: counts[n]["denoiser"] for n in counts} == {n: wanted[str(n)] for n in counts}
        assert {counts[n]["decode"] for n in counts} == {wanted["decode"]}


def operations(backend: Backend, keyframes: tuple[int, ...]) -> dict[str, int]:
    """Torch's own count of shapes alone, where no operation is one that only CPUs have; denoiser by keyframes."""
    networks, encoder = backend.networks, backend.networks.config.motion_encoder
    side = networks.config.image_size_px // 8
    channels, width = networks.unet_config.in_channels, networks.unet_config.channels[0]

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device=META, dtype=backend.dtype)

    context = empty(1, 1, networks.unet_config.context_width)
    conditions = {
        "context": context,
        "motion": empty(1, 16, encoder.tokens, encoder.token_width),
        "pose": empty(1, width, 16, side, side),
    }
    counts = {}
    with FlopCounterMode(display=False) as counter:
        kept = backend.project(empty(1, channels, side, side), context)
    counts["project"] = counter.get_total_flops()
    for count in keyframes:
        reference = {name: KV(*(torch.cat([t] * (1 + count), dim=1) for t in kv)) for name, kv in kept.items()}
        with FlopCounterMode(display=False) as counter:
            backend.denoise(empty(1, channels, 16, side, side), reference=reference, **conditions)
        counts[str(count)] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        backend.decode(empty(4, channels, side, side).float())
    counts["decode"] = counter.get_total_flops()
    return counts
