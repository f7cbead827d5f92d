"""A video as stretches: frames at the set's rate, one square each, a face in every one (ours)."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from personalive.errors import FaceNotFoundError
from personalive.media import Frame
from personalive.training.data.prepare.config import PrepareConfig
from personalive.training.data.prepare.resample import Pick, Resampler
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector
from personalive.vision.framing import DrivingFramer, FramedFrame, FrameTime, ShotSquare
from personalive.vision.resize import Square
from personalive.vision.tracking import CutDetector


@dataclass(frozen=True, slots=True)
class View:
    """One frame at the set's rate.

    Attributes:
        image: (S, S, 3) uint8 RGB, framed; without a face some other image.
        time: when it is due in the video, seconds.
        source_time: the time of the image shown.
        repeated: the same image as the frame before.
        face: whether the face that is followed is here.
        begins: a new shot or square, or the first frame after a gap. A sudden change of colours counts, whether
            or not a face stays where it was: it may be another person's.
        square: what of the video's image is shown, None before any face.
    """

    image: np.ndarray
    time: Fraction
    source_time: Fraction
    repeated: bool
    face: bool
    begins: bool
    square: Square | None


class Views:
    """One pass over a video, in constant memory. ``frames`` counts what came out."""

    def __init__(self, detector: FaceDetector, size_px: int, framing_scale: float, config: PrepareConfig) -> None:
        # However late the first face comes, it is waited for; and every square is wanted.
        framing = FramingConfig(
            driving_scale=framing_scale, patience_frames=sys.maxsize, reported_squares=sys.maxsize
        )
        self._framer = DrivingFramer(detector, size_px=size_px, config=framing)
        self._resampler: Resampler[np.ndarray] = Resampler(config.fps, config.resample_slack, config.max_gap_s)
        self._cuts = CutDetector(framing)
        self._times: deque[tuple[Pick[None], bool]] = deque()  # of the frames that the framer holds; is it a cut
        self._square = -1
        self.frames = 0

    def of(self, frames: Iterable[Frame]) -> Iterator[View]:
        """All views of a video, in order."""
        for frame in frames:
            yield from self._push(self._resampler.push(frame.image, frame.time))
        yield from self._push(self._resampler.flush())
        try:
            rest = self._framer.flush()
        except FaceNotFoundError:  # in the whole video
            self.frames += len(self._times)
            return
        yield from map(self._view, rest)

    def _push(self, picks: list[Pick[np.ndarray]]) -> Iterator[View]:
        for pick in picks:
            at = Pick(None, pick.time, pick.source_time, pick.repeated, pick.restart)
            self._times.append((at, any(self._cuts.push(pick.item))))
            yield from map(self._view, self._framer.push(pick.item, FrameTime(Fraction(pick.time), Fraction(0))))

    def _view(self, framed: FramedFrame) -> View:
        (at, cut), squares = self._times.popleft(), self._framer.report.squares
        self.frames += 1
        before = self._square
        while self._square + 1 < len(squares) and squares[self._square + 1].first_frame <= framed.index:
            self._square += 1
        return View(
            framed.image,
            at.time,
            at.source_time,
            at.repeated,
            framed.face_found,
            cut or at.restart or framed.cut or self._square != before,
            _square(squares[self._square]) if self._square >= 0 else None,
        )


def _square(shot: ShotSquare) -> Square:
    return Square(shot.x, shot.y, shot.side_px)
