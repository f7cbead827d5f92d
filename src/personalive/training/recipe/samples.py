"""What the training recipe asks of data, and a set that draws its samples.

Letters: S picture side in pixels, F frames, G mask cells per side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from personalive.errors import InputError
from personalive.synthetic import Identity, Performance, Render, render
from personalive.training.presets import HELD_OUT_SEED

MASKS = ("face", "eyes", "mouth")
CELLS = 64  # mask cells per side that boxes are kept on
SYNTHETIC = "synthetic"  # the name of the drawn set where a prepared folder is asked for
_SPREAD_FRAMES = 500  # a drawn pair lies within this many frames of a performance
_PERFORMANCES = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class PairSample:
    """One moment of one person, and another picture of that person."""

    reference: np.ndarray  # (S, S, 3) uint8 RGB, framed
    target: np.ndarray  # (S, S, 3) uint8, what the reference should be made to look like
    driving: np.ndarray  # (S, S, 3) uint8: the target itself, or another person giving the same performance
    masks: np.ndarray  # (3, G, G) of the target in the order of MASKS: bool, or uint8 coverage with 255 for full


@dataclass(frozen=True, slots=True, eq=False)
class ClipSample:
    """Frames of one performance in order, and a picture of the same person."""

    reference: np.ndarray  # (S, S, 3) uint8 RGB, framed
    target: np.ndarray  # (F, S, S, 3) uint8
    driving: np.ndarray  # (F, S, S, 3) uint8: the target itself, or another person giving the same performance
    masks: np.ndarray  # (F, 3, G, G) of the target, as in PairSample


class AnyPair(Protocol):
    """What a pair must have; see ``PairSample``."""

    @property
    def reference(self) -> np.ndarray: ...
    @property
    def target(self) -> np.ndarray: ...
    @property
    def driving(self) -> np.ndarray: ...
    @property
    def masks(self) -> np.ndarray: ...


AnyClip = AnyPair  # the same names, with F frames in all but the reference; see ClipSample


class TrainingSet(Protocol):
    """Endless samples; which one comes depends on the generator alone."""

    def pair(self, rng: np.random.Generator) -> AnyPair:
        """Reference and target at least 30 frames apart where the recording is long enough (paper)."""
        ...

    def clip(self, rng: np.random.Generator, frames: int = 40, stride: int = 4) -> AnyClip:
        """``frames`` frames, each ``stride`` frames of the recording after the one before."""
        ...


class SyntheticSet:
    """Drawn people, rendered when asked for. People and performances of training are never held out."""

    def __init__(
        self,
        size_px: int,
        *,
        people: int,
        other_driver: float,
        min_gap_frames: int,
        held_out: bool = False,
    ) -> None:
        """
        Args:
            size_px: S.
            people: how many different ones.
            other_driver: share of pairs that another person drives.
            min_gap_frames: between reference and target.
            held_out: draw people and performances from the seeds that training leaves alone.
        """
        self.size_px, self.people, self.other_driver = size_px, people, other_driver
        self.min_gap_frames, self.first = min_gap_frames, HELD_OUT_SEED if held_out else 0

    def pair(self, rng: np.random.Generator) -> PairSample:
        """As ``TrainingSet``."""
        number, performance, start = self._scene(rng)
        person = Identity.sample(number)
        moved = start + self.min_gap_frames + int(rng.integers(_SPREAD_FRAMES))
        other = rng.random() < self.other_driver
        driver = Identity.sample(self._another(number, rng)) if other else person
        target = render(person, performance.at(moved), self.size_px)
        return PairSample(
            reference=render(person, performance.at(start), self.size_px).image,
            target=target.image,
            driving=render(driver, performance.at(moved), self.size_px).image if other else target.image,
            masks=_coverage(target),
        )

    def clip(self, rng: np.random.Generator, frames: int = 40, stride: int = 4) -> ClipSample:
        """As ``TrainingSet``."""
        number, performance, start = self._scene(rng)
        person = Identity.sample(number)
        shown = [render(person, performance.at(start + i * stride), self.size_px) for i in range(frames)]
        reference = render(person, performance.at(start + int(rng.integers(frames * stride))), self.size_px)
        target = np.stack([frame.image for frame in shown])
        return ClipSample(reference.image, target, target, np.stack([_coverage(frame) for frame in shown]))

    def _scene(self, rng: np.random.Generator) -> tuple[int, Performance, int]:
        performance = Performance.sample(self.first + int(rng.integers(_PERFORMANCES)))
        return self._person(rng), performance, int(rng.integers(_SPREAD_FRAMES))

    def _person(self, rng: np.random.Generator) -> int:
        return self.first + int(rng.integers(self.people))

    def _another(self, person: int, rng: np.random.Generator) -> int:
        """Anyone else, where there is anyone else."""
        if self.people == 1:
            return person
        return self.first + (person - self.first + 1 + int(rng.integers(self.people - 1))) % self.people


def box_coverage(boxes: np.ndarray, size_px: int) -> np.ndarray:
    """(3, 4) boxes (x1, y1, x2, y2 in pixels, the last two exclusive; empty allowed) -> (3, G, G) uint8 coverage."""
    edges = np.linspace(0, size_px, CELLS + 1)

    def shares(low: float, high: float) -> np.ndarray:
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * CELLS / size_px

    grids = [np.outer(shares(y1, y2), shares(x1, x2)) for x1, y1, x2, y2 in boxes]
    return np.round(255 * np.stack(grids)).astype(np.uint8)


def _coverage(frame: Render) -> np.ndarray:
    boxes = [_box(mask) for mask in (frame.face_mask, frame.eyes_mask, frame.mouth_mask)]
    return box_coverage(np.array(boxes), frame.image.shape[0])


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def check_sample(picture: np.ndarray, size_px: int) -> None:
    """Refuse pictures that are not of the model's size.

    Raises:
        InputError: naming both sizes.
    """
    if picture.shape[-3:] != (size_px, size_px, 3) or picture.dtype != np.uint8:
        raise InputError(
            f"the data has pictures of shape {picture.shape[-3:]} ({picture.dtype}) but the model needs "
            f"{size_px} x {size_px} RGB: prepare the data at that size"
        )
