"""Writing weights: one tensor in memory at a time, folders that appear only when whole."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personalive.checkpoints.files import SAFETENSORS_DTYPES, TensorInfo
from personalive.errors import CheckpointError, OutputError

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
        raise CheckpointError(f"{key}: number format {dtype} cannot be stored as safetensors: convert it first")
    return _DTYPE_NAMES[dtype]
