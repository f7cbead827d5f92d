"""Video writer: H.264 mp4 with exact times, written under another name until it is whole."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.error import EOFError as AVEOFError
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from personalive.errors import OutputError
from personalive.media.audio import AudioCut
from personalive.media.config import MediaConfig
from personalive.media.credentials import MP4, Origin, sign_file
from personalive.media.feed import AudioFeed
from personalive.media.paths import check_output, partial_beside, reason, remove, temporary_beside
from personalive.media.source import ticks

_WRITE_ERRORS = (OSError, FFmpegError)
_VIDEO_TICKS_PER_S = 90_000  # at least about this many, and a multiple of the time base's


class VideoWriter:
    """Writes frames as they come; a context manager.

    Leaving the block normally puts the whole video at ``path``. Leaving it through an exception, Ctrl-C
    included, puts the frames written so far at ``partial_path`` (``out.partial.mp4``), playable, and adds a
    note that says so to the exception; without any frame nothing is left. A file already at ``path`` is
    replaced only by a whole video.

    The video is yuv420p, tagged and converted as BT.709 limited range, with its index first (faststart).

    Attributes:
        path: where the video will be, links followed.
        partial_path: where an unfinished one was left, else None.
        frames_written: frames so far.
        warnings: one line each about the sound.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        *,
        time_base: Fraction | None = None,
        fps: Fraction | None = None,
        audio_from: AudioCut | None = None,
        inputs: Iterable[str | os.PathLike[str]] = (),
        crf: int | None = None,
        origin: Origin | None = None,
        like: Path | None = None,
        work: Path | None = None,
        config: MediaConfig | None = None,
    ) -> None:
        """
        Args:
            path: ends in .mp4; see ``check_output``.
            width, height: pixels, both even: odd sizes are refused, since 4:2:0 video cannot hold them.
            time_base: whole multiples of this are kept exactly (``reader.info.time_base``).
            fps: typical rate (``reader.info.average_fps``); guides the encoder, never the times.
            audio_from: the sound (``reader.audio``).
            inputs: files that ``path`` must not be.
            crf: x264 quality, lower is better; ``MediaConfig.video_crf`` by default.
            origin: what its content credentials tell; None for a video without any.
            like: a video of such a writer, of this size and time base: this one takes no frames but those of such
                videos, see ``append``.
            work: folder of the unfinished file, on the disk of ``path``; beside it by default.

        Raises:
            OutputError: the video cannot be written there, or the size is odd. Nothing is created before the
                first frame.
        """
        self._config = config = config or MediaConfig()
        sources = [*inputs, audio_from.path] if audio_from else list(inputs)
        self.path = check_output(path, sources)
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise OutputError(f"{path}: a video of {width} x {height} cannot be made; both sides must be even")
        self._temporary = temporary_beside(self.path if work is None else work / self.path.name)
        self._size, self._origin = (width, height), origin
        self._time_base = Fraction(1, (time_base or Fraction(1, config.default_ticks_per_s)).denominator)
        self._fps = fps or Fraction(config.default_fps)
        self._last_pts: int | None = None
        self._end = Fraction(0)  # when the last frame leaves the screen
        self._closed = False
        self.frames_written = 0
        self.partial_path: Path | None = None
        self._reformatter = VideoReformatter()
        self._container = _open_mp4(self._temporary, self._time_base.denominator)
        self._encodes = like is None
        self._stream = (
            self._add_video(config.video_crf if crf is None else crf) if like is None else self._add_like(like)
        )
        self._audio = AudioFeed(audio_from, self._container, config) if audio_from else None

    def _add_video(self, crf: int) -> VideoStream:
        stream = self._container.add_stream(
            "libx264",
            rate=self._fps.limit_denominator(1_000_000),
            options={"crf": str(crf), "preset": self._config.video_preset},
            width=self._size[0],
            height=self._size[1],
            time_base=self._time_base,
        )
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_range = ColorRange.MPEG
        context.colorspace = Colorspace.ITU709
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        context.max_b_frames = 0  # mp4 keeps durations in order of decoding: reordering would blur the last one
        context.flags |= Flags.frame_duration
        return stream

    def _add_like(self, path: Path) -> VideoStream:
        try:
            with av.open(f"file:{path}") as part:
                return self._container.add_stream_from_template(part.streams.video[0])
        except _WRITE_ERRORS as error:
            raise self._failure(error) from error

    @property
    def warnings(self) -> list[str]:
        """Warnings about the sound for the user, one line each."""
        return [] if self._audio is None else self._audio.warnings

    # --- writing ---------------------------------------------------------------------------------------

    def write(self, image: np.ndarray, time: Fraction, duration: Fraction | None = None) -> None:
        """Add a frame.

        Args:
            image: uint8 ``(height, width, 3)`` RGB.
            time: seconds from the start of the video, rounded to the time base; must increase.
            duration: seconds on screen, which counts for the last frame; by default like the one before.

        Raises:
            OutputError: the disk is full or the encoder failed; nothing is left then.
            ValueError: wrong shape or type, or a time that does not increase.
        """
        width, height = self._size
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 {(height, width, 3)}, found {image.dtype} {image.shape}")
        pts = ticks(time, self._time_base)
        if self._closed or pts < 0 or (self._last_pts is not None and pts <= self._last_pts):
            raise ValueError(f"a frame at {time} s cannot follow the one at tick {self._last_pts}")
        length = self._length(pts, duration)
        try:
            # The header comes first: an interruption while it is written must not cost the first key frame.
            self._container.start_encoding()
            self._mux(self._encodable(image, pts, length))
            self._last_pts, self._end = pts, (pts + length) * self._time_base
            self.frames_written += 1
            if self._audio is not None:
                self._audio.pump(self._end)
        except _WRITE_ERRORS as error:
            self._discard()  # a container that failed once must not be written to again
            raise self._failure(error) from error

    def append(self, path: Path, start: Fraction) -> None:
        """Add the frames of a video ``like`` the given one, as they are encoded.

        Args:
            path: the video.
            start: seconds from the start of this video to the start of that one.

        Raises:
            OutputError: it cannot be read, or as ``write``.
        """
        first = ticks(start, self._time_base)
        try:
            self._container.start_encoding()
            with av.open(f"file:{path}") as part:
                base = part.streams.video[0].time_base or self._time_base
                for packet in part.demux(video=0):
                    if packet.pts is not None:
                        self._copy(packet, first + ticks(packet.pts * base, self._time_base), base)
        except _WRITE_ERRORS as error:
            self._discard()
            raise self._failure(error) from error

    def _copy(self, packet: Packet, pts: int, base: Fraction) -> None:
        """Write an encoded frame at ``pts``; its own clock ticks in ``base``. No frame is reordered, see above."""
        packet.pts = packet.dts = pts
        packet.duration = max(ticks((packet.duration or 0) * base, self._time_base), 1)
        packet.time_base, packet.stream = self._time_base, self._stream
        self._container.mux_one(packet)
        self._last_pts, self._end = pts, (pts + packet.duration) * self._time_base
        self.frames_written += 1
        if self._audio is not None:
            self._audio.pump(self._end)

    def _length(self, pts: int, duration: Fraction | None) -> int:
        if duration is not None:
            return max(ticks(duration, self._time_base), 1)
        step = 1 / self._fps if self._last_pts is None else (pts - self._last_pts) * self._time_base
        return max(ticks(step, self._time_base), 1)

    def _encodable(self, image: np.ndarray, pts: int, length: int) -> VideoFrame:
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = self._reformatter.reformat(
            rgb,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        frame.pts, frame.time_base, frame.duration = pts, self._time_base, length
        return frame

    def _mux(self, frame: VideoFrame | None) -> None:
        # Ctrl-C takes effect between two Python instructions. As one chain of C calls, either all packets of
        # this frame reach the video or the frame was never encoded; a lost packet would spoil a partial video.
        deque(map(self._container.mux, map(self._stream.encode, (frame,))), maxlen=0)

    def _failure(self, error: BaseException) -> OutputError:
        return OutputError(f"{self.path}: could not be written ({reason(error)}); check the free space and try again")

    # --- the end ---------------------------------------------------------------------------------------

    def close(self, path: Path | None = None) -> Path:
        """Finish the video, sound included, and give it its name, or unsigned another one, as a part. Returns that.

        Raises:
            OutputError: no frame was written, or the disk is full; nothing is left then. Or it could not be signed,
                and can still be closed as a partial video, unsigned.
        """
        if path is not None:
            self._origin = None
        path = path or self.path
        if self._closed:
            return path
        if not self.frames_written:
            self._discard()
            raise OutputError(f"{self.path}: no frame was produced, so there is no video; check the clip")
        try:
            if self._audio is not None:
                self._audio.pump(None)
            self._finish(path)
        except _WRITE_ERRORS as error:
            self._discard()
            raise self._failure(error) from error
        return path

    def close_partial(self) -> Path | None:
        """Finish with the frames written so far, at ``out.partial.mp4``.

        Returns:
            The playable video, or None where there is no frame or it could not be finished; then nothing is
            left. After ``close`` it does nothing and returns ``partial_path``.
        """
        if self._closed:
            return self.partial_path
        if not self.frames_written:
            self._discard()
            return None
        try:
            partial = partial_beside(self.path)
            self._finish(partial)
            self.partial_path = partial
        except OutputError:  # an unsigned one is better than none
            return self.close_partial()
        except _WRITE_ERRORS:
            self._discard()
        return self.partial_path

    def _finish(self, target: Path) -> None:
        if self._encodes:
            with suppress(AVEOFError):  # the encoder was drained before an interruption
                self._mux(None)
        self._container.close()
        self.frames_written = self._stream.frames  # an interruption may have come between a frame and its count
        if (origin := self._origin) is not None:
            self._origin = None  # tried once
            try:
                sign_file(self._temporary, MP4, origin)
            except OutputError as error:
                raise OutputError(f"{target}: {error}; free some space, or use --no-credentials") from error
        self._temporary.replace(target)
        self._release()

    def _discard(self) -> None:
        self._release()
        with suppress(*_WRITE_ERRORS):
            self._container.close()
        remove(self._temporary)

    def _release(self) -> None:
        self._closed = True
        if self._audio is not None:
            self._audio.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._leave_partial(error)
            return
        try:
            self.close()
        except BaseException as late:
            self._leave_partial(late)
            raise

    def _leave_partial(self, error: BaseException) -> None:
        try:
            partial = self.close_partial()
        except BaseException:  # a second Ctrl-C: give up the video, but leave nothing half-written
            self._discard()
            raise
        if partial is not None:
            error.add_note(f"The first {self.frames_written} frames were kept in {partial}")


def _open_mp4(path: Path, ticks_per_s: int) -> OutputContainer:
    # The video's own clock, in which its length is kept: by default milliseconds, too coarse for most rates.
    clock = ticks_per_s * max(_VIDEO_TICKS_PER_S // ticks_per_s, 1)
    options = {"movflags": "+faststart", "movie_timescale": str(clock)}
    return av.open(f"file:{path}", mode="w", format="mp4", container_options=options)
