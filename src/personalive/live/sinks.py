"""Sinks of finished frames besides browsers: a virtual camera, a streaming address, a video file."""

from __future__ import annotations

from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.error import FFmpegError

from personalive.errors import DeviceError, OutputError
from personalive.live.config import SinkConfig
from personalive.media.credentials import Origin
from personalive.media.paths import reason
from personalive.media.writer import VideoWriter

VIRTUAL = "virtual"
FORMATS = {"rtmp": "flv", "rtmps": "flv", "srt": "mpegts", "udp": "mpegts", "tcp": "mpegts"}  # by scheme
_TICKS_PER_S = 90_000


class Sink(Protocol):
    """Receiver of frames, each sent when it is due."""

    def send(self, image: np.ndarray, time_s: float) -> None:
        """Send a frame (H, W, 3) uint8 RGB, to be shown ``time_s`` after the first.

        Raises:
            OutputError: the receiver is gone.
        """
        ...

    def close(self) -> None:
        """End; a file is complete afterwards."""
        ...


def open_sink(
    target: str, size_px: tuple[int, int], config: SinkConfig | None = None, *, origin: Origin | None = None
) -> Sink:
    """Open the sink that ``target`` names: "virtual", an address such as rtmp://host/key, or a file ending in .mp4.

    Args:
        size_px: width and height of the frames, both even.
        origin: what the content credentials of a file tell; None for a file without any.

    Raises:
        OutputError: it cannot be opened.
        DeviceError: no virtual camera here.
    """
    config = config or SinkConfig()
    if target == VIRTUAL:
        return _VirtualCamera(size_px, config)
    scheme = target.partition("://")[0].lower()
    if scheme in FORMATS:
        return _NetworkStream(target, FORMATS[scheme], size_px, config)
    if "://" in target:
        raise OutputError(f"{target}: send to {', '.join(f'{name}://' for name in FORMATS)}, a file, or {VIRTUAL}")
    return _VideoFile(Path(target), size_px, config, origin)


class _VirtualCamera:
    def __init__(self, size_px: tuple[int, int], config: SinkConfig) -> None:
        try:
            pyvirtualcam = import_module("pyvirtualcam")  # an extra
        except ImportError:
            raise DeviceError('the virtual camera needs pyvirtualcam: pip install "personalive[camera]"') from None
        try:
            self._camera = pyvirtualcam.Camera(*size_px, config.nominal_fps)
        except RuntimeError as error:
            raise DeviceError(
                f"no virtual camera here ({reason(error)}): on Linux load v4l2loopback, elsewhere install OBS; or "
                "use the page's clean view as a browser source in OBS"
            ) from None
        self.name = self._camera.device

    def send(self, image: np.ndarray, time_s: float) -> None:
        self._camera.send(np.ascontiguousarray(image))

    def close(self) -> None:
        self._camera.close()


class _NetworkStream:
    """H.264 stream with the frames' own times. Its errors name no stream keys."""

    def __init__(self, address: str, container_format: str, size_px: tuple[int, int], config: SinkConfig) -> None:
        self._shown = address.partition("://")[0] + "://" + address.partition("://")[2].partition("/")[0]
        self._last = -1
        options = {"rw_timeout": str(round(1e6 * config.network_timeout_s))}
        try:
            self._out: Any = av.open(address, "w", format=container_format, options=options)
            self._video = self._out.add_stream(
                "libx264",
                rate=config.nominal_fps,
                options={
                    "preset": config.preset,
                    "tune": "zerolatency",
                    "g": str(round(config.nominal_fps * config.keyframe_every_s)),
                    "b": str(config.bit_rate),
                },
            )
            self._video.width, self._video.height = size_px
            self._video.pix_fmt = "yuv420p"
            self._video.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        except (FFmpegError, OSError) as error:
            raise self._error(error) from None

    def send(self, image: np.ndarray, time_s: float) -> None:
        self._last = max(round(time_s * _TICKS_PER_S), self._last + 1)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS_PER_S)
        try:
            self._out.mux(self._video.encode(frame))
        except (FFmpegError, OSError) as error:
            raise self._error(error) from None

    def close(self) -> None:
        try:
            if self._last >= 0:
                self._out.mux(self._video.encode(None))
            self._out.close()
        except (FFmpegError, OSError) as error:
            raise self._error(error) from None

    def _error(self, error: BaseException) -> OutputError:
        return OutputError(
            f"{self._shown}: cannot send to it ({reason(error)}): is the receiver running, the address right?"
        )


class _VideoFile:
    """MP4 that appears when it is complete."""

    def __init__(self, path: Path, size_px: tuple[int, int], config: SinkConfig, origin: Origin | None) -> None:
        self._writer = VideoWriter(
            path,
            *size_px,
            time_base=Fraction(1, _TICKS_PER_S),
            fps=Fraction(config.nominal_fps),
            origin=origin,
        )
        self._pending: tuple[np.ndarray, int] | None = None  # its duration is known when the next one comes

    def send(self, image: np.ndarray, time_s: float) -> None:
        ticks = round(time_s * _TICKS_PER_S)
        if self._pending is not None:
            pending, start = self._pending
            ticks = max(ticks, start + 1)
            self._write(pending, start, ticks - start)
        self._pending = (image, ticks)

    def close(self) -> None:
        if self._pending is None:
            self._writer.close_partial()  # which leaves no file without frames
            return
        with self._writer:
            self._write(*self._pending, _TICKS_PER_S // SinkConfig.nominal_fps)

    def _write(self, image: np.ndarray, start: int, duration: int) -> None:
        self._writer.write(image, Fraction(start, _TICKS_PER_S), Fraction(duration, _TICKS_PER_S))
