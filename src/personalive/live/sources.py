"""Driving frames without a browser: from a camera of this machine, or an address that sends video."""

from __future__ import annotations

import sys
import threading
from typing import Any

import av
from av.error import FFmpegError

from personalive.errors import InputError
from personalive.live.frames import DrivingFrame
from personalive.live.session import Session
from personalive.media.paths import reason

_CAMERAS = {  # by platform: the device's format, and its name by number
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}
_TIMEOUT_S = 10.0


def is_camera(source: str) -> bool:
    """Return True for the name of a camera: a number, or Windows' ``video=Name``."""
    return source.isdecimal() or source.startswith("video=")


class LiveSource:
    """Thread that pushes the frames of a camera or an address to a session as they come."""

    def __init__(self, source: str, session: Session) -> None:
        """
        Raises:
            InputError: it cannot be opened.
        """
        self._source, self._session = source, session
        self._stop = threading.Event()
        self.ended: str | None = None  # the reason, once it has
        try:
            self._input: Any = _open(source)
            self._video = self._input.streams.video[0]
        except (FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{source}: no frames come from it ({reason(error)}): {_hint(source)}") from None
        except IndexError:
            raise InputError(f"{source}: sends no video") from None
        self._thread = threading.Thread(target=self._run, name="personalive-source", daemon=True)

    def start(self) -> None:
        """Begin to push frames."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until no more frames come."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_TIMEOUT_S)

    def _run(self) -> None:
        session = self._session
        try:
            for number, frame in enumerate(self._input.decode(self._video), start=1):
                if self._stop.is_set() or session.ended is not None:
                    break
                now = session.clock()
                content = lambda frame=frame: frame.to_ndarray(format="rgb24")  # noqa: E731
                session.push(DrivingFrame(number, int(1e6 * now), now, content), "camera")
            self.ended = "it ended"
        except (FFmpegError, OSError) as error:
            self.ended = reason(error)
        finally:
            self._input.close()


def _open(source: str) -> Any:
    if not is_camera(source):
        return av.open(source, timeout=_TIMEOUT_S)
    kind, name = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    return av.open(name.format(source.removeprefix("video=")), format=kind)


def _hint(source: str) -> str:
    return "is the camera there, and free?" if is_camera(source) else "is the sender running, the address right?"
