"""torch's compiler: the networks fused into fewer, larger kernels, with CUDA graphs on NVIDIA devices.

Each graph is compiled once for all counts of pictures and references, and kept. Nothing is traced when a program is
read again, so a second start takes a second, and nothing can be compiled while a stream runs. The weights are inputs
of the programs: other weights of the same shapes take the same files.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personalive.models.bundle import Networks
from personalive.streaming.backends.cuda_graphs import Recorded, Recorder
from personalive.streaming.backends.graphs import PICTURING, REFERENCES, Graph, exported, listed
from personalive.streaming.backends.programs import Program

PACKAGES = ("torch",)  # whose versions decide the files
_COMPILER_CACHE_ENV = "TORCHINDUCTOR_CACHE_DIR"  # where the compiler keeps kernels
_KERNELS = "kernels"


def structure(graphs: Mapping[str, Graph], networks: Networks) -> str:
    """What of the networks decides compiled programs: all but the values of the weights."""
    tensors = [
        (name, kind, key, tuple(tensor.shape), tensor.stride(), str(tensor.dtype))
        for name, graph in graphs.items()
        for kind, found in (("input", graph.inputs), ("weight", _tensors(graph.module)))
        for key, tensor in found.items()
    ]
    configs = [
        networks.config,
        networks.unet_config,
        *(_facts(part.config) for part in (networks.vae, networks.decoder)),
    ]
    return repr((configs, tensors))


def write(graphs: Mapping[str, Graph], folder: Path, told: Callable[[float], None]) -> None:
    """Compile every graph to ``NAME.bin``, the names of its weights beside it; ``told`` gets the share done."""
    from torch._inductor import standalone_compile  # noqa: PLC0415 (slow)

    with _kernels_in(folder / _KERNELS):
        for number, (name, graph) in enumerate(graphs.items()):
            told(number / len(graphs))
            program = exported(graph)
            specs = [spec for spec in program.graph_signature.input_specs if spec.kind.name != "USER_INPUT"]
            if others := [spec.target for spec in specs if spec.kind.name not in ("PARAMETER", "BUFFER")]:
                raise RuntimeError(f"{name}: constants that no module owns: {others}")
            inputs = [node.meta["val"] for node in program.graph_module.graph.nodes if node.op == "placeholder"]
            made: Any = standalone_compile(program.graph_module, inputs, dynamic_shapes="from_graph", options={})
            made.save(path=str(folder / f"{name}.bin"))
            names = json.dumps([spec.target for spec in specs])
            (folder / f"{name}.json").write_text(names, encoding="utf-8")
    told(1.0)


def read(graphs: Mapping[str, Graph], folder: Path, *, decode_beside: bool = False) -> dict[str, Program]:
    """The programs that ``write`` left there, each run once; on CUDA recorded for all counts of references.

    Recordings share their memory, so one runs at a time; with ``decode_beside`` those that make pictures have their
    own, and run beside the others.
    """
    programs: dict[str, Program] = {}
    recorders: dict[bool, Recorder] = {}
    with _kernels_in(folder / _KERNELS):
        for name, graph in graphs.items():
            programs[name] = run = _Compiled(graph, folder / name)
            run(*graph.examples(1))
            if graph.device.type == "cuda":
                apart = decode_beside and name in PICTURING
                if apart not in recorders:
                    recorders[apart] = Recorder(graph.device)
                counts = REFERENCES if graph.counts == {"r"} else ()
                programs[name] = Recorded(run, graph, counts, recorders[apart])
    return programs


class _Compiled:
    """One compiled graph with the weights of its module."""

    def __init__(self, graph: Graph, path: Path) -> None:
        from torch._inductor.standalone_compile import CompiledArtifact  # noqa: PLC0415 (slow)

        own = _tensors(graph.module)
        names = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self._weights = [own[name].detach() for name in names]
        self._run = CompiledArtifact.load(path=str(path.with_suffix(".bin")))

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        return listed(self._run(*self._weights, *(tensor.contiguous() for tensor in tensors)))


def _facts(config: Mapping[str, object]) -> dict[str, object]:
    """A library's configuration without the places it notes in it."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@contextmanager
def _kernels_in(folder: Path) -> Iterator[None]:
    """Have the compiler keep kernels beside the programs that need them. Its own modules warn of deprecations."""
    from torch._inductor.utils import clear_caches  # noqa: PLC0415 (slow)

    before = os.environ.get(_COMPILER_CACHE_ENV)
    os.environ[_COMPILER_CACHE_ENV] = str(folder)
    clear_caches()  # what it remembers of another place
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        clear_caches()
        if before is None:
            del os.environ[_COMPILER_CACHE_ENV]
        else:
            os.environ[_COMPILER_CACHE_ENV] = before
