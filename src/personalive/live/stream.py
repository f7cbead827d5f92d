"""Stream of one session: driving frames in, a portrait's paced frames out.

For the worker's thread alone. F frames of a chunk, S side of the images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from personalive.engine.base import BaseEngine
from personalive.engine.state import Motion, StreamState
from personalive.errors import InputError
from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.frames import Clock, DrivingFrame, FinishedFrame, FinishedHeader, StageTimes
from personalive.live.pacer import Pacer
from personalive.live.recording import Recording
from personalive.live.resampling import Pick, resample
from personalive.offline.motion_file import MotionClip, fit_motion_clip
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector, find_detector
from personalive.vision.framing import DrivingFramer, Framed, frame_portrait
from personalive.vision.one_euro import OneEuro, calm_poses
from personalive.vision.paste_back import PasteBack
from personalive.vision.resize import resize_portrait, shrink_to
from personalive.vision.visible_mark import draw_visible_mark


@dataclass(frozen=True, slots=True)
class _Origin:
    """Driving frame that a frame in flight comes from."""

    sequence: int
    capture_us: int
    received_s: float
    entered_s: float  # start of the call that it entered in


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Driving frame's motion, one frame of it."""

    motion: Motion
    origin: _Origin

    @property
    def time_s(self) -> float:
        """Capture time by the driver's clock."""
        return self.origin.capture_us / 1e6


def frame_live_portrait(
    engine: BaseEngine, image: np.ndarray, detector: FaceDetector, *, center_fallback: bool
) -> Framed:
    """Crop a portrait as ``LiveStream`` does, on any thread with a detector of its own.

    Raises:
        InputError: no face in it, or not a usable image.
    """
    return frame_portrait(
        image, detector, "auto", allow_center_fallback=center_fallback, config=_framing_config(engine)
    )


def _framing_config(engine: BaseEngine) -> FramingConfig:
    scale = engine.config.framing_scale
    return FramingConfig(portrait_scale=scale, driving_scale=scale)


class LiveStream:
    """Engine state of one session, and the origins of its frames in flight."""

    def __init__(
        self,
        engine: BaseEngine,
        *,
        center_fallback: bool,
        clock: Clock,
        config: LiveConfig,
        detector: FaceDetector | None = None,
    ) -> None:
        """
        Args:
            center_fallback: crop images without a face to the centre (for models of synthetic heads).
            detector: of faces, shared with other streams of this thread; None: one of its own.
        """
        self._engine, self._fallback = engine, center_fallback
        self._clock, self._config = clock, config
        self._detector = detector or find_detector(engine.folder)
        self._framer = self._new_framer()
        self._state: StreamState | None = None
        self._framed: Framed | None = None  # the portrait
        self._portrait: np.ndarray | None = None  # its square at the model's size
        self._paste_back: PasteBack | None = None  # into the photograph, once that is shown
        self._steps: int | None = None  # of denoising, as they were asked for
        self.image: np.ndarray | None = None  # the portrait as it was sent
        self._in_flight: deque[_Origin | None] = deque()
        self._last: _Encoded | None = None  # newest driving frame of the chunk before
        self._filter: OneEuro | None = None  # of the driver's head poses
        self._pacer = Pacer(engine.chunk_frames, config)
        self.index = 0  # of the next finished frame
        self.generation = 0  # counts the portraits
        self.face: bool | None = None  # found in the newest driving frame; None before any
        self._recording: Recording | None = None  # under way
        self._recorded: Recording | None = None  # the newest

    def continue_from(self, before: LiveStream) -> None:
        """Count portraits and frames on from the stream of an engine before, and keep its recording."""
        self.generation, self.index, self._recorded = before.generation, before.index, before._recorded

    @property
    def ready(self) -> bool:
        """True once there is a portrait."""
        return self._state is not None

    @property
    def started(self) -> bool:
        """True once there is motion that could be repeated."""
        return self._last is not None

    @property
    def keyframes(self) -> int:
        """Number of stored keyframes."""
        return self._state.keyframes if self._state else 0

    @property
    def warmup_frames(self) -> int:
        """Number of frames in flight between two chunks."""
        return self._state.warmup_frames if self._state else self._engine.warmup_frames

    def set_portrait(self, image: np.ndarray, controls: LiveControls, framed: Framed | None = None) -> str:
        """Begin with another portrait (H, W, 3) uint8 RGB; return a note on it and its framing, mostly empty.

        Args:
            framed: what ``frame_live_portrait`` made of it; None: made here.

        Raises:
            InputError: no face in it, not a usable image, or steps that the model lacks. The portrait before stays.
        """
        framed = framed or frame_live_portrait(self._engine, image, self._detector, center_fallback=self._fallback)
        self._start(framed.image, controls)
        self.image, self._framed, self._paste_back = image, framed, None
        self._portrait = resize_portrait(framed.image, self._engine.image_size)
        notes = [note.removeprefix("portrait: ") for note in self._engine.notes(self._state)]
        return "; ".join([*filter(None, [framed.note]), *notes])

    def _start(self, framed: np.ndarray, controls: LiveControls) -> None:
        state = self._engine.start(framed, seed=controls.seed, steps=controls.steps or self._engine.live_steps)
        self._state, self._steps = state, controls.steps
        self._in_flight = deque([None] * state.warmup_frames)
        self.generation += 1

    def change_driver(self) -> None:
        """Begin with another camera, clip or motion file, which is framed anew and has a clock of its own."""
        self._framer, self._last, self._filter, self.face = self._new_framer(), None, None, None
        self._recording = None

    @property
    def recording(self) -> bool:
        """True while motion is recorded."""
        return self._recording is not None

    def set_recording(self, on: bool) -> None:
        """Begin or end a recording of the motion."""
        self._recording = Recording(self._config) if on else None
        self._recorded = self._recording or self._recorded

    def recorded_motion(self) -> MotionClip:
        """Return the newest recording.

        Raises:
            InputError: there is none.
        """
        if self._recorded is None:
            raise InputError("no motion was recorded: begin a recording first")
        return self._recorded.to_clip(self._engine)

    def fit_motion(self, clip: MotionClip) -> MotionClip:
        """Prepare a motion file for this model.

        Raises:
            InputError: another model encoded it.
        """
        return fit_motion_clip(clip, self._engine, "the motion file")

    def check(self, controls: LiveControls) -> None:
        """Refuse controls that this model cannot follow, and prepare those that it can.

        Raises:
            InputError: mouth or eyes are changed, and the model does not tell them apart; steps that it lacks.
        """
        self._engine.check_steps(controls.steps)
        self._engine.check(controls)

    def step(self, frames: Sequence[DrivingFrame], controls: LiveControls, *, neutral: bool) -> list[FinishedFrame]:
        """Make one chunk.

        Args:
            frames: new driving frames, oldest first; none repeats the last motion.
            neutral: take the first of them as the driver's neutral pose and place.

        Raises:
            InputError: no portrait, or no driving frame that can be decoded.
        """
        if self._state is None or self._framed is None:
            raise InputError("no portrait yet: send one first")
        started = self._clock()
        if controls.steps != self._steps:
            self._start(self._framed.image, controls)
        motion, origins, cuts = self._drive(frames, controls, started)
        last_cut = max((place for place, is_cut in enumerate(cuts) if is_cut), default=0 if neutral else None)
        state = replace(self._state, keyframe_threshold=controls.threshold, seed=controls.seed)
        self._state, images = self._engine.step(state, motion, cut=last_cut, controls=controls)
        self._in_flight.extend(origins)
        done = self._clock()
        return [
            self._finish(image, self._in_flight.popleft(), started, done, show_at, controls)
            for image, show_at in zip(images.numpy(), self._pacer.times(started, done), strict=True)
        ]

    # --- driving frames to motion -------------------------------------------------------------------------

    def _drive(
        self, frames: Sequence[DrivingFrame], controls: LiveControls, started: float
    ) -> tuple[Motion, list[_Origin], list[bool]]:
        """Return a chunk's motion, the origin of each of its frames, and which of them begin a new shot."""
        times = [frame.capture_us / 1e6 for frame in frames]
        picks = resample(times, None if self._last is None else self._last.time_s, self._engine.chunk_frames)
        encoded, shots = self._encode(frames, picks, controls.mirror)
        known = {} if self._last is None else {0: self._last}
        for number, motion in encoded.items():
            frame = frames[number - 1]
            known[number] = _Encoded(motion, _Origin(frame.sequence, frame.capture_us, frame.received_s, started))
        if not known:
            raise InputError("the driving frames cannot be decoded")
        picks = [_nearest_pick(pick, known) for pick in picks]
        motion = _blend([known[p.low].motion for p in picks], [known[p.high].motion for p in picks], picks)
        nearest = [pick.nearest for pick in picks]
        cuts = [number in shots and number not in nearest[:place] for place, number in enumerate(nearest)]
        self._last = known[max(known)]
        if self._recording is not None:
            self._recording.add(self._last.time_s, motion, cuts)
        return motion, [replace(known[number].origin, entered_s=started) for number in nearest], cuts

    def _encode(
        self, frames: Sequence[DrivingFrame], picks: Sequence[Pick], mirror: bool
    ) -> tuple[dict[int, Motion], set[int]]:
        """Encode the frames that are picked and can be decoded, by number from 1; and those that begin a new shot."""
        motions: dict[int, Motion] = {}
        images: dict[int, np.ndarray] = {}
        shots: set[int] = set()
        for number in sorted({number for pick in picks for number in (pick.low, pick.high)} - {0}):
            content = frames[number - 1].content
            if isinstance(content, Motion):
                motions[number] = content
                continue
            try:
                image = content()
            except InputError:
                continue  # damaged: its neighbours stand in
            framed = self._framer.push(np.ascontiguousarray(image[:, ::-1]) if mirror else image)[-1]
            self.face = framed.face_found
            images[number] = self._portrait if framed.neutral and self._portrait is not None else framed.image
            if framed.cut:
                shots.add(number)
        if images:
            encoded = self._calm(self._engine.encode_motion(np.stack(list(images.values()))), list(images), shots)
            motions |= {number: encoded[place : place + 1] for place, number in enumerate(images)}
        return motions, shots

    def _calm(self, motion: Motion, numbers: Sequence[int], shots: Collection[int]) -> Motion:
        """Take the trembling out of the head's pose (ours), unless the engine does."""
        if self._engine.filters_motion:
            return motion
        cuts = [place for place, number in enumerate(numbers) if number in shots]
        poses, self._filter = calm_poses(motion.poses, self._filter, cuts)
        return Motion(motion.tokens, poses)

    def _new_framer(self) -> DrivingFramer:
        return DrivingFramer(
            self._detector,
            "auto",
            "hold",
            self._engine.image_size,
            live=True,
            allow_center_fallback=self._fallback,
            config=_framing_config(self._engine),
        )

    # --- frames out ---------------------------------------------------------------------------------------

    def _finish(
        self,
        image: np.ndarray,
        origin: _Origin | None,
        started: float,
        done: float,
        show_at: float,
        controls: LiveControls,
    ) -> FinishedFrame:
        queue = window = 0.0
        sequence = capture_us = 0  # of the ease-in, which comes from no driving frame
        if origin is not None:
            sequence = origin.sequence
            capture_us = origin.capture_us if sequence else 0  # of clips: not the client's clock
            queue, window = origin.entered_s - origin.received_s, started - origin.entered_s
            show_at = max(show_at, origin.received_s + controls.delay_ms / 1e3)
        times = StageTimes(*(1e3 * seconds for seconds in (queue, window, done - started, show_at - done)))
        header = FinishedHeader(sequence, capture_us, self.generation, self.index, times)
        self.index += 1
        if controls.output_frame == "portrait":
            image = self._whole_photograph().put_back(image)
        image = draw_visible_mark(image) if controls.visible_mark else image
        return FinishedFrame(header, image, done, show_at)

    def frame_size_px(self, controls: LiveControls) -> tuple[int, int]:
        """Width and height of finished frames; there is a portrait."""
        if controls.output_frame == "square":
            return self._engine.image_size, self._engine.image_size
        whole = self._whole_photograph()
        return whole.width, whole.height

    def _whole_photograph(self) -> PasteBack:
        if self._paste_back is None:
            assert self.image is not None and self._framed is not None and self._portrait is not None
            photograph = shrink_to(self.image, self._config.photograph_side_px)
            framed = self._framed.scaled(photograph.shape[0] / self.image.shape[0])
            self._paste_back = PasteBack(photograph, framed, self._portrait)
        return self._paste_back


def _nearest_pick(pick: Pick, known: Collection[int]) -> Pick:
    """Replace frames that could not be decoded by the nearest that could."""
    low, high = (min(sorted(known), key=lambda number: abs(number - wanted)) for wanted in (pick.low, pick.high))
    return Pick(low, high, pick.weight)


def _blend(low: Sequence[Motion], high: Sequence[Motion], picks: Sequence[Pick]) -> Motion:
    count = len(picks)
    both = Motion.cat([*low, *high])
    if all(pick.low == pick.high for pick in picks):
        return both[:count]
    weights = torch.tensor([pick.weight for pick in picks], device=both.tokens.device)
    first = torch.arange(count, device=both.tokens.device)
    return both.between(first, first + count, weights)
