"""From names to an engine: which weights, which device, which number format, which backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import torch

from personalive.checkpoints.decoder import decoder_identity, load_decoder
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import LoadProgress, count_values, load_networks
from personalive.checkpoints.programs import ProgramStore
from personalive.config import BACKEND_ENV, WEIGHTS_ENV, BackendConfig, MemoryPreset, default_weights_folder
from personalive.errors import CheckpointError, DeviceError
from personalive.models.bundle import Networks
from personalive.models.quantized import FP8, KINDS, quantize_transformers
from personalive.streaming.backends.choose import candidates, choice_key, choose
from personalive.streaming.backends.open import (
    COMPILE,
    EAGER,
    Preparing,
    fitting_precision,
    has_engines,
    network_dtype,
    open_backend,
    why_not,
)
from personalive.streaming.engine import Engine
from personalive.streaming.memory import choose_preset, lay_to_rest, shortage, ways_out

AUTO, NONE = "auto", "none"
QUANTIZING = (EAGER, COMPILE)  # backends that run narrowed layers
_FP8_CAPABILITY = (8, 9)  # of CUDA devices: Ada and later
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class EngineOptions(TypedDict, total=False):
    """What ``load_engine`` takes by name, for those who pass it on."""

    device: str
    dtype: str
    vram: str
    backend: str
    decoder: str | None
    quantize: str


def load_engine(
    weights: str | os.PathLike[str] = AUTO,
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    vram: str | int = AUTO,
    backend: str = AUTO,
    decoder: str | os.PathLike[str] | None = None,
    quantize: str = NONE,
    frames: int | None = None,
    progress: LoadProgress | None = None,
    preparing: Preparing | None = None,
) -> Engine:
    """Load a model and make the engine that runs it.

    Args:
        weights: a folder in the released layout, ``"tiny"`` for the bundled model, or ``"auto"`` (see
            ``find_weights``).
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ..., or ``"auto"`` for the best one there is.
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"auto"`` (see ``choose_dtype``).
        vram: GB of the device to be content with, 8, 12 or 16, or ``"auto"`` (see ``choose_preset``).
        backend: what runs the networks: ``"eager"``, ``"compile"``, ``"openvino"``, ``"onnxruntime"``,
            ``"tensorrt"``, or ``"auto"``: what ``PERSONALIVE_BACKEND`` names, else the fastest by a measurement that
            is made once.
        frames: how many will be made, where that is known: for a few, "auto" prepares nothing.
        decoder: a small decoder in the place of the VAE's, a folder or "taesd" (see ``load_decoder``).
        quantize: ``"int8"`` or ``"fp8"`` for the products of the denoiser's linear layers, else ``"none"``.
        progress: called after every tensor with the bytes read and the bytes in all.
        preparing: called with a backend's name and the share done while its programs are made, once a model.

    Raises:
        CheckpointError: weights or decoder are missing or not usable.
        DeviceError: the device, number format, preset or backend is not available, or memory is not enough.
        OutputError: prepared programs cannot be kept.
    """
    folder = CheckpointFolder.open(find_weights() if str(weights) == AUTO else os.fspath(weights))
    chosen = choose_device(device)
    number = choose_dtype(dtype, chosen)
    opening = _Opening(
        folder=folder,
        device=chosen,
        precision=number,
        any_precision=dtype == AUTO,
        memory=choose_preset(str(vram), chosen, lambda: number.itemsize * count_values(folder)),
        decoder=None if decoder is None else os.fspath(decoder),
        quantize=_check_quantize(quantize, chosen),
        progress=progress,
        preparing=preparing,
    )
    wanted = os.environ.get(BACKEND_ENV) or AUTO if backend == AUTO else backend
    return opening.fastest(frames) if wanted == AUTO else opening.by(wanted)


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """All but the backend of an engine is decided."""

    folder: CheckpointFolder
    device: torch.device
    precision: torch.dtype
    any_precision: bool  # nobody asked for this one
    memory: MemoryPreset
    decoder: str | None
    quantize: str
    progress: LoadProgress | None
    preparing: Preparing | None
    read: dict[torch.dtype, tuple[Networks, str]] = field(default_factory=dict)

    def by(self, backend: str) -> Engine:
        """The engine with this backend."""
        precision = self.precision
        if self.any_precision:
            precision = fitting_precision(backend, self.device, precision)
        if self.quantize != NONE and backend not in QUANTIZING:
            raise DeviceError(f"--quantize {self.quantize}: needs --backend {' or '.join(QUANTIZING)}, not {backend}")
        if (reason := why_not(backend, self.device, precision)) is not None:
            raise DeviceError(f"backend {backend}: {reason}")
        with shortage(self.device, ways_out(self.memory, self.device, precision, self.folder.name)):
            networks, identity = self._networks(network_dtype(backend, precision))
            runs = open_backend(
                backend,
                networks,
                precision=precision,
                identity=identity,
                preparing=self.preparing,
                decode_beside=self.memory.decode_beside,
            )
        return Engine(networks, backend=runs, memory=self.memory, name=self.folder.name, folder=self.folder.root)

    def _networks(self, dtype: torch.dtype) -> tuple[Networks, str]:
        """Read once for all backends that take this number format; and what identifies their weights."""
        if dtype not in self.read:
            networks = load_networks(
                self.folder,
                device=self.device,
                dtype=dtype,
                progress=self.progress,
                settle=partial(lay_to_rest, self.folder.config, self.memory),
            )
            identity = self.folder.identity()
            if self.decoder is not None:
                small = load_decoder(self.decoder, self.folder, device=self.device, dtype=dtype)
                networks, identity = replace(networks, small_decoder=small), identity + decoder_identity(small)
            if self.quantize != NONE:
                quantize_transformers(networks.denoising_unet, self.quantize)
                networks, identity = replace(networks, quantized=self.quantize), identity + self.quantize
            self.read[dtype] = networks, identity
        return self.read[dtype]

    def fastest(self, frames: int | None) -> Engine:
        """The engine with the backend that was or is measured as the fastest."""
        config, store = BackendConfig(), ProgramStore()
        large = count_values(self.folder) > config.max_values_on_cpu and self.device.type == "cpu"
        identity = f"{self.folder.identity()}{self.decoder or ''}{self.quantize}"
        built = self.decoder is None and has_engines(self.folder.identity(), self.precision, self.device, store)
        names = [EAGER] if large else candidates(self.device, self.precision, built=built)
        if self.quantize != NONE:
            names = [name for name in names if name in QUANTIZING]
        if len(names) == 1:
            return self.by(EAGER)
        key = choice_key(names, self.device, self.precision, identity)
        known = (store.recall(key) or {}).get("backend")
        if known in names:
            return self.by(known)
        if frames is not None and frames < config.prepare_from_frames:
            return self.by(EAGER)
        return choose({name: partial(self.by, name) for name in names}, store, key, config)[0]


def _check_quantize(kind: str, device: torch.device) -> str:
    if kind not in (NONE, *KINDS):
        raise DeviceError(f"quantize {kind!r} is not known: use {NONE}, {', '.join(KINDS)}")
    if kind != NONE and device.type not in ("cpu", "cuda"):
        raise DeviceError(f"--quantize {kind}: is made for CPUs and NVIDIA devices, not for {device.type}")
    if kind == FP8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < _FP8_CAPABILITY:
        raise DeviceError("--quantize fp8: this GPU does not multiply in it: use --quantize int8")
    return kind


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
