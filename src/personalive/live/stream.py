"""One session's stream as the worker sees it: portrait on stage, driving frames in, paced frames out.

Used from the worker's thread alone. F frames of a chunk, S picture side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from personalive.engine.engine import Engine
from personalive.engine.state import Motion, StreamState
from personalive.errors import InputError
from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.frames import Clock, DrivingFrame, FinishedFrame, FinishedHeader, StageTimes
from personalive.live.recording import Recording
from personalive.live.resampling import Pick, sample
from personalive.offline.motion_file import MotionClip, fit_motion_clip
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceDetector, find_detector
from personalive.vision.framing import DrivingFramer, frame_portrait
from personalive.vision.resize import resize_portrait


@dataclass(frozen=True, slots=True)
class _Entered:
    """A driving frame in flight."""

    sequence: int
    capture_us: int
    received_s: float
    taken_s: float  # when the call that took it in began


@dataclass(frozen=True, slots=True)
class _Read:
    """The newest driving frame of the chunk before: what the next one starts from."""

    motion: Motion  # one frame
    entered: _Entered
    time_s: float  # by the driver's clock


class LiveStream:
    """Holds the engine's state for one session, and what its frames in flight came from."""

    def __init__(self, engine: Engine, *, center_fallback: bool, clock: Clock, config: LiveConfig) -> None:
        """
        Args:
            center_fallback: pictures without a face are taken by their middle (for a model of drawn heads).
        """
        self._engine, self._fallback = engine, center_fallback
        self._clock, self._config = clock, config
        scale = engine.config.framing_scale
        self._framing = FramingConfig(portrait_scale=scale, driving_scale=scale)
        self._detector: FaceDetector = find_detector(engine.folder)
        self._framer = self._new_framer()
        self._state: StreamState | None = None
        self._portrait: np.ndarray | None = None  # as the model sees it
        self.picture: np.ndarray | None = None  # as it was given
        self._flight: deque[_Entered | None] = deque()
        self._last: _Read | None = None
        self._pacer = Pacer(engine.chunk_frames, config)
        self.index = 0  # of the next finished frame
        self.generation = 0
        self.face: bool | None = None  # whether the newest driving frame showed one; None before any
        self._recording: Recording | None = None  # under way
        self._recorded: Recording | None = None  # the newest

    @property
    def ready(self) -> bool:
        """Whether a portrait is on stage."""
        return self._state is not None

    @property
    def started(self) -> bool:
        """Whether there is motion that could be repeated."""
        return self._last is not None

    @property
    def keyframes(self) -> int:
        """Stored by now."""
        return self._state.keyframes if self._state else 0

    def set_portrait(self, picture: np.ndarray, seed: int) -> str:
        """Put a portrait (H, W, 3) uint8 RGB on stage; returns a remark on how it was framed, mostly none.

        Raises:
            InputError: no face in it, or not a usable picture. The portrait before stays on stage.
        """
        framed = frame_portrait(
            picture, self._detector, "auto", allow_center_fallback=self._fallback, config=self._framing
        )
        self._state = self._engine.start(framed.image, seed=seed)
        self.picture = picture
        self._portrait = resize_portrait(framed.image, self._engine.image_size)
        self._flight = deque([None] * self._engine.warmup_frames)
        self.generation += 1
        return framed.note

    def change_driver(self) -> None:
        """Another camera, clip or template begins: it is framed anew, and its clock is its own."""
        self._framer, self._last, self.face = self._new_framer(), None, None
        self._recording = None  # its clock has ended

    @property
    def recording(self) -> bool:
        """Whether motion is being kept."""
        return self._recording is not None

    def set_recording(self, wanted: bool) -> None:
        """Begin to keep the motion, or end it."""
        if wanted:
            self._recorded = self._recording = Recording(self._config)
        else:
            self._recording = None

    def recorded_motion(self) -> MotionClip:
        """What was kept last.

        Raises:
            InputError: nothing was.
        """
        if self._recorded is None:
            raise InputError("no motion was recorded: begin a recording first")
        return self._recorded.template(self._engine)

    def fit_motion(self, template: MotionClip) -> MotionClip:
        """A template as this model replays it.

        Raises:
            InputError: another model read it.
        """
        return fit_motion_clip(template, self._engine, "the template")

    def check(self, controls: LiveControls) -> None:
        """Refuse controls that this model cannot follow, and prepare what they need.

        Raises:
            InputError: mouth or eyes are turned, and the model does not tell them apart.
        """
        self._engine.conditioner.check(controls)

    def step(self, frames: Sequence[DrivingFrame], controls: LiveControls, *, neutral: bool) -> list[FinishedFrame]:
        """Make one chunk.

        Args:
            frames: new driving frames, oldest first; none repeats the last motion.
            neutral: measure the driver's pose and place anew from the first of them.

        Raises:
            InputError: nothing to drive with: no portrait, or the first frames cannot be read.
        """
        if self._state is None:
            raise InputError("no portrait yet: send one first")
        begun = self._clock()
        motion, entered, cuts = self._motion(frames, controls, begun)
        marked = [place for place, cut in enumerate(cuts) if cut]
        cut = marked[-1] if marked else (0 if neutral else None)
        state = replace(self._state, keyframe_threshold=controls.threshold, seed=controls.seed)
        self._state, pictures = self._engine.step(state, motion, cut=cut, controls=controls)
        self._flight.extend(entered)
        done = self._clock()
        shown = self._pacer.times(begun, done)
        return [
            self._finished(picture, self._flight.popleft(), begun, done, show_at, controls.delay_ms)
            for picture, show_at in zip(pictures.numpy(), shown, strict=True)
        ]

    # --- driving frames to motion -------------------------------------------------------------------------

    def _motion(
        self, frames: Sequence[DrivingFrame], controls: LiveControls, begun: float
    ) -> tuple[Motion, list[_Entered], list[bool]]:
        """What this chunk is driven by, where its frames came from, and which begin a new shot."""
        last = self._last
        times = [frame.capture_us / 1e6 for frame in frames]
        picks = sample(times, None if last is None else last.time_s, self._engine.chunk_frames)
        read, cut = self._read(frames, picks, controls.mirror)
        if not read and last is None:
            raise InputError("the driving frames cannot be read as pictures")
        picks = [_among(pick, read, has_last=last is not None) for pick in picks]
        known = {
            number: _Read(motion, _entered(frames[number - 1], begun), times[number - 1])
            for number, motion in read.items()
        }
        if last is not None:
            known[0] = last
        motion = _blended([known[p.low].motion for p in picks], [known[p.high].motion for p in picks], picks)
        nearest = [pick.nearest for pick in picks]
        cuts = [number in cut and number not in nearest[:place] for place, number in enumerate(nearest)]
        newest = known[max(known)]
        self._last = newest
        if self._recording is not None:
            self._recording.add(newest.time_s, motion, cuts)
        return motion, [replace(known[number].entered, taken_s=begun) for number in nearest], cuts

    def _read(
        self, frames: Sequence[DrivingFrame], picks: Sequence[Pick], mirror: bool
    ) -> tuple[dict[int, Motion], set[int]]:
        """Motion of each frame that is needed and can be read, by number from 1, and which of them begin a shot."""
        needed = sorted({number for pick in picks for number in (pick.low, pick.high) if number})
        found: dict[int, Motion] = {}
        pictures: dict[int, np.ndarray] = {}
        cut: set[int] = set()
        for number in needed:
            content = frames[number - 1].content
            if isinstance(content, Motion):
                found[number] = content
                continue
            try:
                image = content()
            except InputError:
                continue  # a damaged picture: its neighbours stand in
            framed = self._framer.push(np.ascontiguousarray(image[:, ::-1]) if mirror else image)[-1]
            self.face = framed.face_found
            pictures[number] = self._portrait if framed.neutral and self._portrait is not None else framed.image
            if framed.cut:
                cut.add(number)
        if pictures:
            motion = self._engine.encode_motion(np.stack(list(pictures.values())))
            found |= {number: motion[place : place + 1] for place, number in enumerate(pictures)}
        return found, cut

    def _new_framer(self) -> DrivingFramer:
        return DrivingFramer(
            self._detector,
            "auto",
            "hold",
            self._engine.image_size,
            live=True,
            allow_center_fallback=self._fallback,
            config=self._framing,
        )

    # --- frames out ---------------------------------------------------------------------------------------

    def _finished(
        self, picture: np.ndarray, source: _Entered | None, begun: float, done: float, show_at: float, delay_ms: float
    ) -> FinishedFrame:
        queue = window = 0.0
        sequence = capture_us = 0  # of the ease-in, which no driving frame stands behind
        if source is not None:
            sequence = source.sequence
            capture_us = source.capture_us if sequence else 0  # else by no clock of the client's
            queue, window = source.taken_s - source.received_s, begun - source.taken_s
            show_at = max(show_at, source.received_s + delay_ms / 1e3)
        times = StageTimes(*(1e3 * seconds for seconds in (queue, window, done - begun, show_at - done)))
        header = FinishedHeader(sequence, capture_us, self.generation, self.index, times)
        self.index += 1
        return FinishedFrame(header, picture, done, show_at)


class Pacer:
    """Spreads the frames of a chunk over the time until the next one, without ever adding a chunk's length.

    Frames that would still be on show when the next chunk is there hold it up by half of that, so that a delay from
    one slow call is worked off over the next ones.
    """

    def __init__(self, count: int, config: LiveConfig) -> None:
        self._count, self._memory, self._silent_s = count, config.rate_memory, config.silent_s
        self._begun: float | None = None
        self._last_shown = float("-inf")
        self.period_s: float | None = None  # estimate of the time between two frames

    def times(self, begun: float, done: float) -> list[float]:
        """When to show the frames of a call that ran from ``begun`` to ``done``."""
        if self._begun is not None and begun - self._begun < self._silent_s:
            period = (begun - self._begun) / self._count
            old = period if self.period_s is None else self.period_s
            self.period_s = self._memory * old + (1 - self._memory) * period
        self._begun = begun
        period = self.period_s or (done - begun) / self._count
        ahead = max(self._last_shown + period - done, 0.0)
        first = done + min(ahead / 2, period * self._count / 2)
        shown = [first + place * period for place in range(self._count)]
        self._last_shown = shown[-1]
        return shown


def _entered(frame: DrivingFrame, begun: float) -> _Entered:
    return _Entered(frame.sequence, frame.capture_us, frame.received_s, begun)


def _among(pick: Pick, read: dict[int, Motion], *, has_last: bool) -> Pick:
    """The pick with frames that could not be read replaced by the nearest that could."""
    known = sorted(read) if not has_last else [0, *sorted(read)]
    low, high = (min(known, key=lambda k: abs(k - n)) for n in (pick.low, pick.high))
    return Pick(low, high, pick.weight)


def _blended(low: Sequence[Motion], high: Sequence[Motion], picks: Sequence[Pick]) -> Motion:
    count = len(picks)
    both = Motion.cat([*low, *high])
    if all(pick.low == pick.high for pick in picks):
        return both[:count]
    weights = torch.tensor([pick.weight for pick in picks], device=both.tokens.device)
    first = torch.arange(count, device=both.tokens.device)
    return both.between(first, first + count, weights)
