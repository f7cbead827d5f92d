"""What is scored: our engine, films made by any other method, and two yardsticks.

Every contender plays a case: it gives one picture per driving frame, in order, holding only what is in flight.
S is the side of the pictures compared.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from personalive.engine.engine import Engine
from personalive.errors import InputError
from personalive.evaluation.datasets import Case, Moment, find_films
from personalive.evaluation.metrics import fps, inter_chunk_latency_ms, motion_to_photon_ms, percentiles
from personalive.media import open_video
from personalive.vision.config import FramingConfig
from personalive.vision.framing import whole_square
from personalive.vision.resize import ImageArray, crop_and_resize

OURS, COPY, TRUTH = "ours", "the portrait, copied", "the true pictures"
Played = Iterator[tuple[Moment, ImageArray]]


class Contender(Protocol):
    """Anything that makes films. ``figures`` are those of all cases played, not of single ones."""

    name: str

    def has(self, case: Case) -> bool:
        """Whether it has anything to show for this case."""
        ...

    def play(self, case: Case) -> Played:
        """Each driving frame with the picture made of it."""
        ...

    def figures(self) -> dict[str, float]:
        """Speed, where it is known."""
        ...


# --- our engine ---------------------------------------------------------------------------------------------


@dataclass
class CallTimes:
    """When chunks of one case entered and left the engine: seconds in which the engine worked, nothing else."""

    entered_s: list[float] = field(default_factory=list)
    left_s: list[float] = field(default_factory=list)
    now_s: float = 0.0

    def add(self, seconds: float) -> None:
        """A call that took so long."""
        self.entered_s.append(self.now_s)
        self.now_s += seconds
        self.left_s.append(self.now_s)


class OurEngine:
    """Reenactment by a loaded model through its public stream."""

    name = OURS

    def __init__(self, engine: Engine, seed: int, warmup_calls: int) -> None:
        self._engine, self._seed, self._warmup_calls = engine, seed, warmup_calls
        self._times: list[CallTimes] = []

    def has(self, case: Case) -> bool:
        """Always."""
        return True

    def play(self, case: Case) -> Played:
        """See ``Contender``."""
        times = CallTimes()
        yield from reenact(self._engine, case.portrait(), case.moments(), seed=self._seed, times=times)
        self._times.append(times)

    def figures(self) -> dict[str, float]:
        """Speed of whole calls: condition, denoise, decode; none for cases too short to tell."""
        return speed(self._times, self._engine.chunk_frames, self._engine.warmup_frames, self._warmup_calls)


def reenact(
    engine: Engine, portrait: ImageArray, moments: Iterator[Moment], *, seed: int = 0, times: CallTimes | None = None
) -> Played:
    """Each driving frame with the engine's picture of it; the ease-in is dropped, the last window padded.

    Args:
        portrait: square, framed.
        times: filled with the engine's own times of whole windows.
    """
    state, flying = engine.start(portrait, seed=seed), deque[Moment]()
    to_drop = engine.warmup_frames
    for window in _windows(moments, engine.chunk_frames):
        flying.extend(window)
        cut = max((i for i, moment in enumerate(window) if moment.cut), default=None)
        pictures = np.stack([moment.driver for moment in window])
        missing = engine.chunk_frames - len(window)
        pictures = np.concatenate([pictures, np.repeat(pictures[-1:], missing, axis=0)])
        begun = time.perf_counter()
        state, frames = engine.step(state, pictures, cut=cut)
        if times is not None:
            times.add(time.perf_counter() - begun)
        yield from _landed(flying, frames.numpy()[to_drop:])
        to_drop = max(0, to_drop - len(frames))
    for frames in engine.flush(state):
        yield from _landed(flying, frames.numpy()[to_drop:])
        to_drop = max(0, to_drop - len(frames))


def _landed(flying: deque[Moment], frames: np.ndarray) -> Iterator[tuple[Moment, np.ndarray]]:
    """Each finished frame with what drove it; the last window was filled up, so frames may be left over."""
    for frame in frames[: len(flying)]:
        yield flying.popleft(), frame


def _windows(moments: Iterator[Moment], size: int) -> Iterator[list[Moment]]:
    window: list[Moment] = []
    for moment in moments:
        window.append(moment)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def speed(cases: list[CallTimes], chunk_frames: int, warmup_frames: int, warmup_calls: int) -> dict[str, float]:
    """Frames per second, chunk latency and motion-to-photon latency over cases, their first calls left out."""
    lag = warmup_frames // chunk_frames  # calls between a chunk's arrival and its departure
    frames, seconds = 0, 0.0
    chunk_ms: list[float] = []
    photon_ms: list[float] = []
    for case in cases:
        entered, left = case.entered_s[warmup_calls:], case.left_s[warmup_calls:]
        if len(left) < 2:
            continue
        frames += chunk_frames * len(left)
        seconds += left[-1] - entered[0]
        chunk_ms.append(inter_chunk_latency_ms(left))
        photon_ms.extend(motion_to_photon_ms(entered[: max(len(left) - lag, 0)], left[lag:]))
    if not frames:
        return {}
    found = {"fps": fps(frames, seconds), "chunk_ms": float(np.mean(chunk_ms))}
    if photon_ms:
        found["photon_ms"], found["photon_p95_ms"] = percentiles(photon_ms, (50, 95))
    return found


# --- films of other methods ---------------------------------------------------------------------------------


class FilmFolder:
    """Films made by any method: one per case, named after it, one frame per driving frame."""

    def __init__(self, name: str, folder: Path, size_px: int) -> None:
        """
        Raises:
            InputError: no such folder.
        """
        self.name, self._folder, self._size_px = name, folder, size_px
        self._films, self.skipped = find_films(folder)
        self.notes: list[str] = []

    def has(self, case: Case) -> bool:
        """Whether there is a film of the case's name."""
        return case.name in self._films

    def play(self, case: Case) -> Played:
        """See ``Contender``. A film of another length is compared as far as both go.

        Raises:
            InputError: the film cannot be read or is not square.
        """
        path = self._films[case.name]
        with open_video(path) as film:
            frames = iter(film)
            played = 0
            for moment in case.moments():
                frame = next(frames, None)
                if frame is None:
                    self.notes.append(
                        f"{path}: has {played} frames, fewer than the driving film; compared as far as it goes"
                    )
                    return
                played += 1
                yield moment, self._squared(path, frame.image)
            if next(frames, None) is not None:
                self.notes.append(f"{path}: has more than the {played} frames compared; the rest is left out")
            self.notes.extend(film.warnings)

    def figures(self) -> dict[str, float]:
        """None: a film does not tell how fast it was made."""
        return {}

    def _squared(self, path: Path, image: ImageArray) -> ImageArray:
        try:
            square = whole_square(image.shape, FramingConfig())
        except InputError:
            height, width = image.shape[:2]
            raise InputError(f"{path}: is {width}x{height}, not square: crop it as the method's output was") from None
        return crop_and_resize(image, square, self._size_px)


# --- yardsticks ---------------------------------------------------------------------------------------------


class Yardstick:
    """The portrait shown all the time, or the true pictures themselves: the floor and the ceiling."""

    def __init__(self, name: str) -> None:
        self.name = name

    def has(self, case: Case) -> bool:
        """Where there are true pictures to compare with."""
        return bool(case.truth_id)

    def play(self, case: Case) -> Played:
        """See ``Contender``."""
        portrait = case.portrait()
        for moment in case.moments():
            truth = moment.truth if moment.truth is not None else portrait
            yield moment, truth if self.name == TRUTH else portrait

    def figures(self) -> dict[str, float]:
        """None."""
        return {}
