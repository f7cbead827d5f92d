"""From names to an engine: weights, device, dtype, memory preset, backend."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from personalive.checkpoints.decoder import decoder_identity, load_decoder
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import LoadProgress, count_values, load_networks
from personalive.config import (
    FP16_SUMS_ENV,
    OWN_DECODER,
    PHOTO,
    WEIGHTS_ENV,
    MemoryPreset,
    default_weights_folder,
)
from personalive.device import cpu_only_build_hint
from personalive.engine.base import BaseEngine
from personalive.engine.directions import Directions, TokenEncoder
from personalive.engine.engine import Engine
from personalive.errors import CheckpointError, DeviceError
from personalive.models.networks import Networks
from personalive.runtime.autotune import AutotuneConfig, candidates, choice_key, choose
from personalive.runtime.cache import ProgramCache
from personalive.runtime.face import load_face_engine
from personalive.runtime.memory import choose_preset, memory_hints, offload, oom_errors
from personalive.runtime.registry import (
    AUTO,
    EAGER,
    PrepareProgress,
    default_precision,
    named_backend,
    network_dtype,
    open_backend,
    unavailable,
)

_LOG = logging.getLogger(__name__)
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class EngineOptions(TypedDict, total=False):
    """Keyword arguments of ``load_engine``, for those who pass them on."""

    device: str
    dtype: str
    vram: str | int
    backend: str
    decoder: str | os.PathLike[str] | None


def load_engine(
    weights: str | os.PathLike[str] = AUTO,
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    vram: str | int = AUTO,
    backend: str = AUTO,
    decoder: str | os.PathLike[str] | None = None,
    frames: int | None = None,
    progress: LoadProgress | None = None,
    preparing: PrepareProgress | None = None,
) -> BaseEngine:
    """Load a model and make the engine that runs it.

    Args:
        weights: a folder in the released layout, ``"photo"`` for the bundled model of photographs, ``"tiny"`` for
            the bundled one of synthetic heads, or ``"auto"``: the released weights (see ``find_weights``), and where
            there are none "photo", which needs no GPU and takes of the other arguments ``backend`` alone (see
            ``load_face_engine``).
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ..., or ``"auto"`` for the best one there is.
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"auto"`` (see ``choose_dtype``).
        vram: GPU memory budget in GB, 8, 12 or 16, or ``"auto"`` (see ``choose_preset``).
        backend: what runs the networks: ``"eager"``, ``"compile"``, ``"openvino"``, ``"onnxruntime"``,
            ``"tensorrt"``, or ``"auto"``: what ``PERSONALIVE_BACKEND`` names, else on a CPU the fastest by a
            measurement that is made once, and elsewhere eager.
        decoder: a small decoder in the place of the VAE's, a folder or "taesd" (see ``load_decoder``);
            None or "own": the VAE's.
        frames: how many will be made, where that is known: for a few, "auto" prepares nothing.
        progress: called after every tensor with the bytes read and the bytes in all.
        preparing: called with a backend's name and the share done while its programs are made, once a model.

    Raises:
        CheckpointError: weights or decoder are missing or not usable.
        DeviceError: the device, dtype, preset or backend is not available, or memory is not enough.
        OutputError: prepared programs cannot be kept.
    """
    name = weights_name(weights)
    if name == PHOTO:
        choose_dtype(dtype, choose_device(device))  # refuses what is not there
        return load_face_engine(backend=backend, preparing=preparing)
    return load_diffusion_engine(
        name,
        device=device,
        dtype=dtype,
        vram=vram,
        backend=backend,
        decoder=decoder,
        frames=frames,
        progress=progress,
        preparing=preparing,
    )


def load_diffusion_engine(
    weights: str | os.PathLike[str] = AUTO,
    *,
    frames: int | None = None,
    progress: LoadProgress | None = None,
    preparing: PrepareProgress | None = None,
    **options: Unpack[EngineOptions],
) -> Engine:
    """As ``load_engine``, of a model with diffusion networks: "auto" is the released weights alone.

    Raises:
        CheckpointError: "photo", which has none.
    """
    if str(weights) == PHOTO:
        raise CheckpointError(f"{PHOTO}: has no diffusion networks: use the released weights, or --weights tiny")
    wanted = named_backend(options.pop("backend", AUTO))
    loader = _loader(find_weights() if str(weights) == AUTO else weights, progress, preparing, **options)
    return loader.fastest(frames) if wanted == AUTO else loader.open(wanted)


def load_engine_at_once(
    weights: str | os.PathLike[str] = AUTO,
    *,
    progress: LoadProgress | None = None,
    preparing: PrepareProgress | None = None,
    **options: Unpack[EngineOptions],
) -> tuple[BaseEngine, Callable[[], BaseEngine] | None]:
    """As ``load_engine``, without a wait for programs that "auto" would have to make first.

    Returns:
        An engine that runs now, and what prepares and measures the other backends and gives the fastest: for any
        thread; None where there is nothing to prepare.
    """
    name = weights_name(weights)
    if name == PHOTO or named_backend(options.get("backend", AUTO)) != AUTO:
        return load_engine(name, progress=progress, preparing=preparing, **options), None
    loader = _loader(name, progress, preparing, **options)
    if loader.prepared:
        return loader.fastest(None), None
    return loader.open(EAGER), partial(loader.fastest, None)


def _loader(
    weights: str | os.PathLike[str],
    progress: LoadProgress | None,
    preparing: PrepareProgress | None,
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    vram: str | int = AUTO,
    backend: str = AUTO,
    decoder: str | os.PathLike[str] | None = None,
) -> _Loader:
    """Decide all but the backend."""
    folder = CheckpointFolder.open(os.fspath(weights))
    chosen = choose_device(device)
    precision = choose_dtype(dtype, chosen)
    return _Loader(
        folder=folder,
        device=chosen,
        precision=precision,
        any_precision=dtype == AUTO,
        memory=choose_preset(str(vram), chosen, lambda: precision.itemsize * count_values(folder)),
        decoder=None if decoder in (None, OWN_DECODER) else os.fspath(decoder),
        progress=progress,
        preparing=preparing,
    )


@dataclass(frozen=True, kw_only=True)
class _Loader:
    """All but the backend of an engine is decided."""

    folder: CheckpointFolder
    device: torch.device
    precision: torch.dtype
    any_precision: bool  # the user chose none
    memory: MemoryPreset
    decoder: str | None
    progress: LoadProgress | None
    preparing: PrepareProgress | None
    loaded: dict[torch.dtype, tuple[Networks, str]] = field(default_factory=dict)
    threads: int = field(default_factory=torch.get_num_threads)  # of programs; torch itself may be given fewer later

    def open(self, backend: str) -> Engine:
        """The engine with this backend."""
        precision = self.precision
        if self.any_precision:
            precision = default_precision(backend, self.device, precision)
        if (reason := unavailable(backend, self.device, precision)) is not None:
            raise DeviceError(f"backend {backend}: {reason}")
        set_fp16_sums(self.device)
        with oom_errors(self.device, memory_hints(self.memory, self.device, precision, self.folder.name)):
            networks, identity = self._networks(network_dtype(backend, precision))
            opened = open_backend(
                backend,
                networks,
                precision=precision,
                identity=identity,
                decode_frames=self.memory.decode_frames,
                threads=self.threads,
                on_prepare=self.preparing,
            )
        return Engine(
            networks,
            backend=opened,
            memory=self.memory,
            name=self.folder.name,
            folder=self.folder.root,
            find_directions=_find_directions,
        )

    @property
    def prepared(self) -> bool:
        """True where "auto" has nothing to prepare: there is one backend, or the choice was made earlier."""
        names = self._candidates()
        return len(names) == 1 or ProgramCache().get(self._choice_key(names)) is not None

    def _candidates(self) -> list[str]:
        if count_values(self.folder) > AutotuneConfig.max_values:
            return [EAGER]
        return candidates(self.device, self.precision)

    def _choice_key(self, names: list[str]) -> str:
        identity = f"{self.folder.identity()}{self.decoder or ''}"
        return choice_key(names, self.device, self.precision, identity, self.threads)

    def fastest(self, frames: int | None) -> Engine:
        """The engine with the backend that was or is measured as the fastest."""
        config, cache, names = AutotuneConfig(), ProgramCache(), self._candidates()
        if len(names) == 1:
            return self.open(EAGER)
        key = self._choice_key(names)
        if frames is not None and frames < config.prepare_from_frames and cache.get(key) is None:
            return self.open(EAGER)
        return choose({name: partial(self.open, name) for name in names}, cache, key, config)[0]

    def _networks(self, dtype: torch.dtype) -> tuple[Networks, str]:
        """Networks, loaded once for all backends that take this dtype, and what identifies their weights."""
        if dtype not in self.loaded:
            networks = load_networks(
                self.folder,
                device=self.device,
                dtype=dtype,
                progress=self.progress,
                settle=partial(offload, self.folder.config, self.memory),
            )
            identity = self.folder.identity()
            if self.decoder is not None:
                small = load_decoder(self.decoder, self.folder, device=self.device, dtype=dtype)
                networks, identity = replace(networks, small_decoder=small), identity + decoder_identity(small)
            self.loaded[dtype] = networks, identity
        return self.loaded[dtype]


def _find_directions(encode: TokenEncoder, size_px: int) -> Directions:
    """Directions measured on synthetic heads; their renderer is imported only when they are wanted."""
    from personalive.runtime.directions import find_directions  # noqa: PLC0415 (numba, a second)

    return find_directions(encode, size_px)


def weights_name(weights: str | os.PathLike[str] = AUTO) -> str:
    """Name of the model that ``load_engine`` loads: of "auto" the released weights' folder, else "photo"."""
    if str(weights) != AUTO:
        return os.fspath(weights)
    try:
        return str(find_weights())
    except CheckpointError:
        _LOG.warning(
            "no released weights here: the bundled model for photographs is used; it moves a portrait by geometry, "
            "`personalive weights download` (12 GB) and a GPU make it act"
        )
        return PHOTO


def set_fp16_sums(device: torch.device) -> None:
    """Let CUDA sum products of float16 in float16 where ``PERSONALIVE_FP16_SUMS`` is 1: quicker on GeForce cards.

    Raises:
        DeviceError: this PyTorch has no such setting.
    """
    if device.type != "cuda" or os.environ.get(FP16_SUMS_ENV) != "1":
        return
    try:
        torch.backends.cuda.matmul.allow_fp16_accumulation = True
    except AttributeError as error:
        raise DeviceError(f"{FP16_SUMS_ENV}=1 needs PyTorch 2.7 or newer: update it, or leave that out") from error


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
        "model with `personalive animate --demo`, or force it on your own images with --weights tiny"
    )


def choose_device(name: str) -> torch.device:
    """The named device, or for ``"auto"`` CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: no such device here.
    """
    if name == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if (hint := cpu_only_build_hint()) is not None:
            _LOG.warning(hint)
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
    """The named dtype, or for ``"auto"``: float16 on CUDA and MPS, bfloat16 on a CPU with AMX, else float32.

    On the one measured that has bfloat16 in AVX-512 alone, products in it took twice as long as in float32
    (docs/performance.md).

    Raises:
        DeviceError: a name that is not known.
    """
    if name == AUTO:
        if device.type in ("cuda", "mps"):
            return torch.float16
        return torch.bfloat16 if _cpu_has_amx() else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"dtype {name!r} is not known: use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _cpu_has_amx() -> bool:
    has = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return has is not None and bool(has())
