"""torch.compile of the denoiser's blocks: the same stream as torch's own, and one clause where it cannot run."""

from __future__ import annotations

import copy
import shutil
from importlib.util import find_spec as really_find
from pathlib import Path

import pytest
import torch

from personalive.engine.engine import Engine
from personalive.errors import DeviceError
from personalive.runtime import compile as module
from personalive.runtime import registry
from personalive.runtime.compile import missing_for_compile
from personalive.runtime.load import load_engine
from personalive.runtime.registry import open_backend
from support.small_engine import noise_images

CUDA = torch.device("cuda")


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
def test_compiled_blocks_make_the_stream_and_nothing_is_compiled_while_it_runs(
    networks, stream, windows, cache, monkeypatch: pytest.MonkeyPatch, compiler: str
):
    """Traced and guarded as in use; kernels of torch's own compiler, which take minutes, are left to ``full``."""
    monkeypatch.setattr(module, "_COMPILER", compiler)
    compiled, shares = copy.deepcopy(networks), []
    backend = open_backend(
        "compile",
        compiled,
        precision=torch.float32,
        identity="small",
        cache=cache,
        on_prepare=lambda name, share: shares.append((name, share)),
    )
    assert shares[0] == ("compile", 0.0) and shares[-1] == ("compile", 1.0)
    plain, other = Engine(networks), Engine(compiled, backend=backend)
    with torch.compiler.set_stance("fail_on_recompile"):
        for count in range(4):  # stored keyframes
            number = next(i for i, state in enumerate(stream) if state.keyframes == count)
            wanted, found = (engine.step(stream[number], windows[number])[1].int() for engine in (plain, other))
            assert (found - wanted).abs().max() <= 2  # of 255
        for steps in (2, 1, 3):
            fewer = plain.start(noise_images(1, 4)[0], steps=steps)
            wanted, found = (engine.step(fewer, windows[0])[1].int() for engine in (plain, other))
            assert (found - wanted).abs().max() <= 2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 3  # blocks were compiled


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("no such\nkernel"), "could not be prepared for it (no such kernel): use --backend eager"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory for this model: use "),
        (MemoryError(), "main memory: not enough memory for this model"),
    ],
)
def test_what_fails_while_compiling_ends_in_one_line(small_weights: Path, monkeypatch, error: Exception, says: str):
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(registry, "missing_for_compile", lambda _: None)
    monkeypatch.setattr(module, "_run_once", fails)
    with pytest.raises(DeviceError) as told:
        load_engine(small_weights, device="cpu", dtype="float32", backend="compile")
    assert says in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("lacks", "says"),
    [("triton", "pip install triton"), ("compiler", "install gcc or clang"), ("headers", "python3-dev")],
)
def test_each_thing_that_a_gpu_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path, lacks: str, says: str):
    has_triton = None if lacks == "triton" else object()
    monkeypatch.setattr(module, "find_spec", lambda name: has_triton if name == "triton" else really_find(name))
    monkeypatch.delenv("CC", raising=False)
    has_compiler = lacks != "compiler"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if has_compiler else None)
    (tmp_path / "Python.h").write_text("")
    include = tmp_path / "none" if lacks == "headers" else tmp_path
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"include": str(include)})
    assert says in (missing_for_compile(CUDA) or "")


def test_nothing_is_missing_where_all_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(module, "find_spec", lambda _: object())
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert missing_for_compile(CUDA) is None
