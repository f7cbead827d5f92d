"""Data of the training stages: a set prepared from videos, or synthetic heads; both by the same two methods.

Letters: F frames, S image side, E expression values. Images are uint8 RGB. Masks are bool: face, eyes, mouth.
All chance comes from the generator that is passed in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from personalive.errors import InputError
from personalive.training.data.prepare.boxes import box_masks
from personalive.training.data.prepare.clip_file import SIZES, clip_files, read_image, read_tensors
from personalive.training.data.prepare.folder import FORMAT, INDEX_FILE, SETTINGS_FILE, VERSION

CLIP_FRAMES, CLIP_STRIDE = 40, 4  # of a stage-3 sample (paper)
PAIR_GAP_FRAMES = 30  # least distance of reference and driver in clips of more than PAIR_FAR_FRAMES (paper)
PAIR_FAR_FRAMES = 64
HELD_OUT_EVERY = 10  # videos of a prepared set, the first one included


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """Motion of one image, as only rendered heads have it."""

    keypoints: np.ndarray  # (21, 3) float32, canonical
    pose: np.ndarray  # (6,) float32: yaw, pitch and roll in degrees, scale, shift in x and y
    expression: np.ndarray  # (E,) float32


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A portrait, a driver, and what should come out. Stages 1 and 2.

    ``reference``, ``driving`` and ``target`` are (S, S, 3); ``masks`` (3, S, S) is of the target. In recordings
    the target is the driving frame itself. ``name`` says where they come from.
    """

    reference: np.ndarray
    driving: np.ndarray
    target: np.ndarray
    masks: np.ndarray
    name: str
    truth: tuple[GroundTruth, GroundTruth] | None = None  # of reference and target; the driver moves as the target


class Clip(Pair):
    """The same over time, in order. Stage 3. ``driving`` and ``target`` (F, S, S, 3), ``masks`` (F, 3, S, S)."""


class TrainingSet(Protocol):
    """Anything that training can draw from."""

    size_px: int  # S

    def pair(self, rng: np.random.Generator) -> Pair:
        """Two frames of one person, far apart where there is room."""
        ...

    def clip(self, rng: np.random.Generator, frames: int = CLIP_FRAMES, stride: int = CLIP_STRIDE) -> Clip:
        """``frames`` frames, every ``stride``-th, of one person, and a reference from anywhere among them all."""
        ...


def draw_pair(rng: np.random.Generator, frames: int) -> tuple[int, int]:
    """Reference and driving frame out of ``frames`` (at least 2): two different ones, uniform over all allowed.

    At least ``PAIR_GAP_FRAMES`` apart when there are more than ``PAIR_FAR_FRAMES``.
    """
    gap = PAIR_GAP_FRAMES if frames > PAIR_FAR_FRAMES else 1
    places = frames - gap  # of the earlier frame
    later = np.arange(places, 0, -1)  # how many frames may follow each
    first = int(rng.choice(places, p=later / later.sum()))
    second = first + gap + int(rng.integers(later[first]))
    return (first, second) if rng.random() < 0.5 else (second, first)


def draw_clip(rng: np.random.Generator, length: int, frames: int, stride: int) -> tuple[np.ndarray, int]:
    """``frames`` numbers, ``stride`` apart, out of ``length`` consecutive ones, and a reference from all of them."""
    start = int(rng.integers(length - span(frames, stride) + 1))
    return start + stride * np.arange(frames), int(rng.integers(length))


def span(frames: int, stride: int) -> int:
    """Number of consecutive frames that hold ``frames`` of them, ``stride`` apart.

    Raises:
        InputError: a number below 1.
    """
    if frames < 1 or stride < 1:
        raise InputError(f"clip of {frames} frames, stride {stride}: give numbers from 1 up")
    return (frames - 1) * stride + 1


class PreparedSet:
    """The set that `personalive data prepare` wrote. Opening it reads the index; images are read when drawn.

    A video is drawn first, every one as likely as another, then a clip of it in proportion to its frames, so that
    long videos do not drown the others. Nothing is kept open: copies in several processes do not disturb each other.

    Attributes:
        size_px: S.
        clips: the index's entries.
    """

    def __init__(self, folder: str | Path, *, held_out: bool | None = None) -> None:
        """Read and check the index.

        Args:
            held_out: True leaves the first and then every tenth video for scores, False the others for training,
                None everything. One video alone is divided by clips; one clip alone is both parts.

        Raises:
            InputError: no set there, unfinished, of another version, empty, or with files missing or cut off.
        """
        self._folder = Path(folder)
        header, self.clips = _read_index(self._folder)
        self.size_px: int = header["settings"]["size_px"]
        for clip in self.clips:
            _check_files(self._folder, clip)
        if held_out is not None and len(self.clips) > 1:
            unit = "video" if len({clip["video"] for clip in self.clips}) > 1 else "clip"
            scored = set(list(dict.fromkeys(clip[unit] for clip in self.clips))[::HELD_OUT_EVERY])
            self.clips = [clip for clip in self.clips if (clip[unit] in scored) == held_out]
        self._tensors: dict[str, dict[str, np.ndarray]] = {}

    def pair(self, rng: np.random.Generator) -> Pair:
        """See ``TrainingSet.pair``.

        Raises:
            InputError: no clip has two frames, or a file was damaged since the set was opened.
        """
        clip = self._draw(rng, least=2)
        reference, driving = draw_pair(rng, clip["frames"])
        image = self._image(clip, driving)
        return Pair(self._image(clip, reference), image, image, self._masks(clip, driving), clip["clip"])

    def clip(self, rng: np.random.Generator, frames: int = CLIP_FRAMES, stride: int = CLIP_STRIDE) -> Clip:
        """See ``TrainingSet.clip``; only clips long enough are drawn from.

        Raises:
            InputError: none is, or a file was damaged since the set was opened.
        """
        clip = self._draw(rng, least=span(frames, stride))
        numbers, reference = draw_clip(rng, clip["frames"], frames, stride)
        images = np.stack([self._image(clip, int(number)) for number in numbers])
        return Clip(self._image(clip, reference), images, images, self._masks(clip, numbers), clip["clip"])

    def _draw(self, rng: np.random.Generator, least: int) -> dict[str, Any]:
        fit: dict[str, list[dict[str, Any]]] = {}  # by video
        for clip in self.clips:
            if clip["frames"] >= least:
                fit.setdefault(clip["video"], []).append(clip)
        if not fit:
            longest = max(clip["frames"] for clip in self.clips)
            raise InputError(
                f"{self._folder}: no clip has {least} frames, the longest has {longest}: ask for fewer frames or a "
                "smaller stride, or prepare longer videos"
            )
        clips = list(fit.values())[int(rng.integers(len(fit)))]
        frames = np.array([clip["frames"] for clip in clips], np.float64)
        return clips[int(rng.choice(len(clips), p=frames / frames.sum()))]

    def _content(self, clip: dict[str, Any]) -> dict[str, np.ndarray]:
        name = clip["clip"]
        if name not in self._tensors:
            self._tensors[name] = read_tensors(clip_files(self._folder, name)[1], clip["frames"])
        return self._tensors[name]

    def _image(self, clip: dict[str, Any], number: int) -> np.ndarray:
        return read_image(clip_files(self._folder, clip["clip"])[0], self._content(clip)["spans"][number])

    def _masks(self, clip: dict[str, Any], number: int | np.ndarray) -> np.ndarray:
        return box_masks(self._content(clip)["boxes"][number], self.size_px)


def _again(folder: Path) -> str:
    return f"run `personalive data prepare VIDEOS {folder}` again"


def _check_files(folder: Path, clip: dict[str, Any]) -> None:
    for path, size in zip(clip_files(folder, clip["clip"]), SIZES, strict=True):
        if not path.is_file():
            raise InputError(f"{path}: is missing; {_again(folder)}")
        if (found := path.stat().st_size) != clip[size]:
            raise InputError(f"{path}: has {found} bytes instead of {clip[size]}; {_again(folder)}")


def _read_index(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / INDEX_FILE
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        header = json.loads(first)
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise InputError(
                f"{path}: is of version {header['version']}, this program reads {VERSION}: prepare it anew"
            )
        clips = [json.loads(line) for line in lines]
        whole = len(clips) == header["clips"] and all(_entry_is_whole(clip) for clip in clips)
        whole = whole and isinstance(header["settings"]["size_px"], int)
    except FileNotFoundError:
        begun = (folder / SETTINGS_FILE).exists()
        what = "is not finished" if begun else "holds no training set"
        raise InputError(f"{folder}: {what}; {_again(folder)}") from None
    except (OSError, ValueError, KeyError, TypeError):
        whole, header, clips = False, {}, []
    if not whole:
        raise InputError(f"{path}: is damaged or cut off; {_again(folder)}")
    if not clips:
        raise InputError(f"{folder}: holds no clip; see report.md there, and prepare other videos")
    return header, clips


def _entry_is_whole(clip: Any) -> bool:
    return (
        all(isinstance(clip[name], int) for name in ("frames", *SIZES))
        and all(isinstance(clip[name], str) for name in ("clip", "video"))
        and Path(clip["clip"]).name == clip["clip"]  # never a path out of the set
        and clip["frames"] > 0
    )
