"""Every network call of a stream, and a whole call, as ONNX files that are checked against torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from personalive.checkpoints.write import whole_folder
from personalive.errors import CheckpointError, DeviceError
from personalive.streaming.backends import onnx_programs
from personalive.streaming.backends.base import Backend
from personalive.streaming.backends.graphs import REFERENCES, Graph, call_graph, graphs, listed

MANIFEST = "export.json"
Telling = Callable[[str, float], None]  # (what is being done, share that is done)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file of an export."""

    file: str
    inputs: dict[str, list[int | str]]  # shapes; a text is a count that varies: n pictures, r reference pictures
    outputs: list[str]
    error: float | None  # largest difference to torch over the largest value, of all counts tried; None: unchecked


def export_onnx(backend: Backend, target: Path, *, check: bool = True, telling: Telling) -> list[ExportedFile]:
    """Write ``NAME.onnx`` for each network call and ``call.onnx`` for a whole one, and ``export.json``.

    Args:
        backend: the plain one of the networks, which decide the number format and device.
        target: a folder that does not exist yet; it appears when all is written and checked.
        check: run every file with onnxruntime on noise and compare.

    Raises:
        DeviceError: packages are missing, or cannot check this number format here.
        CheckpointError: a file computes something else than torch does.
        OutputError: the folder exists, or the disk refuses.
    """
    if (missing := onnx_programs.missing()) is not None:
        raise DeviceError(missing)
    if check and backend.device.type == "cpu" and backend.dtype != torch.float32:
        raise DeviceError("onnxruntime computes in float32 on a CPU: add --no-check, or export with --device cuda")
    found = graphs(backend)
    found["call"] = call_graph(backend.networks, found["denoise"])
    with whole_folder(target) as folder:
        onnx_programs.write(found, folder, lambda share: telling("writing", share))
        errors: dict[str, float] = {}
        for number, (name, graph) in enumerate(found.items() if check else ()):
            telling("checking", number / len(found))
            errors[name] = _largest_error(name, graph, folder)
        files = [
            ExportedFile(
                file=f"{name}{onnx_programs.SUFFIX}",
                inputs={key: _shape(graph, key) for key in graph.inputs},
                outputs=list(graph.outputs),
                error=errors.get(name),
            )
            for name, graph in found.items()
        ]
        text = json.dumps({"files": [asdict(file) for file in files]}, indent=2)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return files


_TOLERANCES = {torch.float32: 2e-3, torch.float16: 5e-2}  # of the largest value; measured: a tenth of it


@torch.no_grad()
def _largest_error(name: str, graph: Graph, folder: Path) -> float:
    device = next(iter(graph.inputs.values())).device
    providers = ["CUDAExecutionProvider"] if device.type == "cuda" else ["CPUExecutionProvider"]
    program = onnx_programs.read({name: graph}, folder, torch.get_num_threads(), providers)[name]
    counts = (1, REFERENCES[-1]) if graph.dynamic else (1,)
    worst, dtype = 0.0, next(iter(graph.inputs.values())).dtype
    for count in counts:
        inputs = graph.examples(count)
        for one, other in zip(program(*inputs), listed(graph.module(*inputs)), strict=True):
            scale = other.float().abs().max().clamp(min=1e-6)
            worst = max(worst, float((one.float() - other.float()).abs().max() / scale))
    if not worst <= _TOLERANCES[dtype]:
        raise CheckpointError(
            f"{name}{onnx_programs.SUFFIX}: differs from torch by {worst:.2g} of its largest value: "
            "install the versions of constraints.txt, or export in float32"
        )
    return worst


def _shape(graph: Graph, name: str) -> list[int | str]:
    shape: list[int | str] = list(graph.inputs[name].shape)
    for axis, (count, unit) in graph.dynamic.get(name, {}).items():
        shape[axis] = count if unit == 1 else f"{unit}*{count}"
    return shape
