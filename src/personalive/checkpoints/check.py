"""Report on a weights folder: its contents and its faults, without loading any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from personalive.checkpoints.files import read_infos
from personalive.checkpoints.folder import CheckpointFolder, resolve_root
from personalive.checkpoints.key_map import KEY_RULES
from personalive.checkpoints.layout import PARTS, find_part, missing_files, parts_of
from personalive.checkpoints.networks import build_part
from personalive.checkpoints.strict import KeyDifference, canonical_infos, compare, merge_infos, module_infos
from personalive.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """One network: its files, what they hold, and the first thing that is wrong with them."""

    part: str
    files: tuple[Path, ...]
    size_bytes: int = 0
    tensors: int = 0
    parameters: int = 0  # values in all tensors
    dtypes: tuple[str, ...] = ()  # on disk, e.g. ("float16",)
    difference: KeyDifference = field(default_factory=KeyDifference)
    problem: str | None = None  # one line, or None when the part can be loaded

    @property
    def ok(self) -> bool:
        """True if the part can be loaded."""
        return self.problem is None


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """A whole folder. ``problem`` is about the folder itself or its configs."""

    root: Path
    missing_files: tuple[str, ...] = ()
    parts: tuple[PartReport, ...] = ()
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """True if every network can be loaded."""
        return self.problem is None and not self.missing_files and all(part.ok for part in self.parts)


def check_folder(where: str | Path) -> FolderReport:
    """Compare every weight file of a folder (or "tiny") with the network its config describes.

    Reads headers only: shapes and keys are proven, values are not. Never raises for what is wrong inside the
    folder: that is the report.

    Raises:
        CheckpointError: there is no such folder.
    """
    root = resolve_root(where)
    absent = tuple(missing_files(root))
    try:
        folder = CheckpointFolder.from_configs(root, name=str(where))
    except CheckpointError as error:
        return FolderReport(root=root, missing_files=absent, problem=str(error))
    parts = tuple(_check_part(folder, part) for part in parts_of(folder.config))
    return FolderReport(root=root, missing_files=absent, parts=parts)


def _check_part(folder: CheckpointFolder, part: str) -> PartReport:
    paths = find_part(folder.root, part)
    if not paths:
        return PartReport(part=part, files=(), problem=f"no file {PARTS[part][0].stem}: download it")
    size_bytes = sum(path.stat().st_size for path in paths)
    try:
        return _compare_part(folder, part, paths, size_bytes)
    except CheckpointError as error:
        return PartReport(part=part, files=paths, size_bytes=size_bytes, problem=str(error))


def _compare_part(folder: CheckpointFolder, part: str, paths: Sequence[Path], size_bytes: int) -> PartReport:
    rules = KEY_RULES[part]
    wanted = module_infos(build_part(folder, part))
    infos = merge_infos(((path, canonical_infos(read_infos(path), rules)) for path in paths), wanted)
    difference = compare(wanted, infos, rules)
    return PartReport(
        part=part,
        files=tuple(paths),
        size_bytes=size_bytes,
        tensors=len(infos),
        parameters=sum(_count(info.shape) for info in infos.values()),
        dtypes=tuple(sorted({str(info.dtype).removeprefix("torch.") for info in infos.values()})),
        difference=difference,
        problem=str(difference) if difference else None,
    )


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
