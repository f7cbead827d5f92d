"""Weight files, read safely and written whole.

Nothing in a file is ever run. A file is recognised by its content, not by its suffix. Safetensors and zip-format
pickles are memory-mapped, so reading costs memory for what is then copied, and for the file's own pages as long as it
is open; pickles of torch before 1.6 are read whole. Writing holds one tensor at a time, and a folder appears when it
is whole.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import struct
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from personalive.errors import CheckpointError, OutputError

Format = Literal["safetensors", "zip", "pickle"]

SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_AGAIN = "download it again from its publisher"
# what torch.load and safetensors raise on damaged files, as met in practice
_DAMAGE = (
    SafetensorError,
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and dtype of a tensor on disk."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_tensors(path: Path, only: Collection[str] | None = None) -> dict[str, Tensor]:
    """Tensors of a weight file, on the CPU, in the file's dtypes: all, or those named.

    Tensors may be views of the mapped file: copy what is kept longer than the file stays in place. The map is closed
    when the last of them goes.

    Raises:
        CheckpointError: missing, empty, damaged, not a weight file, or holding anything but named tensors.
    """
    kind = sniff_format(path)
    try:
        if kind == "safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                wanted = file.keys() if only is None else only
                return {key: file.get_tensor(key) for key in wanted}
        tensors = _named_tensors(_load_pickle(path, mmap=kind == "zip", map_location="cpu"), path)
        return tensors if only is None else {key: tensor for key, tensor in tensors.items() if key in only}
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def read_infos(path: Path) -> dict[str, TensorInfo]:
    """Shapes and dtypes of all tensors of a weight file, without reading their values.

    Raises:
        CheckpointError: as ``read_tensors``.
    """
    kind = sniff_format(path)
    try:
        if kind == "safetensors":
            return _header_infos(path)
        tensors = _named_tensors(_load_pickle(path, mmap=kind == "zip", map_location="meta"), path)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    return {key: TensorInfo(tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}


def portions(path: Path, infos: Mapping[str, TensorInfo], limit_bytes: int) -> Iterator[frozenset[str]]:
    """Keys of a weight file in groups of at most ``limit_bytes``, for ``read_tensors``; a larger tensor comes alone.

    So only the pages of one group are in memory at a time. A file that is read whole anyway is one group.
    """
    if sniff_format(path) == "pickle":
        yield frozenset(infos)
        return
    group: list[str] = []
    filled = 0
    for key, info in infos.items():
        if group and filled + info.nbytes > limit_bytes:
            yield frozenset(group)
            group, filled = [], 0
        group.append(key)
        filled += info.nbytes
    yield frozenset(group)


def sniff_format(path: Path) -> Format:
    """Recognise a weight file by its first bytes.

    Raises:
        CheckpointError: unreadable, empty, or something else (a git-lfs pointer, a web page, text).
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}): {_AGAIN}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty: {_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: this is a git-lfs pointer, not the weights: fetch the real file (git lfs pull)"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path}: this is a web page, not weights (a failed download?): {_AGAIN}")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[8:9] == b"{":  # eight bytes of header length, then the header
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    raise CheckpointError(f"{path}: not a weight file (neither safetensors nor PyTorch): {_AGAIN}")


def _load_pickle(path: Path, mmap: bool, map_location: str) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # of unusual pickles: they are read or refused
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors; refused, nothing in it was run: "
            f"{_AGAIN} or get it as .safetensors"
        ) from error


def _named_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(loaded, dict) and list(loaded) == ["state_dict"]:
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected named tensors, found {type(loaded).__name__}: {_AGAIN}")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(
                f"{path}: entry {key!r:.80} is not a plain named tensor: save only the model's state_dict"
            )
    return {key: value.detach() for key, value in loaded.items()}


def _header_infos(path: Path) -> dict[str, TensorInfo]:
    infos = {}
    with safe_open(path, framework="pt", device="cpu") as file:
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            view = file.get_slice(key)
            infos[key] = TensorInfo(tuple(view.get_shape()), SAFETENSORS_DTYPES[view.get_dtype()])
    return infos


def _damaged(path: Path, error: Exception) -> CheckpointError:
    first_line = (str(error).splitlines() or [""])[0]
    return CheckpointError(f"{path}: damaged or cut off ({type(error).__name__}: {first_line:.100}): {_AGAIN}")


# --- writing --------------------------------------------------------------------------------------------------------


_DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
_ALIGNMENT_BYTES = 8  # the header is padded to it, as the safetensors library does


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """A temporary folder beside ``destination`` that takes its place at the end; an error leaves nothing.

    Raises:
        OutputError: the destination exists, or the disk refuses or is full.
    """
    if destination.exists() or destination.is_symlink():
        raise OutputError(f"{destination}: already exists and is not overwritten: choose another folder or remove it")
    temporary: Path | None = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.partial")
        temporary.mkdir()
        yield temporary
        temporary.rename(destination)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{destination}: cannot be written ({reason}): free some space or choose another"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_safetensors(
    path: Path,
    infos: Mapping[str, TensorInfo],
    tensor_of: Callable[[str], Tensor],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a safetensors file, asking ``tensor_of(key)`` for one tensor at a time.

    The library's own writer wants all tensors in memory at once; a denoising U-Net in another format would
    double its memory. ``infos`` gives what each tensor will be; ``progress`` gets the bytes written so far.

    Raises:
        CheckpointError: a tensor is not what ``infos`` said, or its format has no name in safetensors.
    """
    keys = sorted(infos, key=lambda key: (-infos[key].dtype.itemsize, key))  # the widest first keeps all aligned
    header, end = {}, 0
    for key in keys:
        begin, end = end, end + infos[key].dtype.itemsize * torch.Size(infos[key].shape).numel()
        header[key] = {
            "dtype": _dtype_name(infos[key].dtype, key),
            "shape": list(infos[key].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            file.write(_raw_bytes(tensor_of(key), infos[key], key))
            if progress is not None:
                progress(file.tell())
        file.flush()
        os.fsync(file.fileno())


def write_config(path: Path, config: Mapping[str, object]) -> None:
    """Write a JSON object, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _raw_bytes(tensor: Tensor, info: TensorInfo, key: str) -> Any:
    if tuple(tensor.shape) != info.shape or tensor.dtype != info.dtype:
        raise CheckpointError(f"{key}: changed while it was being written: start again")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()  # a buffer; bytes would be another copy


def _dtype_name(dtype: torch.dtype, key: str) -> str:
    if dtype not in _DTYPE_NAMES:
        raise CheckpointError(f"{key}: dtype {dtype} cannot be stored as safetensors: convert it first")
    return _DTYPE_NAMES[dtype]
