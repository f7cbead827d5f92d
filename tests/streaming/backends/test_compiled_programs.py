"""Compiled networks against torch, and what is compiled when."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from personalive.models.bundle import Networks
from personalive.streaming.backends import compiled_programs
from personalive.streaming.backends.base import Backend
from personalive.streaming.backends.graphs import Graph, graphs, listed
from personalive.streaming.backends.programs import ProgramBackend
from personalive.streaming.engine import Engine
from support.small_engine import key_seeded_networks, noise_pictures

pytestmark = pytest.mark.xdist_group("compiled")  # compiled once, not by every worker
NAMES = ("denoise", "guide")  # compiling is slow, and these have both kinds of counts


@pytest.fixture(scope="module")
def found(networks) -> dict[str, Graph]:
    return graphs(Backend(networks))


@pytest.fixture(scope="module")
def folder(found, tmp_path_factory) -> Path:
    folder, shares = tmp_path_factory.mktemp("compiled"), []
    compiled_programs.write({name: found[name] for name in NAMES}, folder, shares.append)
    assert shares == [0.0, 0.5, 1.0]
    return folder


def backend(networks: Networks, folder: Path) -> Backend:
    """With some programs compiled, the others run by torch."""
    found = graphs(Backend(networks))
    plain = {name: lambda *given, run=graph.module: listed(run(*given)) for name, graph in found.items()}
    compiled = compiled_programs.read({name: found[name] for name in NAMES}, folder)
    return ProgramBackend(networks, "compile", plain | compiled, torch.float32)


def made(folder: Path) -> dict[Path, int]:
    """Every kernel there, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")}


def compiler_counts() -> dict[tuple[str, str], int]:
    """What torch's compiler counts, but for what it finds ready made."""
    ready = ("fxgraph_cache_hit", "extern_calls")
    return {(kind, name): n for kind, names in counters.items() for name, n in names.items() if name not in ready}


@pytest.fixture
def nothing_compiled(folder: Path) -> Iterator[None]:
    """Nothing that the test does makes the compiler trace, fuse or write anything."""
    before, kernels = compiler_counts(), made(folder)
    yield
    assert compiler_counts() == before
    assert made(folder) == kernels


def test_a_stream_gives_what_torch_gives_and_compiles_nothing(networks, folder, stream, windows, nothing_compiled):
    compiled, plain = Engine(networks, backend=backend(networks, folder)), Engine(networks)
    first = {state.keyframes: number for number, state in reversed(list(enumerate(stream[:-1])))}
    assert first.keys() == {0, 1, 2, 3}
    for number in first.values():
        state, window = stream[number], windows[number]
        wanted_state, wanted = plain.step(state, window)
        found_state, found = compiled.step(state, window)
        torch.testing.assert_close(found_state.latents, wanted_state.latents, atol=2e-3, rtol=1e-3)
        assert (found.int() - wanted.int()).abs().max() <= 2  # of 255
    compiled.start(noise_pictures(1, 5)[0])


@pytest.mark.parametrize("count", [1, 3, 8, 40])
def test_any_number_of_pictures_is_taken(networks, folder, nothing_compiled, count: int):
    canvas = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
    with torch.no_grad():
        wanted = Backend(networks).guide(canvas)
        torch.testing.assert_close(backend(networks, folder).guide(canvas), wanted, atol=1e-4, rtol=1e-3)


def test_other_weights_of_the_same_shapes_take_the_same_programs(networks, found, folder, nothing_compiled):
    others = key_seeded_networks()
    with torch.no_grad():
        for module in others.modules().values():
            for number, tensor in enumerate(module.parameters()):
                tensor.add_(
                    0.01 * (number % 7 - 3)
                )  # also where all values were 0 or 1, which compilers like to fold
    assert compiled_programs.structure(graphs(Backend(others)), others) == compiled_programs.structure(
        found, networks
    )
    canvas = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = Backend(others).guide(canvas)
        torch.testing.assert_close(backend(others, folder).guide(canvas), wanted, atol=1e-4, rtol=1e-3)
        assert (wanted - Backend(networks).guide(canvas)).abs().max() > 0.01


def test_other_number_formats_are_another_structure(networks, found):
    narrow = key_seeded_networks()
    for module in narrow.modules().values():
        module.to(torch.bfloat16)
    assert compiled_programs.structure(graphs(Backend(narrow)), narrow) != compiled_programs.structure(
        found, networks
    )


def test_a_folder_may_move_and_needs_no_compiler(networks, folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    kernels = made(moved)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "elsewhere"))
    canvas = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            backend(networks, moved).guide(canvas), Backend(networks).guide(canvas), atol=1e-4, rtol=1e-3
        )
    assert made(moved) == kernels and kernels
    assert not (tmp_path / "elsewhere").exists()
