"""Other runtimes against torch: the same stream, call by call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from personalive.cli import options
from personalive.errors import DeviceError
from personalive.models.bundle import Networks
from personalive.streaming.backends import compiled_programs, onnx_programs
from personalive.streaming.backends import open as opening
from personalive.streaming.backends.base import Backend
from personalive.streaming.backends.graphs import graphs, listed
from personalive.streaming.backends.open import BACKENDS, open_backend, why_not
from personalive.streaming.backends.programs import ProgramBackend
from personalive.streaming.engine import Engine
from personalive.streaming.state import StreamState
from support.small_engine import noise_pictures

CALLS = 14  # enough for all keyframes
RUNTIMES = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return noise_pictures(4 * CALLS, 3).reshape(CALLS, 4, 64, 64, 3)


@pytest.fixture(scope="module")
def stream(networks, windows) -> list[StreamState]:
    """States of a stream by torch, before each call; a low threshold makes keyframes early."""
    engine = Engine(networks)
    states = [engine.start(noise_pictures(1, 9)[0], keyframe_threshold=0.0)]
    for window in windows:
        states.append(engine.step(states[-1], window)[0])
    assert {state.keyframes for state in states[:-1]} == {0, 1, 2, 3}
    return states


@pytest.mark.parametrize("name", RUNTIMES)
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


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_portrait_is_read_as_torch_reads_it(networks, opened, name: str):
    picture = noise_pictures(1, 4)[0]
    wanted = Engine(networks).start(picture).reference
    found = Engine(networks, backend=opened(name)).start(picture).reference
    assert list(found.kv) == list(wanted.kv)
    for block, kv in wanted.kv.items():
        torch.testing.assert_close(found.kv[block].key, kv.key, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.pose.kp, wanted.pose.kp, atol=1e-3, rtol=1e-3)


def test_a_stream_replays_bit_by_bit(networks, opened, stream, windows):
    engine = Engine(networks, backend=opened("openvino"))
    one, other = (engine.step(stream[5], windows[5])[1] for _ in range(2))
    assert torch.equal(one, other)


def test_narrow_arithmetic_of_openvino_stays_near(networks, opened, stream, windows):
    wanted = Engine(networks).step(stream[0], windows[0])[1]
    backend = opened("openvino", torch.bfloat16)
    found = Engine(networks, backend=backend).step(stream[0], windows[0])[1]
    assert backend.precision == torch.bfloat16
    error = (found.float() - wanted.float()).square().mean().sqrt()
    assert error < 0.1 * wanted.float().std()


def test_programs_are_kept_and_found_again(networks, opened, store):
    opened("openvino")
    before = sorted(path.name for path in store.root.iterdir())
    shares: list[float] = []
    open_backend(
        "openvino",
        networks,
        precision=torch.float32,
        identity="small",
        store=store,
        preparing=lambda _, share: shares.append(share),
    )
    assert shares == []
    assert sorted(path.name for path in store.root.iterdir()) == before


def test_gradients_are_refused_and_not_lost(opened):
    backend = opened("openvino")
    latents = torch.zeros(1, 4, 8, 8, requires_grad=True)
    with pytest.raises(RuntimeError, match="no gradients"):
        backend.decode(latents)


def test_openvino_reports_to_nobody(tmp_path: Path):
    code = (
        "import sys\n"
        "from personalive.streaming.backends.openvino_programs import read\n"
        "import torch\n"
        f"read([], __import__('pathlib').Path({str(tmp_path)!r}), torch.float32, 1)\n"
        "assert 'openvino' in sys.modules\n"
        "loaded = [m for m, it in sys.modules.items() if m.startswith('openvino_telemetry') and it is not None]\n"
        "assert not loaded, loaded\n"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=home)
    assert list(tmp_path.iterdir()) == []


# --- torch.compile ------------------------------------------------------------------------------------------


def compiled(networks: Networks, compiler: str, names: set[str]) -> Backend:
    """A backend in which only ``names`` are compiled: compiling is slow, and each network tells enough."""
    found = graphs(Backend(networks))
    programs = {
        name: lambda *tensors, run=graph.module: listed(run(*tensors))
        for name, graph in found.items()
    }
    chosen = {name: graph for name, graph in found.items() if name in names}
    shares: list[float] = []
    programs |= compiled_programs.compile_graphs(chosen, 4, shares.append, compiler)
    assert shares[-1] == 1.0
    return ProgramBackend(networks, "compile", programs, torch.float32)


def test_nothing_is_compiled_again_by_keyframes_portraits_or_counts(networks, stream, windows):
    """The tracer's own counters; what fuses the graphs it finds is of no matter here."""
    from torch._dynamo.utils import counters

    names = {"denoise", "extract", "guide"}
    counters.clear()
    engine = Engine(networks, backend=compiled(networks, "eager", names))
    made = counters["stats"]["unique_graphs"]
    assert made == len(names)
    plain = Engine(networks)
    for number in (*range(2), *range(CALLS - 4, CALLS)):  # all numbers of keyframes among them
        found = engine.step(stream[number], windows[number])[1]
        assert (found.int() - plain.step(stream[number], windows[number])[1].int()).abs().max() <= 2
    engine.start(noise_pictures(1, 5)[0])
    engine.read(windows[0, :3])
    engine.read(windows[:2].reshape(8, 64, 64, 3))
    assert counters["stats"]["unique_graphs"] == made
    assert not counters["recompile_limit"] and not counters["graph_break"]


def test_the_compiler_itself_gives_what_torch_gives(networks):
    backend, plain = compiled(networks, "inductor", {"guide"}), Backend(networks)
    canvas = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(backend.guide(canvas), plain.guide(canvas), atol=1e-4, rtol=1e-3)


def test_what_the_compiler_makes_is_kept_where_it_stays(networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.setenv(compiled_programs.COMPILER_CACHE_ENV, default_cache_dir())  # as torch leaves it when it is imported
    compiled_programs.keep_in(tmp_path / "kept")
    compiled(networks, "inductor", {"guide"})
    assert any((tmp_path / "kept").rglob("*.cpp"))
    monkeypatch.setenv(compiled_programs.COMPILER_CACHE_ENV, str(tmp_path / "mine"))
    compiled_programs.keep_in(tmp_path / "kept")
    assert os.environ[compiled_programs.COMPILER_CACHE_ENV] == str(tmp_path / "mine")


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
    assert says in (why_not(name, torch.device(device), precision) or "")


def test_opening_one_that_cannot_run_is_an_error_of_one_line(networks, store):
    with pytest.raises(DeviceError, match=r"^backend tensorrt: [^\n]+$"):
        open_backend("tensorrt", networks, precision=torch.float32, identity="small", store=store)


@pytest.mark.parametrize(
    ("name", "place", "package"),
    [("openvino", opening, "openvino"), ("onnxruntime", onnx_programs, "onnxscript")],
)
def test_a_missing_package_is_named(monkeypatch, name: str, place: Any, package: str):
    monkeypatch.setattr(place, "find_spec", lambda wanted: None if wanted == package else object())
    said = why_not(name, torch.device("cpu"), torch.float32) or ""
    assert package in said and "pip install" in said


def test_names_are_those_that_can_be_asked_for():
    assert {choice.value for choice in options.Backend} == {"auto", *BACKENDS}
