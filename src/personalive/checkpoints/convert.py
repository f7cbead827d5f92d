"""A one-time copy of a weights folder as half-precision safetensors: half the disk, safe, quick to open."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from personalive.checkpoints.check import check_folder
from personalive.checkpoints.files import TensorInfo, read_tensors, whole_folder, write_safetensors
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.key_map import KEY_RULES, KeyRules
from personalive.checkpoints.layout import CONFIGS, PARTS, parts_of
from personalive.config import FACE_DETECTOR
from personalive.errors import CheckpointError, OutputError
from personalive.progress import Meter, Progress

ProgressCallback = Callable[[Progress], None]  # bytes of the converted files


@dataclass(frozen=True, slots=True)
class _Job:
    """One file to convert: ``source`` to ``name`` under the new root."""

    source: Path
    name: str
    rules: KeyRules
    left_out: frozenset[str]  # keys that no network has a place for


def convert_folder(
    source: str | Path,
    destination: Path,
    *,
    dtype: torch.dtype = torch.float16,
    progress: ProgressCallback | None = None,
) -> Path:
    """Copy ``source`` (a folder or "tiny") to ``destination`` with all weights as safetensors in ``dtype``.

    Floating tensors are converted, integer ones kept; keys get their current names, and those that no network has a
    place for are left out; configs and the face detector are copied. One tensor is in memory at a time. Every written
    value is read back and compared before the folder appears under its name.

    Raises:
        CheckpointError: the source cannot be loaded, or a value does not fit into ``dtype``.
        OutputError: the destination exists, or its disk refuses or is too small.
    """
    folder = CheckpointFolder.open(source)
    report = check_folder(source)
    if bad := next((part for part in report.parts if not part.ok), None):
        raise CheckpointError(f"{folder.root}: {bad.part} cannot be converted: {bad.problem}")
    total = sum(part.parameters for part in report.parts) * dtype.itemsize
    with whole_folder(destination) as temporary:
        if (free := shutil.disk_usage(temporary).free) < total:
            raise OutputError(
                f"{destination}: needs {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
                "free some or choose another disk"
            )
        _copy_beside(folder, temporary)
        meter, done = Meter(total, "bytes"), 0
        for job in _jobs(folder, {part.part: frozenset(part.difference.extra) for part in report.parts}):
            done += _convert_file(job, temporary, dtype, _forward(progress, meter, job.name, done))
        _verify(temporary)
    return destination


def _jobs(folder: CheckpointFolder, left_out: Mapping[str, frozenset[str]]) -> list[_Job]:
    return [
        _Job(path, f"{file.stem}.safetensors", KEY_RULES[part], left_out[part])
        for part in parts_of(folder.config)
        for file in PARTS[part]
        if (path := file.find(folder.root)) is not None
    ]


def _copy_beside(source: CheckpointFolder, destination: Path) -> None:
    for name in (*CONFIGS, FACE_DETECTOR):
        if source.path(name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path(name), destination / name)


def _convert_file(job: _Job, root: Path, dtype: torch.dtype, progress: Callable[[int], None] | None) -> int:
    named = {job.rules.canonical(key): tensor for key, tensor in read_tensors(job.source).items()}
    tensors = {key: tensor for key, tensor in named.items() if key not in job.left_out}
    infos = {key: _converted_info(key, tensor, job.rules, dtype) for key, tensor in tensors.items()}

    def converted(key: str) -> Tensor:
        return tensors[key].to(infos[key].dtype).reshape(infos[key].shape)

    def checked(key: str) -> Tensor:
        result = converted(key)
        if not _fits(tensors[key], result):
            raise CheckpointError(f"{job.source}: {key} has values beyond the range of {dtype}: convert to bfloat16")
        return result

    path = root / job.name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, infos, checked, progress)
    _compare_values(path, infos, converted)
    return path.stat().st_size


def _converted_info(key: str, tensor: Tensor, rules: KeyRules, dtype: torch.dtype) -> TensorInfo:
    kept = dtype if tensor.dtype.is_floating_point else tensor.dtype
    return TensorInfo(rules.canonical_shape(key, tuple(tensor.shape)), kept)


def _compare_values(path: Path, infos: Mapping[str, TensorInfo], converted: Callable[[str], Tensor]) -> None:
    written = read_tensors(path)
    if written.keys() != infos.keys() or not all(_same(written[key], converted(key)) for key in infos):
        raise OutputError(f"{path.name}: what was written reads back differently: check the disk and convert again")


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, not-a-numbers included."""
    bits_a, bits_b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits_a, bits_b)


def _fits(original: Tensor, converted: Tensor) -> bool:
    """Return True if every finite value stayed finite."""
    if converted.dtype == original.dtype or original.numel() == 0:
        return True
    low, high = original.aminmax()
    if max(-low.item(), high.item()) <= torch.finfo(converted.dtype).max:
        return True
    # rare, and slow: not-a-numbers or infinities in the file, or values that rounding may still save
    return torch.equal(converted.isfinite().reshape(-1), original.isfinite().reshape(-1))


def _verify(root: Path) -> None:
    report = check_folder(root)
    if not report.ok:
        problems = [report.problem, *report.missing_files, *(part.problem for part in report.parts)]
        raise OutputError(f"converted folder is not whole ({next(filter(None, problems))}): convert again")


def _forward(progress: ProgressCallback | None, meter: Meter, name: str, before: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda written: progress(meter.at(min(before + written, meter.total or 0), Path(name).name))
