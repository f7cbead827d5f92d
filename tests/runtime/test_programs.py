"""Other runtimes against torch: the same stream, call by call."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from personalive.cli import options
from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.errors import DeviceError
from personalive.runtime import onnx, registry
from personalive.runtime.cache import ProgramCache
from personalive.runtime.programs import InBatches, program_specs
from personalive.runtime.registry import BACKENDS, open_backend, unavailable
from support.small_engine import noise_images

pytestmark = pytest.mark.xdist_group("programs")  # made once, not by every worker
RUNTIMES = ("openvino", "onnxruntime")
WHOLE = ("openvino", pytest.param("onnxruntime", marks=pytest.mark.full))  # a minute to export all calls


@pytest.mark.parametrize("name", WHOLE)
def test_every_call_gives_what_torch_gives(networks, opened, stream, windows, name: str):
    """From the same state, since a stream of noise drifts apart by itself; keyframes come and go unprepared."""
    plain, other = Engine(networks), Engine(networks, backend=opened(name))
    assert (other.backend.name, other.backend.precision) == (name, torch.float32)
    for state, window in zip(stream[:-1], windows, strict=True):
        wanted_state, wanted = plain.step(state, window)
        found_state, found = other.step(state, window)
        assert found_state.keyframes == wanted_state.keyframes
        torch.testing.assert_close(found_state.latents, wanted_state.latents, atol=2e-3, rtol=1e-3)
        assert (found.int() - wanted.int()).abs().max() <= 2  # of 255


@pytest.mark.parametrize("name", WHOLE)
def test_one_set_of_programs_serves_every_number_of_steps(networks, opened, windows, name: str):
    plain, other = Engine(networks), Engine(networks, backend=opened(name))
    for steps in (1, 3, 2):
        state = plain.start(noise_images(1, 4)[0], steps=steps)
        wanted_state, wanted = plain.step(state, windows[0])
        found_state, found = other.step(state, windows[0])
        torch.testing.assert_close(found_state.latents, wanted_state.latents, atol=2e-3, rtol=1e-3)
        assert (found.int() - wanted.int()).abs().max() <= 2  # of 255


@pytest.mark.parametrize("name", WHOLE)
def test_a_portrait_is_read_as_torch_reads_it(networks, opened, name: str):
    image = noise_images(1, 4)[0]
    wanted = Engine(networks).start(image).reference
    found = Engine(networks, backend=opened(name)).start(image).reference
    assert list(found.kv) == list(wanted.kv)
    for block, kv in wanted.kv.items():
        torch.testing.assert_close(found.kv[block].key, kv.key, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.pose.kp, wanted.pose.kp, atol=1e-3, rtol=1e-3)


def test_a_stream_replays_bit_by_bit(networks, opened, stream, windows):
    engine = Engine(networks, backend=opened("openvino"))
    one, other = (engine.step(stream[5], windows[5])[1] for _ in range(2))
    assert torch.equal(one, other)


def test_narrow_arithmetic_of_openvino_is_as_near_as_torch_s(networks, opened, stream, windows):
    """In networks of noise bfloat16 makes a large error, whoever computes it; a processor without it makes none."""

    def error(engine: Engine) -> float:
        return (engine.step(stream[0], windows[0])[1].float() - wanted).square().mean().sqrt().item()

    wanted = Engine(networks).step(stream[0], windows[0])[1].float()
    backend = opened("openvino", torch.bfloat16)
    assert backend.precision == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        usual = error(Engine(networks))
    assert 0 < usual < wanted.std().item()
    assert error(Engine(networks, backend=backend)) < 1.5 * usual


@pytest.mark.parametrize(("dtype", "channels_last"), [(torch.float32, False), (torch.bfloat16, True)])
def test_half_precision_on_a_cpu_is_laid_out_as_convolutions_read_it(
    networks, dtype: torch.dtype, channels_last: bool
):
    """In float32 nothing is laid out anew: frames are recorded bit for bit there."""
    made = dataclasses.replace(networks, denoising_unet=copy.deepcopy(networks.denoising_unet).to(dtype))
    open_backend("eager", made, precision=dtype, identity="")
    weight = made.denoising_unet.up_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_programs_are_made_once_kept_and_found_again(networks, tmp_path: Path, monkeypatch):
    guide = {"guide": program_specs(networks)["guide"]}  # the smallest
    monkeypatch.setattr(registry, "program_specs", lambda _: guide)
    wanted = Backend(networks).guide(*guide["guide"].examples(2))
    for name in RUNTIMES:
        cache, shares = ProgramCache(tmp_path / name), []
        for _ in range(2):
            found = open_backend(
                name,
                networks,
                precision=torch.float32,
                identity="small",
                cache=cache,
                on_prepare=lambda _, share, shares=shares: shares.append(share),
            )
            torch.testing.assert_close(found.guide(*guide["guide"].examples(2)), wanted, atol=1e-3, rtol=1e-3)
        assert shares == [0.0, 1.0]
        assert len(list(cache.root.iterdir())) == 1


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_any_number_of_images_comes_in_batches(count: int, exact: bool):
    sizes: list[int] = []

    def doubled(one: torch.Tensor, other: torch.Tensor) -> list[torch.Tensor]:
        sizes.append(len(one))
        return [2 * one, one + other]

    values = torch.arange(float(count))[:, None].expand(count, 5)
    found = InBatches(doubled, 3, exact=exact)(values, 10 * values)
    assert torch.equal(found[0], 2 * values) and torch.equal(found[1], 11 * values)
    assert max(sizes) <= 3 and (not exact or set(sizes) == {3})


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_encoders_for_a_chunk_take_any_number(networks, opened, count: int):
    faces = torch.rand(count, 3, *[networks.config.motion_encoder.face_size_px] * 2) * 2 - 1
    with torch.no_grad():
        wanted = Backend(networks).motion_tokens(faces)
        torch.testing.assert_close(opened("openvino").motion_tokens(faces), wanted, atol=1e-3, rtol=1e-3)


def test_gradients_are_refused_and_not_lost(opened):
    backend = opened("openvino")
    latents = torch.zeros(1, 4, 8, 8, requires_grad=True)
    with pytest.raises(RuntimeError, match="no gradients"):
        backend.decode(latents)


def test_openvino_reports_to_nobody(tmp_path: Path):
    code = (
        "import sys\n"
        "from personalive.runtime.openvino import read\n"
        "import torch\n"
        f"read({{}}, __import__('pathlib').Path({str(tmp_path)!r}), precision=torch.float32, threads=1)\n"
        "assert 'openvino' in sys.modules\n"
        "loaded = [m for m, it in sys.modules.items() if m.startswith('openvino_telemetry') and it is not None]\n"
        "assert not loaded, loaded\n"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=home)
    assert list(tmp_path.iterdir()) == []


# --- what cannot run here -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "device", "precision", "says"),
    [
        ("fast", "cpu", torch.float32, "use auto, eager, compile"),
        ("openvino", "cuda", torch.float16, "runs on a CPU"),
        ("onnxruntime", "cpu", torch.bfloat16, "--dtype float32"),
        ("tensorrt", "cpu", torch.float32, "no TensorrtExecutionProvider"),
    ],
)
def test_a_backend_that_cannot_run_says_why(name: str, device: str, precision: torch.dtype, says: str):
    assert says in (unavailable(name, torch.device(device), precision) or "")


def test_opening_one_that_cannot_run_is_an_error_of_one_line(networks, cache):
    with pytest.raises(DeviceError, match=r"^backend tensorrt: [^\n]+$"):
        open_backend("tensorrt", networks, precision=torch.float32, identity="small", cache=cache)


@pytest.mark.parametrize(
    ("name", "place", "package"),
    [("openvino", registry, "openvino"), ("onnxruntime", onnx, "onnxscript")],
)
def test_a_missing_package_is_named(monkeypatch, name: str, place: Any, package: str):
    monkeypatch.setattr(place, "find_spec", lambda wanted: None if wanted == package else object())
    said = unavailable(name, torch.device("cpu"), torch.float32) or ""
    assert package in said and "pip install" in said


def test_names_are_those_that_can_be_asked_for():
    assert {choice.value for choice in options.Backend} == {"auto", *BACKENDS}
