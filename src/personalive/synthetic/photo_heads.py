"""Sets of heads made from photographs: whose head and which performance a seed is (ours).

A set's folder holds ``heads.json`` (format, names), ``images/NNNN.jpg`` (square, the head where a rendered one is),
``heads.npz`` (landmarks in pixels of those images, person masks) and, if there are any, ``tracks.npz``: expression
values and head rotations of real people. ``personalive data heads`` writes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from personalive.errors import InputError
from personalive.media.still import load_still
from personalive.synthetic.motion import EXPRESSION_NAMES, SIGNED_EXPRESSIONS, Motion
from personalive.synthetic.performance import Performance, chance
from personalive.synthetic.photo_head import PhotoHead
from personalive.vision.face_fit import angles_deg
from personalive.vision.face_model import face_model
from personalive.vision.face_transfer import driver_neutral, face_values, limited_turn, transferred

FORMAT, VERSION = "personalive photo heads", 1
INDEX_FILE, ARRAYS_FILE, TRACKS_FILE, IMAGES = "heads.json", "heads.npz", "tracks.npz", "images"
RECORDED_SHARE = 0.5  # of performances, where a set has tracks
_KEPT_HEADS = 16
_HEAD, _KIND, _TRACK, _START = 900, 901, 902, 903  # channels of chance
_BOTH_SIDES = ("mouthUpperUp", "mouthLowerDown", "mouthPress", "browInnerUp", "cheekPuff")


@dataclass(frozen=True, eq=False)
class Track:
    """Motion of a real person; F frames.

    Attributes:
        values: (F, E) expression values of the rendered heads, from the person's own rest.
        angles_deg: (F, 3) yaw, pitch, roll from the person's usual pose.
        fps: frames per second.
    """

    values: np.ndarray
    angles_deg: np.ndarray
    fps: float

    @classmethod
    def of(cls, blendshapes: np.ndarray, names: list[str], poses: np.ndarray, time_s: np.ndarray) -> Track:
        """Track from ARKit values (F, B) with names, poses (F, 4, 4) with y up, and times (F,)."""
        raw = face_values(blendshapes.astype(np.float32), names)
        neutral = driver_neutral(raw)
        u, _, vt = np.linalg.svd(poses[:, :3, :3].astype(np.float64).mean(0))
        usual = (u @ vt).T
        values = np.stack([_rendered_values(row, neutral) for row in raw])
        angles = np.stack([angles_deg(limited_turn(pose[:3, :3] @ usual)) for pose in poses])
        step_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.04
        return cls(values, angles, 1.0 / max(step_s, 1e-3))


def _rendered_values(row: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Values of ``EXPRESSION_NAMES`` from the face model's."""
    motion, model = transferred(row, neutral), face_model()
    found = {"eyeBlinkRight": motion.closing[0], "eyeBlinkLeft": motion.closing[1]}
    found["eyeLookX"], found["eyeLookY"] = motion.gaze
    for name in EXPRESSION_NAMES:
        if name in found:
            continue
        short = name.replace("Left", "_L").replace("Right", "_R")
        if name in _BOTH_SIDES:
            found[name] = float(np.mean([motion.expression[model.index(f"{name}_{side}")] for side in "LR"]))
        else:
            found[name] = float(motion.expression[model.index(short if short in model.expression_names else name)])
    low = [-1.0 if name in SIGNED_EXPRESSIONS else 0.0 for name in EXPRESSION_NAMES]
    return np.clip([found[name] for name in EXPRESSION_NAMES], low, 1.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class RecordedPerformance:
    """A track as endless performance: to and fro, from a start of its seed; shift and size as of ``Performance``."""

    track: Track
    seed: int
    fps: float = 25.0

    def at(self, frame: int) -> Motion:
        """Motion of frame ``frame`` (any integer)."""
        last = len(self.track.values) - 1
        at = chance(self.seed, _START, 0) * last + frame / self.fps * self.track.fps
        at = last - abs(at % (2 * last) - last) if last else 0.0
        low = min(int(at), max(last - 1, 0))
        share, high = at - low, min(low + 1, last)
        values = (1 - share) * self.track.values[low] + share * self.track.values[high]
        yaw, pitch, roll = (1 - share) * self.track.angles_deg[low] + share * self.track.angles_deg[high]
        held = Performance.sample(self.seed, self.fps).at(frame)
        return Motion(float(yaw), float(pitch), float(roll), held.scale, held.tx, held.ty, values.astype(np.float32))


class PhotoHeads:
    """A set of photo heads, read from its folder; heads and performances depend on their seed alone."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            InputError: no such set, or one that cannot be read.
        """
        self.folder = folder
        try:
            index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
            with np.load(folder / ARRAYS_FILE, allow_pickle=False) as stored:
                self._landmarks, self._masks = stored["landmarks_px"], stored["person_masks"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder}: no set of photo heads ({type(error).__name__}); make one with `personalive data heads`"
            ) from None
        if index.get("format") != FORMAT or index.get("version") != VERSION:
            raise InputError(f"{folder}: not a set of this version; make it again with `personalive data heads`")
        self.names: tuple[str, ...] = tuple(index["names"])
        self._tracks = _read_tracks(folder / TRACKS_FILE)
        self._kept = lru_cache(maxsize=_KEPT_HEADS)(self._head)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def tracks(self) -> int:
        """Number of recorded tracks."""
        return len(self._tracks)

    def head(self, number: int) -> PhotoHead:
        """Head ``number``, 0 to ``len - 1``; the last few are kept, others take 0.2 s."""
        return self._kept(range(len(self))[number])

    def sample(self, seed: int) -> PhotoHead:
        """Head of a seed."""
        return self.head(int(chance(seed, _HEAD, 0) * len(self)))

    def performance(self, seed: int, fps: float = 25.0) -> Performance | RecordedPerformance:
        """Performance of a seed: a recorded one in ``RECORDED_SHARE`` of cases, else as of the rendered head."""
        if not self._tracks or chance(seed, _KIND, 0) >= RECORDED_SHARE:
            return Performance.sample(seed, fps)
        return RecordedPerformance(self._tracks[int(chance(seed, _TRACK, 0) * len(self._tracks))], seed, fps)

    def _head(self, number: int) -> PhotoHead:
        image = load_still(self.folder / IMAGES / f"{number:04d}.jpg")
        mask = self._masks[number]
        return PhotoHead.of(image, self._landmarks[number], mask if mask.any() else None)


def _read_tracks(path: Path) -> tuple[Track, ...]:
    if not path.exists():
        return ()
    return read_tracks(path)


def read_tracks(path: Path) -> tuple[Track, ...]:
    """Tracks of a file: ``blendshape_names``, and ``NAME.blendshapes``, ``NAME.pose``, ``NAME.time_s`` of each clip.

    Raises:
        InputError: not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = [str(name) for name in stored["blendshape_names"]]
            clips = sorted(key.removesuffix(".blendshapes") for key in stored.files if key.endswith(".blendshapes"))
            return tuple(
                Track.of(stored[f"{c}.blendshapes"], names, stored[f"{c}.pose"], stored[f"{c}.time_s"]) for c in clips
            )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no file of tracks ({error}); see `personalive data heads --help`") from None
