"""Tests that need an NVIDIA device. Everything else is tested on the CPU, where these are skipped.

python -m pytest tests/cuda
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from personalive.engine.engine import Engine
from personalive.models.networks import Networks
from personalive.runtime.cache import ProgramCache
from personalive.runtime.registry import open_backend
from support.small_engine import key_seeded_networks, noise_images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA device")

CALLS = 14  # enough for all keyframes
BUSY_CYCLES = 2_000_000_000  # of the device, about a second
PORTRAIT = noise_images(1, 9)[0]
WINDOWS = noise_images(4 * CALLS, 3).reshape(CALLS, 4, 64, 64, 3)


def on_cuda(dtype: torch.dtype = torch.float32) -> Networks:
    networks = key_seeded_networks()
    for module in networks.modules().values():
        module.to(device="cuda", dtype=dtype)
    return networks


def opened(name: str, cache: ProgramCache, dtype: torch.dtype = torch.float32) -> Engine:
    networks = on_cuda(dtype)
    return Engine(networks, backend=open_backend(name, networks, precision=dtype, identity="small", cache=cache))


def frames_of(engine: Engine, calls: int = CALLS) -> torch.Tensor:
    """A short stream; a low threshold makes keyframes early."""
    state, made = engine.start(PORTRAIT, keyframe_threshold=0.0), []
    for window in WINDOWS[:calls]:
        state, frames = engine.step(state, window)
        made.append(frames)
    assert state.keyframes == (3 if calls == CALLS else state.keyframes)
    return torch.cat(made).float()


def psnr_db(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(10 * torch.log10(255**2 / (found - wanted).square().mean()))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ProgramCache:
    return ProgramCache(tmp_path_factory.mktemp("programs"))


@pytest.fixture(autouse=True)
def exact_products():
    """Float32 means float32: without tensor cores' shorter mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def by_cpu() -> torch.Tensor:
    return frames_of(Engine(key_seeded_networks()), 4)


@pytest.mark.parametrize(("dtype", "least_db"), [(torch.float32, 50), (torch.float16, 35), (torch.bfloat16, 25)])
def test_frames_are_those_of_the_cpu(by_cpu, cache, dtype: torch.dtype, least_db: float):
    assert psnr_db(frames_of(opened("eager", cache, dtype), 4), by_cpu) > least_db


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_compiled_calls_with_every_number_of_keyframes_are_those_of_torch(cache, dtype: torch.dtype):
    plain, compiled = opened("eager", cache, dtype), opened("compile", cache, dtype)
    state = plain.start(PORTRAIT, keyframe_threshold=0.0)
    met = set()
    for window in WINDOWS:
        met.add(state.keyframes)
        found = compiled.step(state, window)[1].float()
        state, wanted = plain.step(state, window)
        assert psnr_db(found, wanted.float()) > (50 if dtype == torch.float32 else 35)
    assert met == {0, 1, 2, 3}


def test_a_replayed_stream_is_the_same_bit_by_bit(cache):
    compiled = opened("compile", cache, torch.float16)
    assert torch.equal(frames_of(compiled, 5), frames_of(compiled, 5))


def test_two_streams_by_turns_do_not_disturb_each_other(cache):
    compiled = opened("compile", cache, torch.float16)
    alone = frames_of(compiled, 4)
    one, other = (compiled.start(image) for image in (PORTRAIT, noise_images(1, 5)[0]))
    one = compiled.start(PORTRAIT, keyframe_threshold=0.0)
    made = []
    for window in WINDOWS[:4]:
        one, frames = compiled.step(one, window)
        made.append(frames)
        other, _ = compiled.step(other, window[::-1].copy())
    assert torch.equal(torch.cat(made).float(), alone)


@pytest.mark.parametrize("name", ["eager", "compile"])
def test_the_host_never_waits_in_a_call(cache, name: str):
    engine = opened(name, cache, torch.float16)
    state = engine.start(PORTRAIT, keyframe_threshold=0.0)
    for window in WINDOWS[:11]:  # past the first call that may keep one
        state, _ = engine.step(state, window)
    assert 0 < state.keyframes < engine.config.keyframes.maximum  # so the next call decides about one
    torch.cuda._sleep(BUSY_CYCLES)  # and the device has work for a long while
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits, torch.no_grad():
            warnings.simplefilter("always")
            motion = engine.encode_motion(WINDOWS[11])
            engine.advance(state, engine.conditioner.condition(state, motion))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [str(wait.message) for wait in waits if "synchroniz" in str(wait.message)] == []


def test_states_and_frames_need_no_copy_of_the_window(cache):
    """A window that the caller writes over afterwards was taken in as it was."""
    engine = opened("eager", cache)
    state = engine.start(PORTRAIT)
    window = np.array(WINDOWS[0])
    wanted = engine.step(state, window)[0].motion
    following, _ = engine.step(state, window)
    window[:] = 0
    assert torch.equal(following.motion, wanted)
