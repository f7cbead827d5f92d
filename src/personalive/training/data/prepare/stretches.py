"""A video as stretches: frames at the set's rate, one square each, a face in every one (ours)."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from personalive.errors import FaceNotFoundError
from personalive.media.reader import Frame
from personalive.training.data.prepare.config import PrepareConfig
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector
from personalive.vision.framing import DrivingFramer, FramedFrame, FrameTime
from personalive.vision.resize import Square
from personalive.vision.tracking import CutDetector

T = TypeVar("T")


class Pick(NamedTuple, Generic[T]):
    """One output: what it shows and why. Times are in seconds of the source."""

    item: T
    time: Fraction  # when it is due
    source_time: Fraction  # of the frame it shows
    repeated: bool  # shows the same frame as the output before
    restart: bool  # the first one after a gap in the source


def resample(frames: Iterable[tuple[T, Fraction]], fps: int, slack: float, max_gap_s: float) -> Iterator[Pick[T]]:
    """Any frame times to a constant rate: outputs for (item, time) after (item, time), without avoidable repeats.

    The rule. Output k is due at ``origin + k * step``, where origin is the time of the first frame. It shows the
    source frame nearest to that time. Where that frame was shown already and the next one is at most half a step
    (and ``slack`` steps) away, the next one is shown instead: times that jitter around the middle between two
    outputs then repeat and skip nothing. Where two source frames lie more than ``max_gap_s`` apart, the grid starts
    anew at the later one. Outputs come as soon as they are certain; one item is held.

    Args:
        frames: in order of time, which must increase.
        fps: outputs per second.
        slack: see above, in steps.
        max_gap_s: see above.
    """
    step = Fraction(1, fps)
    reach, max_gap = step * (Fraction(1, 2) + Fraction(str(slack))), Fraction(str(max_gap_s))
    held: tuple[T, Fraction] | None = None
    shown = restart = False  # whether the held frame was shown; whether a gap was before it
    due, gap = Fraction(0), step  # gap: between the last two frames

    def pick(frame: tuple[T, Fraction], *, repeated: bool) -> Pick[T]:
        nonlocal due, restart, shown
        made = Pick(frame[0], due, frame[1], repeated, restart)
        due, restart, shown = due + step, False, True
        return made

    def rest(last: tuple[T, Fraction]) -> Iterator[Pick[T]]:
        """Outputs due before the last frame, and it itself, if it still shows when it is due."""
        while due < last[1]:
            yield pick(last, repeated=shown)
        if not shown and due - last[1] <= min(gap, step) / 2:
            yield pick(last, repeated=False)

    for frame in frames:
        time, taken = frame[1], False
        if held is None:
            due = time
        elif time - held[1] > max_gap:
            yield from rest(held)
            due, restart = time, True
        else:
            gap = time - held[1]
            while due < time and not taken:
                before, after = abs(due - held[1]), time - due
                taken = after < before or (shown and after <= reach)
                yield pick(frame, repeated=False) if taken else pick(held, repeated=shown)
        held, shown = frame, taken
    if held is not None:
        yield from rest(held)


# --- framed -------------------------------------------------------------------------------------------------


class View(NamedTuple):
    """One frame at the set's rate.

    Attributes:
        image: (S, S, 3) uint8 RGB, framed; without a face some other image.
        pick: its times, in seconds of the video, and whether it repeats the frame before.
        face: whether the face that is followed is here.
        begins: a new shot or square, or the first frame after a gap. A sudden change of colours counts, whether
            or not a face stays where it was: it may be another person's.
        square: what of the video's image is shown, None before any face.
    """

    image: np.ndarray
    pick: Pick[Any]
    face: bool
    begins: bool
    square: Square | None


def views(frames: Iterable[Frame], detector: FaceDetector, config: PrepareConfig) -> Iterator[View]:
    """All views of a video, in order: one pass, in constant memory."""
    # However late the first face comes, it is waited for; and every square is wanted.
    framing = FramingConfig(
        driving_scale=config.framing_scale, patience_frames=sys.maxsize, reported_squares=sys.maxsize
    )
    framer, cuts = DrivingFramer(detector, size_px=config.size_px, config=framing), CutDetector(framing)
    times: deque[tuple[Pick[Any], bool]] = deque()  # of the frames that the framer holds; is it a cut
    squares, number = framer.report.squares, -1

    def view(framed: FramedFrame) -> View:
        nonlocal number
        (pick, cut), before = times.popleft(), number
        while number + 1 < len(squares) and squares[number + 1].first_frame <= framed.index:
            number += 1
        shot = squares[number] if number >= 0 else None
        begins = cut or pick.restart or framed.cut or number != before
        square = None if shot is None else Square(shot.x, shot.y, shot.side_px)
        return View(framed.image, pick, framed.face_found, begins, square)

    timed = ((frame.image, frame.time) for frame in frames)
    for pick in resample(timed, config.fps, config.resample_slack, config.max_gap_s):
        times.append((pick._replace(item=None), any(cuts.push(pick.item))))
        yield from map(view, framer.push(pick.item, FrameTime(pick.time, Fraction(0))))
    try:
        rest = framer.flush()
    except FaceNotFoundError:  # in the whole video
        yield from (View(np.empty(0), at, False, False, None) for at, _ in times)
        return
    yield from map(view, rest)
