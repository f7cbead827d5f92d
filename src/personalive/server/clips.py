"""A clip that drives a session as a camera would: its frames at their times, from a thread of its own."""

from __future__ import annotations

import threading
from pathlib import Path

from personalive.config import LiveConfig
from personalive.errors import PersonaLiveError
from personalive.media import open_video
from personalive.server.errors import RefusedError
from personalive.server.mailboxes import DrivingFrame
from personalive.server.session import Driver, Session
from personalive.vision.resize import shrink_to

_PAUSED_S = 0.1  # how often a paused clip looks whether it may go on


class ClipPlayer:
    """Plays until stopped, the session ends, or the clip does. Where the session is paused the clip waits."""

    driver: Driver = "clip"

    def __init__(self, path: Path, session: Session, *, loop: bool) -> None:
        """
        Raises:
            InputError: not a video that can be read.
        """
        self._path, self._session, self.loop = path, session, loop
        with open_video(path) as reader:
            info = reader.info
            next(iter(reader))  # an unreadable clip is refused now
        self.fps = round(float(info.average_fps), 3)
        self.duration_s = None if info.duration_s is None else round(float(info.duration_s), 3)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._played_s = 0.0  # of all rounds

    def start(self) -> None:
        """Play from the beginning."""
        self.stop()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="personalive-clip", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more frames."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        try:
            while self._play_once() and self.loop:
                pass
        except PersonaLiveError as error:
            self._session.tell(RefusedError("unusable_input", f"the clip: {error}").message())

    def _play_once(self) -> bool:
        """One round; whether to go on."""
        session, clock = self._session, self._session.clock
        begun, first, last = clock(), self._played_s, 0.0
        with open_video(self._path) as reader:
            for frame in reader:
                time_s = float(frame.time)
                while not session.playing and self._going():
                    self._stop.wait(_PAUSED_S)
                    begun = clock() - time_s
                self._stop.wait(max(begun + time_s - clock(), 0.0))
                if not self._going():
                    return False
                image = shrink_to(frame.image, LiveConfig.clip_side_px)
                capture_us = int(1e6 * (first + time_s))
                session.push(DrivingFrame(0, capture_us, clock(), lambda image=image: image), "clip")
                last = time_s + float(frame.duration)
        self._played_s = first + last
        return True

    def _going(self) -> bool:
        return not self._stop.is_set() and self._session.ended is None
