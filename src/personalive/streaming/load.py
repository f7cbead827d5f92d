"""From names to an engine: which weights, which device, which number format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from personalive.checkpoints.decoder import load_decoder
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import LoadProgress, count_values, load_networks
from personalive.config import WEIGHTS_ENV, default_weights_folder
from personalive.errors import CheckpointError, DeviceError
from personalive.streaming.engine import Engine
from personalive.streaming.memory import choose_preset, lay_to_rest, shortage, ways_out

AUTO = "auto"
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load_engine(
    weights: str | os.PathLike[str] = AUTO,
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    vram: str | int = AUTO,
    decoder: str | os.PathLike[str] | None = None,
    progress: LoadProgress | None = None,
) -> Engine:
    """Load a model and make the engine that runs it.

    Args:
        weights: a folder in the released layout, ``"tiny"`` for the bundled model, or ``"auto"`` (see
            ``find_weights``).
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ..., or ``"auto"`` for the best one there is.
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"auto"`` (see ``choose_dtype``).
        vram: GB of the device to be content with, 8, 12 or 16, or ``"auto"`` (see ``choose_preset``).
        decoder: a small decoder in the place of the VAE's, a folder or "taesd" (see ``load_decoder``).
        progress: called after every tensor with the bytes read and the bytes in all.

    Raises:
        CheckpointError: weights or decoder are missing or not usable.
        DeviceError: the device, the number format or the preset is not available, or memory is not enough.
    """
    folder = CheckpointFolder.open(find_weights() if str(weights) == AUTO else os.fspath(weights))
    chosen = choose_device(device)
    number = choose_dtype(dtype, chosen)
    memory = choose_preset(str(vram), chosen, lambda: number.itemsize * count_values(folder))
    with shortage(chosen, ways_out(memory, chosen, number, folder.name)):
        networks = load_networks(
            folder,
            device=chosen,
            dtype=number,
            progress=progress,
            settle=partial(lay_to_rest, folder.config, memory),
        )
        if decoder is not None:
            small = load_decoder(os.fspath(decoder), folder, device=chosen, dtype=number)
            networks = replace(networks, small_decoder=small)
    return Engine(networks, memory=memory, name=folder.name, folder=folder.root)


def find_weights() -> Path:
    """The released weights: the folder in ``PERSONALIVE_WEIGHTS``, else where ``weights download`` puts them.

    Raises:
        CheckpointError: neither is there.
    """
    named = os.environ.get(WEIGHTS_ENV)
    if named:
        return Path(named)
    folder = default_weights_folder()
    if folder.is_dir():
        return folder
    raise CheckpointError(
        "no released weights here: run `personalive weights download` (12 GB) for real people, see the bundled "
        "model with `personalive animate --demo`, or force it on your own pictures with --weights tiny"
    )


def choose_device(name: str) -> torch.device:
    """The named device, or for ``"auto"`` CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: no such device here.
    """
    if name == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"device {name!r} is not available here: use --device cpu, or see `personalive doctor`"
        ) from error
    if device.type == "meta":
        raise DeviceError("device 'meta' computes nothing: use --device cpu, or see `personalive doctor`")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named number format, or for ``"auto"``: float16 on CUDA and MPS, bfloat16 on a CPU that computes in it.

    Raises:
        DeviceError: a name that is not known.
    """
    if name == AUTO:
        if device.type in ("cuda", "mps"):
            return torch.float16
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"dtype {name!r} is not known: use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _cpu_has_bfloat16() -> bool:
    """Whether bfloat16 is arithmetic here and not emulation, which would be far slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return capabilities == "AVX512" and has is not None and bool(has())
