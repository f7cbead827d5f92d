"""Motion files: the motion of a driving performance in one safetensors file, which any portrait can replay.

The file holds the tensors of ``_LAYOUT`` and, as metadata, the other fields of ``MotionClip``. Nothing in it is ever
run, and nothing of it is believed before it was checked. Letters as in state.py; F frames, P keypoints.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor, nn

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_part
from personalive.config import PHOTO
from personalive.engine.base import BaseEngine
from personalive.engine.state import Motion
from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.paths import check_input, check_output, write_whole
from personalive.offline.config import MotionFileConfig
from personalive.runtime.face import load_face_engine
from personalive.runtime.load import AUTO, find_weights
from personalive.vision.keypoints import HeadPose

SUFFIX = ".safetensors"
FORMAT, VERSION = "personalive.motion", "1"
_NAME = "motion file"  # in errors, where there is no file's name
_LIMITS = MotionFileConfig()
_LAYOUT: Mapping[str, tuple[str, str]] = {  # dtype in safetensors' words, axes: one letter or digit each
    "tokens": ("F32", "FTK"),
    "yaw": ("F32", "F"),
    "pitch": ("F32", "F"),
    "roll": ("F32", "F"),
    "t": ("F32", "F3"),
    "scale": ("F32", "F1"),
    "kp": ("F32", "FP3"),
    "time_s": ("F64", "F"),
    "cut": ("U8", "F"),
}
_POSE = ("yaw", "pitch", "roll", "t", "scale", "kp")
_RATIO = re.compile(r"[0-9]{1,12}(/[1-9][0-9]{0,11})?")  # no exponents: they make numbers of any length
_READER = re.compile(r"[0-9a-f]{16}")
# what safetensors raises on damaged files beside its own error
_DAMAGE = (SafetensorError, ValueError, TypeError, LookupError, AssertionError, RuntimeError, OverflowError)


_READERS: WeakKeyDictionary[BaseEngine, str] = WeakKeyDictionary()  # an engine's networks learn nothing any more


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MotionClip:
    """A performance of F frames, at least one: motion before any controls.

    Raises:
        InputError: values that no performance has, or more of them than ``MotionFileConfig`` allows.
    """

    motion: Motion
    times_s: np.ndarray  # (F,) float64 seconds from the start, rising
    cuts: np.ndarray  # (F,) bool: the first frame of a new shot of the driver
    reader: str  # 16 hex digits: the ``motion_networks_digest`` of the model that read it
    fps: Fraction  # typical rate; guides encoders, never the times
    duration_s: float  # when the last frame leaves the screen
    time_base: Fraction = Fraction(1, MediaConfig.default_ticks_per_s)  # seconds per tick: times are multiples of it

    def __post_init__(self) -> None:
        _check_axes({name: tuple(value.shape) for name, value in _tensors(self).items()})
        _check_clock(self)
        if not _READER.fullmatch(self.reader):
            raise InputError("the motion file does not say which model read it")
        for value in (self.motion.tokens, *(getattr(self.motion.poses, name) for name in _POSE)):
            if not bool((value.abs() <= _LIMITS.max_magnitude).all()):  # nor not-a-number
                raise InputError("the motion file holds numbers that no face has")

    def __len__(self) -> int:
        return len(self.motion)

    def part(self, start_s: float | None, end_s: float | None, *, name: str = _NAME) -> MotionClip:
        """The frames from ``start_s`` (included) to ``end_s`` (excluded); times begin at zero again.

        Errors call it ``name``.

        Raises:
            InputError: no frame lies between them.
        """
        if start_s is None and end_s is None:
            return self
        for which, value in (("start", start_s), ("end", end_s)):
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name}: the {which} ({value} s) must be a number of seconds, 0 or more")
        begin, end = start_s or 0.0, self.duration_s if end_s is None else min(end_s, self.duration_s)
        first, last = (int(place) for place in np.searchsorted(self.times_s, (begin, end)))
        if first >= last:
            raise InputError(
                f"{name}: no frame lies between {begin:g} and {end:g} s: it is {self.duration_s:.2f} s long, "
                "choose other times"
            )
        origin_s = float(self.times_s[first])
        return replace(
            self,
            motion=self.motion[first:last],
            times_s=self.times_s[first:last] - origin_s,
            cuts=self.cuts[first:last],
            duration_s=(self.duration_s if last == len(self) else float(self.times_s[last])) - origin_s,
        )

    def ticks(self) -> np.ndarray:
        """(F + 1,) int64 in ``time_base``: when each frame begins, and when the last one ends."""
        base = self.time_base
        return np.rint(np.append(self.times_s, self.duration_s) * base.denominator / base.numerator).astype(np.int64)


def motion_networks_digest(*networks: nn.Module) -> str:
    """16 hex digits that identify the networks that encode motion, the same in every dtype and on every device.

    A digest of names, shapes and signs of all weights: rounding to another format keeps signs, training does not.
    """
    digest = hashlib.sha256()
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            if value.is_floating_point():
                digest.update(f"{name} {tuple(value.shape)}\n".encode())
                digest.update(np.packbits(torch.signbit(value).cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def engine_motion_digest(engine: BaseEngine) -> str:
    """``motion_networks_digest`` of an engine's networks; once per engine, because large ones take seconds."""
    if engine not in _READERS:
        _READERS[engine] = motion_networks_digest(*engine.motion_networks)
    return _READERS[engine]


def weights_motion_digest(weights: str | os.PathLike[str]) -> str:
    """``motion_networks_digest`` of a weights folder, "photo", "tiny" or "auto", which loads no other network.

    Raises:
        CheckpointError: weights are missing or not usable.
    """
    if str(weights) == PHOTO:
        return motion_networks_digest(*load_face_engine().motion_networks)
    folder = CheckpointFolder.open(find_weights() if str(weights) == AUTO else os.fspath(weights))
    return motion_networks_digest(load_part(folder, "motion_encoder"), load_part(folder, "motion_extractor"))


def fit_motion_clip(clip: MotionClip, engine: BaseEngine, name: str = _NAME) -> MotionClip:
    """``clip`` with its motion on the engine's device and in its dtype, ready for ``Engine.step``.

    Raises:
        InputError: another model's networks read it.
    """
    config = engine.config
    wanted = (config.motion_encoder.tokens, config.motion_encoder.token_width, config.motion_extractor.keypoints)
    motion = clip.motion
    if clip.reader != engine_motion_digest(engine) or (*motion.tokens.shape[2:], motion.poses.kp.shape[1]) != wanted:
        raise InputError(
            f"{name}: was read by another model ({clip.reader}, this one is {engine_motion_digest(engine)}): "
            "record the performance again with this model, or choose that one with --weights"
        )
    placed = Motion(motion.tokens.to(engine.device, engine.dtype), motion.poses.to(engine.device))
    return replace(clip, motion=placed)


# --- bytes and files ----------------------------------------------------------------------------------------


def motion_file_bytes(clip: MotionClip) -> bytes:
    """The file's content; the same motion read back is equal bit for bit, whatever format it was read in."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "reader": clip.reader,
        "fps": str(clip.fps),
        "time_base": str(clip.time_base),
        "duration": repr(clip.duration_s),
    }
    tensors = {name: value.cpu().contiguous() for name, value in _tensors(clip).items()}
    return pack_tensors(tensors, metadata)


def motion_clip_from_bytes(data: bytes, engine: BaseEngine | None = None, *, name: str = _NAME) -> MotionClip:
    """The clip in ``data``, checked whole.

    Args:
        data: the content of a file.
        engine: the model that is to replay it: checked to fit, and the motion put where it wants it. None leaves
            the motion on the CPU in float32 and checks no model.
        name: what errors call it.

    Raises:
        InputError: too large, damaged, not a motion file, of a newer version, or read by another model.
    """
    if len(data) > _LIMITS.max_bytes:
        raise InputError(
            f"{name}: is larger than {_LIMITS.max_bytes // 1_000_000} MB, the limit for motion files: "
            "record a shorter part"
        )
    metadata = _checked_metadata(_parsed_header(data), name)
    try:
        clip = _parse_clip(parse_tensors(data), metadata)
    except InputError as error:
        raise InputError(f"{name}: {error}: record it again") from None
    except _DAMAGE as error:
        raise InputError(f"{name}: is damaged or cut off: copy it again or record it again") from error
    return clip if engine is None else fit_motion_clip(clip, engine, name)


def save_motion_file(
    path: str | os.PathLike[str], clip: MotionClip, inputs: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """Write ``clip`` to ``path``, which ends in .safetensors and appears when it is whole.

    Args:
        path: an existing file is replaced, but none of ``inputs``.
        clip: what to write.
        inputs: files that must survive.

    Raises:
        OutputError: it cannot be written there.
    """
    target = check_output(path, inputs, suffix=SUFFIX)
    write_whole(target, motion_file_bytes(clip))
    return target


def load_motion_file(path: str | os.PathLike[str], engine: BaseEngine | None = None) -> MotionClip:
    """``motion_clip_from_bytes`` of a file.

    Raises:
        InputError: it cannot be read, or as ``motion_clip_from_bytes``.
    """
    file = check_input(path)
    with file.open("rb") as opened:
        data = opened.read(_LIMITS.max_bytes + 1)
    return motion_clip_from_bytes(data, engine, name=str(path))


def is_motion_file(path: str | os.PathLike[str]) -> bool:
    """Tell by content or name whether a file is a motion file. Reads its header only.

    Raises:
        InputError: there is no such file, or it may not be read.
    """
    file = check_input(path)
    if file.suffix.lower() == SUFFIX:
        return True
    with file.open("rb") as opened:
        header = _parsed_header(opened.read(8 + _LIMITS.max_header_bytes))
    return _metadata_of(header).get("format") == FORMAT


# --- checks -------------------------------------------------------------------------------------------------


def _parsed_header(data: bytes) -> dict[str, Any] | None:
    """The JSON object that begins a safetensors file, or None."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(len(data) - 8, _LIMITS.max_header_bytes):
        return None
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _metadata_of(header: dict[str, Any] | None) -> dict[str, Any]:
    found = (header or {}).get("__metadata__")
    return found if isinstance(found, dict) else {}


def _checked_metadata(header: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """Metadata of the header, whose tensors have the right names and dtypes."""
    metadata = _metadata_of(header)
    if header is None or metadata.get("format") != FORMAT:
        raise InputError(f"{name}: is not a motion file: make one with `personalive motion record`")
    if metadata.get("version") != VERSION:
        raise InputError(f"{name}: is a motion file of another version: update personalive or record it again")
    tensors = {key: entry for key, entry in header.items() if key != "__metadata__"}
    found = {key: entry.get("dtype") if isinstance(entry, dict) else None for key, entry in tensors.items()}
    if found != {key: dtype for key, (dtype, _) in _LAYOUT.items()}:
        raise InputError(f"{name}: does not hold what a motion file holds: record it again")
    return metadata


def _parse_clip(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> MotionClip:
    _check_axes({key: tuple(value.shape) for key, value in tensors.items()})
    poses = HeadPose(**{name: tensors[name] for name in _POSE})
    return MotionClip(
        motion=Motion(tensors["tokens"][None], poses),
        times_s=tensors["time_s"].numpy(),
        cuts=tensors["cut"].numpy() != 0,
        reader=str(metadata.get("reader")),
        fps=_ratio(metadata.get("fps")),
        duration_s=float(metadata["duration"]),
        time_base=_ratio(metadata.get("time_base")),
    )


def _tensors(clip: MotionClip) -> dict[str, Tensor]:
    """Tensors of the file, by the names of ``_LAYOUT``."""
    poses = {name: getattr(clip.motion.poses, name).float() for name in _POSE}
    return {
        "tokens": clip.motion.tokens[0].float(),
        **poses,
        "time_s": torch.from_numpy(np.array(clip.times_s, np.float64)),
        "cut": torch.from_numpy(np.array(clip.cuts, np.uint8)),
    }


def _ratio(text: Any) -> Fraction:
    if not isinstance(text, str) or not _RATIO.fullmatch(text):
        raise InputError("the motion file does not say how its time is counted")
    return Fraction(text)


def _check_axes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Equal letters of ``_LAYOUT`` are equal sizes, within the limits."""
    sizes: dict[str, int] = {}
    for name, (_, axes) in _LAYOUT.items():
        wanted = [int(a) if a.isdigit() else sizes.setdefault(a, s) for a, s in zip(axes, shapes[name], strict=False)]
        if len(shapes[name]) != len(axes) or list(shapes[name]) != wanted:
            raise InputError(f"in the motion file {name} has the shape {shapes[name]}, not ({', '.join(axes)})")
    if not 0 < sizes["F"] <= _LIMITS.max_frames:
        raise InputError(f"the motion file holds {sizes['F']} frames, not 1 to {_LIMITS.max_frames}")


def _check_clock(clip: MotionClip) -> None:
    """Times rise, also when counted in ticks, and end."""
    base, times = clip.time_base, clip.times_s
    sane = (
        0 < base <= 1
        and base.denominator <= _LIMITS.max_clock_hz
        and 0 < clip.fps <= MediaConfig.max_plausible_fps
        and 0 < clip.duration_s <= _LIMITS.max_seconds
        and bool(((times >= 0) & (times <= _LIMITS.max_seconds)).all())  # nor not-a-number
    )
    if not sane:
        raise InputError("the motion file's times cannot be")
    if not (np.diff(clip.ticks()) > 0).all():
        raise InputError("the motion file's times do not rise")
