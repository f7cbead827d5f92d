"""Every network call of a stream, and a whole call, as ONNX files that are checked against torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from personalive.checkpoints.files import whole_folder
from personalive.engine.backend import Backend
from personalive.errors import CheckpointError, DeviceError
from personalive.runtime import onnx
from personalive.runtime.programs import REFERENCES, ProgramSpec, program_specs, whole_call_spec

MANIFEST = "export.json"
ExportProgress = Callable[[str, float], None]  # (work, share done)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file of an export."""

    file: str
    inputs: dict[str, list[int | str]]  # shapes; a text is a count that varies: n images, r reference images
    outputs: list[str]
    error: float | None  # largest difference to torch over the largest value, of all counts tried; None: unchecked


def export_onnx(
    backend: Backend, target: Path, *, check: bool = True, on_progress: ExportProgress
) -> list[ExportedFile]:
    """Write ``NAME.onnx`` for each network call and ``call.onnx`` for a whole one, and ``export.json``.

    Args:
        backend: the eager one of the networks, which decide the dtype and device.
        target: a folder that does not exist yet; it appears when all is written and checked.
        check: run every file with onnxruntime on noise and compare.

    Raises:
        DeviceError: packages are missing, or cannot check this dtype here.
        CheckpointError: a file computes something else than torch does.
        OutputError: the folder exists, or the disk refuses.
    """
    if (missing := onnx.missing()) is not None:
        raise DeviceError(missing)
    if check and backend.device.type == "cpu" and backend.dtype != torch.float32:
        raise DeviceError("onnxruntime computes in float32 on a CPU: add --no-check, or export with --device cuda")
    specs = program_specs(backend.networks)
    specs["call"] = whole_call_spec(backend.networks, specs)
    with whole_folder(target) as folder:
        onnx.write(specs, folder, lambda share: on_progress("writing", share))
        errors: dict[str, float] = {}
        for number, (name, spec) in enumerate(specs.items() if check else ()):
            on_progress("checking", number / len(specs))
            errors[name] = _largest_error(name, spec, folder)
        files = [
            ExportedFile(
                file=f"{name}{onnx.SUFFIX}",
                inputs={key: _shape(spec, key) for key in spec.inputs},
                outputs=list(spec.outputs),
                error=errors.get(name),
            )
            for name, spec in specs.items()
        ]
        text = json.dumps({"files": [asdict(file) for file in files]}, indent=2)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return files


_TOLERANCES = {torch.float32: 2e-3, torch.float16: 5e-2}  # of the largest value; measured: a tenth of it


@torch.no_grad()
def _largest_error(name: str, spec: ProgramSpec, folder: Path) -> float:
    device = spec.device
    providers = ["CUDAExecutionProvider"] if device.type == "cuda" else ["CPUExecutionProvider"]
    program = onnx.read({name: spec}, folder, torch.get_num_threads(), providers)[name]
    counts = (1, REFERENCES[-1]) if spec.dynamic else (1,)
    worst, dtype = 0.0, next(iter(spec.inputs.values())).dtype
    for count in counts:
        inputs = spec.examples(count)
        for one, other in zip(program(*inputs), spec.module(*inputs), strict=True):
            scale = other.float().abs().max().clamp(min=1e-6)
            worst = max(worst, float((one.float() - other.float()).abs().max() / scale))
    if not worst <= _TOLERANCES[dtype]:
        raise CheckpointError(
            f"{name}{onnx.SUFFIX}: differs from torch by {worst:.2g} of its largest value: "
            "install the versions of constraints.txt, or export in float32"
        )
    return worst


def _shape(spec: ProgramSpec, name: str) -> list[int | str]:
    shape: list[int | str] = list(spec.inputs[name].shape)
    for axis, (count, unit) in spec.dynamic.get(name, {}).items():
        shape[axis] = count if unit == 1 else f"{unit}*{count}"
    return shape
