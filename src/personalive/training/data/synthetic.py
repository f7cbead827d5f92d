"""Heads as a training set, rendered when drawn, from seeds or photographs: exact masks, endless performances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from personalive.errors import InputError
from personalive.synthetic import Identity, Performance, PhotoHeads, Render, render
from personalive.training.data.sets import (
    CLIP_FRAMES,
    CLIP_STRIDE,
    HELD_OUT_EVERY,
    Clip,
    GroundTruth,
    Pair,
    draw_clip,
    draw_pair,
    span,
)

LENGTH_FRAMES = 750  # of each person's performance: 30 s
HELD_OUT_SEED = 10_000_000  # seeds from here on are never rendered for training


class SyntheticSet:
    """Drawn people with the seeds ``first_seed`` to ``first_seed + people - 1``, each giving its seed's performance.

    In a share ``other_driver`` of the samples another person of the set drives, giving the same performance, which
    no recording has: ``driving`` shows that other person, ``target`` and ``masks`` the one of the reference.
    """

    def __init__(
        self,
        first_seed: int = 0,
        people: int = 1000,
        size_px: int = 256,
        *,
        other_driver: float = 0.0,
        held_out: bool = False,
        length_frames: int = LENGTH_FRAMES,
    ) -> None:
        """
        Args:
            other_driver: 0 to 1.
            held_out: allow the seeds that are kept for scores (from ``HELD_OUT_SEED`` on); never in training.
            length_frames: of each performance, at 25 fps.

        Raises:
            InputError: held-out seeds without ``held_out``, or a number out of range.
        """
        last = first_seed + people - 1
        if last >= HELD_OUT_SEED and not held_out:
            raise InputError(
                f"seeds {first_seed} to {last}: from {HELD_OUT_SEED} on they are kept for scores; use lower ones"
            )
        least = 2 if other_driver > 0 else 1
        if first_seed < 0 or people < least or length_frames < 2:
            raise InputError(
                f"synthetic heads from seed {first_seed}, {people} people, {length_frames} frames: use a seed from 0 "
                f"up, at least {least} people and 2 frames"
            )
        self.size_px = size_px
        self._first, self._people, self._other, self._length = first_seed, people, other_driver, length_frames

    def pair(self, rng: np.random.Generator) -> Pair:
        """See ``TrainingSet.pair``."""
        who = self._draw(rng)
        reference, driving = draw_pair(rng, self._length)
        portrait, (target,), (shown,) = self._shown(*who, reference, [driving])
        truth = _truth(portrait), _truth(target)
        return Pair(portrait.image, shown.image, target.image, _masks(target), _name(*who), truth)

    def clip(self, rng: np.random.Generator, frames: int = CLIP_FRAMES, stride: int = CLIP_STRIDE) -> Clip:
        """See ``TrainingSet.clip``.

        Raises:
            InputError: performances are shorter than that.
        """
        if span(frames, stride) > self._length:
            raise InputError(
                f"clip of {frames} frames, stride {stride}: performances have {self._length} frames only"
            )
        who = self._draw(rng)
        numbers, reference = draw_clip(rng, self._length, frames, stride)
        portrait, target, shown = self._shown(*who, reference, numbers.tolist())
        driving, images = (np.stack([frame.image for frame in part]) for part in (shown, target))
        return Clip(portrait.image, driving, images, np.stack([_masks(frame) for frame in target]), _name(*who))

    def _shown(
        self, person: int, driver: int, reference: int, frames: Sequence[int]
    ) -> tuple[Render, list[Render], list[Render]]:
        """Reference, target and driving frames."""
        portrait, *target = self._renders(person, person, [reference, *frames])
        return portrait, target, target if driver == person else self._renders(driver, person, frames)

    def _draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Seeds of the person shown and of the one who drives."""
        person = int(rng.integers(self._people))
        if rng.random() >= self._other:
            return self._first + person, self._first + person
        other = int(rng.integers(self._people - 1))
        return self._first + person, self._first + other + (other >= person)

    def _renders(self, who: int, performance: int, frames: Sequence[int]) -> list[Render]:
        person, motion = Identity.sample(who), Performance.sample(performance)
        return [render(person, motion.at(frame), self.size_px) for frame in frames]


class PhotoHeadSet(SyntheticSet):
    """The same of heads made from photographs: a person is a head of the set, a seed its number in this part.

    Every tenth head, the first included, is kept for scores; its performances are those of held-out seeds.
    """

    def __init__(
        self, folder: Path, size_px: int = 256, *, other_driver: float = 0.0, held_out: bool = False
    ) -> None:
        """
        Args:
            folder: as `personalive data heads` wrote it.
            other_driver: 0 to 1.
            held_out: draw from the heads that are kept for scores, else from the others.

        Raises:
            InputError: no such set, or too few heads in it.
        """
        self._heads = PhotoHeads(folder)
        numbers = range(len(self._heads))
        self._numbers = [n for n in numbers if (n % HELD_OUT_EVERY == 0) == held_out]
        if len(self._numbers) < 2:
            raise InputError(
                f"{folder}: {len(numbers)} heads are too few: training needs 3, and scores {HELD_OUT_EVERY + 1}"
            )
        super().__init__(0, len(self._numbers), size_px, other_driver=other_driver)
        self._performances = HELD_OUT_SEED if held_out else 0

    def _renders(self, who: int, performance: int, frames: Sequence[int]) -> list[Render]:
        head = self._heads.head(self._numbers[who])
        motion = self._heads.performance(self._performances + performance)
        return [head.render(motion.at(frame), self.size_px, supersample=1) for frame in frames]


def _masks(frame: Render) -> np.ndarray:
    return np.stack([frame.face_mask, frame.eyes_mask, frame.mouth_mask])


def _truth(frame: Render) -> GroundTruth:
    motion = frame.motion
    pose = (motion.yaw_deg, motion.pitch_deg, motion.roll_deg, motion.scale, motion.tx, motion.ty)
    return GroundTruth(
        frame.canonical_keypoints, np.array(pose, np.float32), np.asarray(motion.expression, np.float32)
    )


def _name(person: int, driver: int) -> str:
    return f"person {person}" + ("" if driver == person else f" driven by {driver}")
