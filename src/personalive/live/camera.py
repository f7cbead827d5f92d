"""One live session without a server: a camera or clip drives a portrait, the result goes to an outlet."""

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
from personalive.live.config import LiveConfig, SinkConfig
from personalive.live.controls import LiveControls
from personalive.live.frames import FinishedFrame
from personalive.live.players import ClipPlayer, MotionPlayer
from personalive.live.session import Session
from personalive.live.sinks import Sink, open_sink
from personalive.live.sources import LiveSource, is_camera
from personalive.live.worker import Worker
from personalive.media import load_still
from personalive.offline.motion_file import is_motion_file, load_motion_file
from personalive.vision.resize import Square, crop_and_resize

_LOOK_S = 0.2
_RECENT = 100


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """What drives whom, and where to."""

    portrait: Path
    source: str  # number of a camera, an address, a clip or a template
    target: str  # see ``open_sink``
    size_px: int | None = None  # side of the pictures that are sent; None: the model's
    seconds: float | None = None  # end after so long
    controls: LiveControls = field(default_factory=LiveControls)


@dataclass(frozen=True, kw_only=True)
class CameraProgress:
    """How it goes."""

    frames: int  # sent
    seconds: float
    fps: float
    delay_ms: float | None  # from the driving frame's arrival to its being sent, median of the last frames


def run_camera(
    worker: Worker,
    options: CameraOptions,
    say: Callable[[CameraProgress], None],
    loading: Callable[[str, float], None] | None = None,
) -> CameraProgress:
    """Run until ``seconds`` are over, the source ends, or an interruption; what was sent is whole in any case.

    Args:
        say: told how it goes, after every picture.
        loading: told what is being done until the model is there, and the share of it that is done.

    Raises:
        PersonaLiveError: inputs that cannot be used, an outlet that is gone, a model that does not load.
    """
    local = _Local(worker, options, load_still(options.portrait), say, loading)
    with suppress(KeyboardInterrupt):  # how one ends it
        asyncio.run(local.run())
    return local.progress()


class _Local:
    def __init__(
        self,
        worker: Worker,
        options: CameraOptions,
        picture: np.ndarray,
        say: Callable[[CameraProgress], None],
        loading: Callable[[str, float], None] | None,
    ) -> None:
        self._worker, self._options, self._picture = worker, options, picture
        self._say, self._loading = say, loading
        self._frames, self._begun_s = 0, 0.0
        self._delays: deque[float] = deque(maxlen=_RECENT)

    async def run(self) -> None:
        """From loading to the last frame."""
        self._worker.start()
        try:
            await self._loaded()
            with tempfile.TemporaryDirectory(prefix="personalive-") as folder:
                session = Session(
                    folder=Path(folder),
                    loop=asyncio.get_running_loop(),
                    clock=time.monotonic,
                    config=LiveConfig(),
                )
                session.controls = self._options.controls
                self._worker.add_session(session)
                try:
                    await self._perform(session)
                finally:
                    session.end("over")
        finally:
            await asyncio.to_thread(self._worker.stop)

    async def _loaded(self) -> None:
        while self._worker.state == "loading":
            self._worker.check()
            if self._loading is not None and (share := self._worker.progress) is not None:
                self._loading(self._worker.message, share)
            await asyncio.sleep(_LOOK_S)
        if self._worker.state != "ready":
            raise DeviceError(self._worker.message)

    async def _perform(self, session: Session) -> None:
        engine = self._worker.engine
        assert engine is not None
        await session.run_on_worker(lambda stream: stream.set_portrait(self._picture, session.controls.seed))
        source = await self._source(session)
        size_px = self._options.size_px or engine.image_size
        outlet = open_sink(self._options.target, size_px, SinkConfig())
        try:
            source.start()
            await self._send(session, source, outlet, size_px)
        finally:
            source.stop()
            await asyncio.to_thread(outlet.close)

    async def _source(self, session: Session) -> LiveSource | ClipPlayer | MotionPlayer:
        source = self._options.source
        if is_camera(source) or "://" in source:
            return await asyncio.to_thread(LiveSource, source, session)
        path = Path(source)
        if is_motion_file(path):
            template = load_motion_file(path)
            player = MotionPlayer(
                await session.run_on_worker(lambda stream: stream.fit_motion(template)), session, loop=True
            )
        else:
            player = ClipPlayer(path, session, loop=True)
        session.driver = player.driver
        return player

    async def _send(self, session: Session, source: object, outlet: Sink, size_px: int) -> None:
        viewer = session.add_viewer()
        next_frame = asyncio.ensure_future(viewer.get(session.clock))
        self._begun_s = session.clock()
        try:
            while not self._over(session, source):
                self._worker.check()
                done, _ = await asyncio.wait([next_frame], timeout=_LOOK_S)
                if not done:
                    continue
                frame = next_frame.result()
                if frame is None:
                    raise InputError(session.ended or "the stream ended")
                next_frame = asyncio.ensure_future(viewer.get(session.clock))
                await asyncio.to_thread(self._put, frame, outlet, size_px, session.clock())
        finally:
            next_frame.cancel()
            session.remove_viewer(viewer)

    def _put(self, frame: FinishedFrame, outlet: Sink, size_px: int, now: float) -> None:
        if not self._frames:
            self._begun_s = now
        image = crop_and_resize(frame.image, Square(0, 0, frame.image.shape[0]), size_px)
        outlet.send(image, now - self._begun_s)
        times = frame.header.times
        self._frames += 1
        if times.window_ms:
            self._delays.append(times.queue_ms + times.window_ms + times.compute_ms + 1e3 * (now - frame.done_s))
        self._say(self.progress())

    def _over(self, session: Session, source: object) -> bool:
        """Whether it is enough.

        Raises:
            PersonaLiveError: the source has ended by itself.
        """
        if self._options.seconds is not None and session.clock() - self._begun_s >= self._options.seconds:
            return self._frames > 0
        if isinstance(source, LiveSource) and source.ended is not None:
            raise PersonaLiveError(f"{self._options.source}: no more pictures come from it ({source.ended})")
        return False

    def progress(self) -> CameraProgress:
        """How it went so far."""
        seconds = time.monotonic() - self._begun_s if self._frames else 0.0
        return CameraProgress(
            frames=self._frames,
            seconds=seconds,
            fps=self._frames / seconds if seconds else 0.0,
            delay_ms=median(self._delays) if self._delays else None,
        )
