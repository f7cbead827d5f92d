"""Live session without a server: a camera, clip or motion file drives a portrait, and the result goes to a sink."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from personalive.errors import DeviceError, InputError, PersonaLiveError
from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.frames import FinishedFrame
from personalive.live.players import ClipPlayer, MotionPlayer
from personalive.live.session import Session
from personalive.live.sinks import Sink, open_sink
from personalive.live.sources import LiveSource, is_camera
from personalive.live.worker import Worker
from personalive.media.credentials import check_signer
from personalive.media.still import load_still
from personalive.offline.motion_file import is_motion_file, load_motion_file
from personalive.offline.provenance import origin_of
from personalive.vision.resize import Square, crop_and_resize

_POLL_S = 0.2
_DELAYS = 100  # of the last frames, for their median


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """Portrait, driver and sink of a session."""

    portrait: Path
    source: str  # number of a camera, an address, a clip or a motion file
    target: str  # see ``open_sink``
    size_px: int | None = None  # side of the squares that are sent; None: the model's
    seconds: float | None = None  # duration; None: until interrupted
    controls: LiveControls = field(default_factory=LiveControls)
    credentials: bool = True  # sign a video file

    def __post_init__(self) -> None:
        if self.size_px is not None and self.controls.output_frame == "portrait":
            raise InputError("the whole photograph is sent at its own size: leave out the size, or choose the square")


@dataclass(frozen=True, kw_only=True)
class CameraProgress:
    """Frames sent so far, and their rate and delay."""

    frames: int
    seconds: float
    fps: float
    delay_ms: float | None  # from a driving frame's arrival to its result's sending, median of the last frames


def run_camera(
    worker: Worker,
    options: CameraOptions,
    on_progress: Callable[[CameraProgress], None],
    on_loading: Callable[[str, float], None] | None = None,
) -> CameraProgress:
    """Run until ``seconds`` are over, the source ends, or Ctrl-C; a file is complete in any case.

    Args:
        on_progress: called after every frame.
        on_loading: called with the work and its progress, 0 to 1, until the model is loaded.

    Raises:
        PersonaLiveError: unusable inputs, a sink that is gone, a model that does not load.
    """
    if options.credentials:
        check_signer()
    run = _CameraRun(worker, options, load_still(options.portrait), on_progress, on_loading)
    with suppress(KeyboardInterrupt):  # the usual end
        asyncio.run(run.run())
    return run.progress()


class _CameraRun:
    def __init__(
        self,
        worker: Worker,
        options: CameraOptions,
        portrait: np.ndarray,
        on_progress: Callable[[CameraProgress], None],
        on_loading: Callable[[str, float], None] | None,
    ) -> None:
        self._worker, self._options, self._portrait = worker, options, portrait
        self._on_progress, self._on_loading = on_progress, on_loading
        self._frames, self._started_s = 0, 0.0
        self._delays: deque[float] = deque(maxlen=_DELAYS)

    async def run(self) -> None:
        """Load the model and run the session."""
        self._worker.start()
        try:
            await self._wait_for_model()
            with tempfile.TemporaryDirectory(prefix="personalive-") as folder:
                session = Session(
                    folder=Path(folder),
                    loop=asyncio.get_running_loop(),
                    clock=time.monotonic,
                    config=LiveConfig(),
                    controls=self._options.controls,
                )
                self._worker.add_session(session)
                try:
                    await self._run_session(session)
                finally:
                    session.end("over")
        finally:
            await asyncio.to_thread(self._worker.stop)

    async def _wait_for_model(self) -> None:
        while self._worker.state == "loading":
            self._worker.check()
            if self._on_loading is not None and (share := self._worker.progress) is not None:
                self._on_loading(self._worker.message, share)
            await asyncio.sleep(_POLL_S)
        if self._worker.state != "ready":
            raise DeviceError(self._worker.message)

    async def _run_session(self, session: Session) -> None:
        engine = self._worker.engine
        assert engine is not None
        await session.run_on_worker(lambda stream: stream.set_portrait(self._portrait, session.controls))
        source = await self._open_source(session)
        size_px = await session.run_on_worker(lambda stream: stream.frame_size_px(session.controls))
        if (side_px := self._options.size_px) is not None:
            size_px = side_px, side_px
        origin = await asyncio.to_thread(origin_of, engine) if self._options.credentials else None
        sink = open_sink(self._options.target, size_px, origin=origin)
        try:
            source.start()
            await self._send_frames(session, source, sink)
        finally:
            source.stop()
            await asyncio.to_thread(sink.close)

    async def _open_source(self, session: Session) -> LiveSource | ClipPlayer | MotionPlayer:
        source = self._options.source
        if is_camera(source) or "://" in source:
            return await asyncio.to_thread(LiveSource, source, session)
        path = Path(source)
        if is_motion_file(path):
            clip = load_motion_file(path)
            fitted = await session.run_on_worker(lambda stream: stream.fit_motion(clip))
            player = MotionPlayer(fitted, session, loop=True)
        else:
            player = ClipPlayer(path, session, loop=True)
        session.driver = player.driver
        return player

    async def _send_frames(self, session: Session, source: object, sink: Sink) -> None:
        viewer = session.add_viewer()
        next_frame = asyncio.ensure_future(viewer.get(session.clock))
        self._started_s = session.clock()
        try:
            while not self._is_over(session, source):
                self._worker.check()
                done, _ = await asyncio.wait([next_frame], timeout=_POLL_S)
                if not done:
                    continue
                frame = next_frame.result()
                if frame is None:
                    raise InputError(session.ended or "the stream ended")
                next_frame = asyncio.ensure_future(viewer.get(session.clock))
                await asyncio.to_thread(self._send, frame, sink, session.clock())
        finally:
            next_frame.cancel()
            session.remove_viewer(viewer)

    def _send(self, frame: FinishedFrame, sink: Sink, now: float) -> None:
        if not self._frames:
            self._started_s = now
        image = frame.image
        if self._options.size_px is not None:
            image = crop_and_resize(image, Square(0, 0, image.shape[0]), self._options.size_px)
        sink.send(image, now - self._started_s)
        times = frame.header.times
        self._frames += 1
        if times.of_driver:
            self._delays.append(times.queue_ms + times.window_ms + times.compute_ms + 1e3 * (now - frame.done_s))
        self._on_progress(self.progress())

    def _is_over(self, session: Session, source: object) -> bool:
        """Return True after ``seconds``.

        Raises:
            PersonaLiveError: the source has ended by itself.
        """
        if self._options.seconds is not None and session.clock() - self._started_s >= self._options.seconds:
            return self._frames > 0
        if isinstance(source, LiveSource) and source.ended is not None:
            raise PersonaLiveError(f"{self._options.source}: no more frames come from it ({source.ended})")
        return False

    def progress(self) -> CameraProgress:
        """Return the progress so far."""
        seconds = time.monotonic() - self._started_s if self._frames else 0.0
        return CameraProgress(
            frames=self._frames,
            seconds=seconds,
            fps=self._frames / seconds if seconds else 0.0,
            delay_ms=median(self._delays) if self._delays else None,
        )
