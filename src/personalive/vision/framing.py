"""A square around the head: one for a portrait, one per shot of a driving clip (ours).

A driving square never moves within a shot, because a square that follows the head would hide the very
motion that drives the portrait. The clip is read once, in constant memory: the first frames of a shot are
held back (``look_ahead_frames``) until its square is chosen from the median face and the room it moves in.
The square is chosen anew at a cut, or when the face has been out of it for ``leave_frames``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np

from personalive.errors import FaceNotFoundError
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceBox, FaceDetector
from personalive.vision.resize import ImageArray, Square, check_image, crop_and_resize, crop_square
from personalive.vision.tracking import (
    CutDetector,
    FaceFollower,
    centre_square,
    face_square,
    inside_share,
    whole_square,
)

FramingMode = Literal["auto", "center", "none"]
NoFace = Literal["hold", "neutral", "error"]

_FALLBACK_NOTE = "no face found: the largest centred square is used"


@dataclass(frozen=True, slots=True)
class Framed:
    """A framed portrait: ``image`` (S, S, 3) uint8 in its own resolution, the square, the face, a remark."""

    image: ImageArray
    box: Square
    face: FaceBox | None
    note: str

    def scaled(self, share: float) -> Framed:
        """The same square and face in a photograph ``share`` as large."""
        x, y, side_px = (round(share * value) for value in (self.box.x, self.box.y, self.box.side_px))
        return replace(self, box=Square(x, y, side_px), face=self.face and self.face.scaled(share))


def frame_portrait(
    image: ImageArray,
    detector: FaceDetector | None,
    mode: FramingMode = "auto",
    *,
    allow_center_fallback: bool = False,
    config: FramingConfig | None = None,
) -> Framed:
    """Crop a portrait (H, W, 3) uint8 to a square with head room, in its own resolution.

    Args:
        image: the image, RGB.
        detector: finds the face; only ``auto`` needs one.
        mode: ``auto`` around the largest face; ``center`` the largest centred square; ``none`` the whole
            image, which must be square already.
        allow_center_fallback: with ``auto`` and no face, use the centre and say so in the note instead of
            failing. For synthetic heads, in which detectors see no face.
        config: shares and limits.

    Raises:
        FaceNotFoundError: ``auto`` found no face.
        InputError: ``none`` and not square, or not a uint8 RGB image.
    """
    check_image(image)
    settings = config or FramingConfig()
    if mode != "auto":
        square = whole_square(image.shape, settings) if mode == "none" else centre_square(image.shape)
        return Framed(crop_square(image, square), square, None, "")
    faces = _need(detector).detect(image)
    if faces:
        square = face_square(faces[:1], image.shape, settings.portrait_scale, settings)
        note = f"{len(faces)} faces found: the largest is used" if len(faces) > 1 else ""
        return Framed(crop_square(image, square), square, faces[0], note)
    if not allow_center_fallback:
        raise FaceNotFoundError(
            "no face found in the portrait: use an image with a clear face, or --framing center to take "
            "its middle as it is"
        )
    square = centre_square(image.shape)
    return Framed(crop_square(image, square), square, None, _FALLBACK_NOTE)


class FrameTime(NamedTuple):
    """Time of a frame in its clip, seconds."""

    start: Fraction
    duration: Fraction


@dataclass(frozen=True, slots=True)
class FramedFrame:
    """One driving frame, ready to drive, with the time that it was pushed with.

    ``image`` (S, S, 3) uint8 is the image to drive with. Without a face it is the last good one ("hold").
    ``neutral`` asks the caller to drive with the portrait's own pose and expression instead of ``image``.
    ``cut`` marks the first frame of a new shot, ``index`` counts the frames pushed from 0.
    """

    image: ImageArray
    face_found: bool
    cut: bool
    neutral: bool
    index: int
    time: FrameTime | None = None


@dataclass(frozen=True, slots=True)
class ShotSquare:
    """The square used from frame ``first_frame`` on, in image pixels."""

    first_frame: int
    x: int
    y: int
    side_px: int


@dataclass(slots=True)
class FramingReport:
    """Summary of framing a clip. The first ``FramingConfig.reported_squares`` squares are kept."""

    detector: str
    mode: FramingMode
    frames: int = 0
    frames_without_face: int = 0
    cuts: int = 0
    squares: list[ShotSquare] = field(default_factory=list)
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for the run report."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Seen:
    image: ImageArray
    index: int
    time: FrameTime | None
    face: FaceBox | None = None
    fresh: bool = False


class DrivingFramer:
    """Turns driving frames into squares, as a stream: every pushed frame comes out once, in order.

    Frames come out late: by up to ``look_ahead_frames`` at the start of a shot, and at the start of the clip
    by as long as no face has been seen (counted, not kept). With ``live`` each push gives its frame at once.

    A frame without a face gives, by ``no_face``: "hold" the last good image (before the first face: the
    first good one), "neutral" a frame that asks for the portrait's own pose, "error" FaceNotFoundError. Live
    frames before the first face are neutral. A clip needs a face within its first ``patience_frames``.

    With ``allow_center_fallback`` a stream whose first frames show no face (or one only here and there, as
    in synthetic heads) is framed by the centre throughout, and every frame drives; the report's note says so.
    """

    def __init__(
        self,
        detector: FaceDetector | None,
        mode: FramingMode = "auto",
        no_face: NoFace = "hold",
        size_px: int = 512,
        *,
        live: bool = False,
        allow_center_fallback: bool = False,
        config: FramingConfig | None = None,
    ) -> None:
        self._config = config or FramingConfig()
        self._mode, self._no_face, self._size_px, self._live = mode, no_face, size_px, live
        self._follower = FaceFollower(_need(detector), self._config) if mode == "auto" else None
        self._cuts = CutDetector(self._config)
        self.report = FramingReport(_need(detector).name if mode == "auto" else "not used", mode)
        self._undecided = allow_center_fallback  # whether to trust the detector is decided once
        self._square: Square | None = None  # None while a shot is being measured
        self._chosen_side_px = 0.0  # the face's side when the square was chosen
        self._waiting: list[_Seen] = []  # the shot being measured
        self._leading: list[FrameTime | None] = []  # times of frames before the first face, still to come out
        self._last_good: ImageArray | None = None
        self._unfit_frames = 0
        self._shots = 0

    def push(self, image: ImageArray, time: FrameTime | None = None) -> list[FramedFrame]:
        """Take the next frame (H, W, 3) uint8 RGB; gives the frames that became ready, mostly exactly one.

        Args:
            image: kept as it is while a shot is measured: do not write to it afterwards.
            time: comes out with the frame, and names it in errors.

        Raises:
            FaceNotFoundError: ``no_face`` is "error" and there is none, or patience ran out.
            InputError: not a uint8 RGB image, or mode ``none`` and not square.
        """
        check_image(image)
        seen = _Seen(image, self.report.frames, time)
        self.report.frames += 1
        if self._follower is None:
            return [self._by_centre(seen)]
        sighting = self._follower.look(image, search=self._square is None)
        seen = replace(seen, face=sighting.face, fresh=sighting.fresh)
        ready: list[FramedFrame] = []
        if sighting.cut:
            ready = self._settle()
            if self._follower is None:  # the first shot decided for the centre
                return [*ready, self._by_centre(seen)]
        if sighting.cut or self._has_left(seen):
            self._square, self._unfit_frames = None, 0
        return ready + (self._measure(seen) if self._square is None else [self._emit(seen)])

    def flush(self) -> list[FramedFrame]:
        """The frames still held back, at the end of the clip.

        Raises:
            FaceNotFoundError: there was no face in the whole clip.
        """
        if self._leading and not self._waiting:
            raise self._no_face_at_all()
        return self._settle()

    # --- one shot -----------------------------------------------------------------------------------------

    def _measure(self, seen: _Seen) -> list[FramedFrame]:
        if seen.face is None and not self._waiting and not self._undecided:
            return self._before_face(seen)
        self._waiting.append(seen)
        wanted = 1 if self._live else self._config.look_ahead_frames
        return self._settle() if len(self._waiting) >= wanted else []

    def _before_face(self, seen: _Seen) -> list[FramedFrame]:
        """A shot that shows no face yet: nothing to measure, and nothing worth keeping."""
        if self._last_good is not None or self._live or self._no_face == "error":
            return [self._emit(seen)]
        self._leading.append(seen.time)
        if len(self._leading) >= self._config.patience_frames:
            raise self._no_face_at_all()
        return []

    def _settle(self) -> list[FramedFrame]:
        """Choose the square of the measured shot and let its frames go."""
        waiting, self._waiting = self._waiting, []
        faces = [seen.face for seen in waiting if seen.face is not None]
        if not waiting:
            return []
        if self._undecided:
            self._undecided = False
            if len(faces) < self._config.min_found_share * len(waiting):
                self._follower = None
                self.report.note = _FALLBACK_NOTE
                return [self._by_centre(seen) for seen in waiting]
        shape = waiting[0].image.shape
        self._square = face_square(faces, shape, self._config.driving_scale, self._config)
        self._chosen_side_px = float(np.median([face.side_px for face in faces]))
        cut = self._note_square(self._square, waiting[0].index)
        framed = [self._emit(seen, cut=cut and seen is waiting[0]) for seen in waiting]
        return self._lead_in(framed[0].image) + framed

    def _lead_in(self, image: ImageArray) -> list[FramedFrame]:
        times, self._leading = self._leading, []
        self.report.frames_without_face += len(times)
        neutral = self._no_face == "neutral"
        return [FramedFrame(image, False, False, neutral, index, time) for index, time in enumerate(times)]

    def _has_left(self, seen: _Seen) -> bool:
        """Return True if the face is back, or still there, but has not fitted the square for too long."""
        if self._square is None:
            return False
        if seen.face is not None and self._fits(seen.face, self._square, seen.image):
            self._unfit_frames = 0
        else:
            self._unfit_frames += 1
        return seen.fresh and self._unfit_frames > self._config.leave_frames

    def _fits(self, face: FaceBox, square: Square, image: ImageArray) -> bool:
        inside = inside_share(face, square, image.shape) >= self._config.min_inside_share
        return inside and self._chosen_side_px <= self._config.max_shrink * face.side_px

    # --- one frame ----------------------------------------------------------------------------------------

    def _emit(self, seen: _Seen, *, cut: bool = False) -> FramedFrame:
        square = self._square
        if seen.face is None or square is None or not self._can_drive(seen.face, square, seen.image):
            return self._without_face(seen, cut=cut)
        image = crop_and_resize(seen.image, square, self._size_px)
        if seen.fresh and self._unfit_frames == 0:  # seen here, not assumed, and all of it in the square
            self._last_good = image
        return FramedFrame(image, True, cut, False, seen.index, seen.time)

    def _can_drive(self, face: FaceBox, square: Square, image: ImageArray) -> bool:
        return inside_share(face, square, image.shape) >= self._config.min_drive_share

    def _without_face(self, seen: _Seen, *, cut: bool) -> FramedFrame:
        self.report.frames_without_face += 1
        if self._no_face == "error":
            time = "" if seen.time is None else f" ({float(seen.time.start):.2f} s)"
            raise FaceNotFoundError(
                f"no face in driving frame {seen.index}{time}: use --no-face hold or --no-face neutral to go "
                "on without one, or --framing center to skip face detection"
            )
        image = self._last_good
        if image is None:
            square = self._square or centre_square(seen.image.shape)
            image = crop_and_resize(seen.image, square, self._size_px)
        neutral = self._no_face == "neutral" or self._last_good is None
        return FramedFrame(image, False, cut, neutral, seen.index, seen.time)

    def _by_centre(self, seen: _Seen) -> FramedFrame:
        """Framed without looking for faces: every frame drives."""
        shape = seen.image.shape
        square = whole_square(shape, self._config) if self._mode == "none" else centre_square(shape)
        suspected, certain = self._cuts.push(seen.image)
        cut = suspected or certain or self._square is None
        if cut:
            self._square = square
            cut = self._note_square(square, seen.index)
        image = crop_and_resize(seen.image, square, self._size_px)
        return FramedFrame(image, True, cut, False, seen.index, seen.time)

    # --- bookkeeping --------------------------------------------------------------------------------------

    def _note_square(self, square: Square, first_frame: int) -> bool:
        """Report a shot's square; return True if it follows another shot."""
        cut = self._shots > 0
        self._shots += 1
        self.report.cuts += cut
        if len(self.report.squares) < self._config.reported_squares:
            self.report.squares.append(ShotSquare(first_frame, square.x, square.y, square.side_px))
        return cut

    def _no_face_at_all(self) -> FaceNotFoundError:
        return FaceNotFoundError(
            f"no face found in the first {len(self._leading)} frames of the driving clip: use a clip that shows "
            "one from the start, or --framing center to take its middle as it is"
        )


def _need(detector: FaceDetector | None) -> FaceDetector:
    if detector is None:
        raise ValueError("framing 'auto' needs a face detector")
    return detector
