"""Frames from a video file, through PyAV."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import EOFError as AVEOFError
from av.error import FFmpegError
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.containers import UNTIMED, cause, open_container
from personalive.media.deinterlace import Deinterlacer
from personalive.media.paths import convert_hint
from personalive.media.source import RawFrame, SourceInfo, ticks
from personalive.media.still import check_size

_HDR_TRANSFERS = (16, 18)  # H.273: PQ and HLG
_RESUMING = ("matroska", "mpeg")  # formats that are read on behind damage, which leaves a gap and no error
_REGULAR_SHARE = 0.9  # of the steps between frames, for a rate to count as constant
_MAX_THREADS = 8  # of a decoder: each keeps frames of its own


class VideoFileSource:
    """The best video stream of a file."""

    def __init__(self, path: Path, config: MediaConfig) -> None:
        self._path, self._config = path, config
        self.warnings: list[str] = []
        self._container = open_container(path)
        try:
            self._stream = self._choose_stream()
            self._check_stream()
            self.info = self._describe()
        except InputError:
            self.close()
            raise
        self._unordered = self._container.format.name == "avi"
        self._resumes = self._container.format.name.startswith(_RESUMING)
        self._order: deque[int | None] = deque()
        self._converter = FrameConverter(path, self._stream.sample_aspect_ratio, config)
        self._deinterlacer = Deinterlacer(self.info.time_base)
        self._furthest = Fraction(0)  # end of the last packet of any stream, seconds

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self, from_pts: int | None) -> Iterator[RawFrame]:
        """Decoded frames; damaged stretches are left out and reported in ``warnings``."""
        decoded = self._decode_from(from_pts) if from_pts is not None else self._decode()
        end: Fraction | None = None
        damaged, gaps = 0, _Gaps(1 / (self.info.average_fps * self.info.time_base))
        for frame in self._whole(decoded):
            self._warn_of_hdr(frame)
            damaged += frame.is_corrupt
            gaps.add(frame.pts)
            if frame.pts is not None:
                end = (frame.pts + (frame.duration or 0)) * self.info.time_base
            yield RawFrame(partial(self._converter.upright_rgb, frame), frame.pts, frame.duration or None)
        if damaged:
            self.warnings.append(f"{self._path}: is damaged: {damaged} frames are incomplete")
        if self._resumes and gaps.frames:
            self.warnings.append(f"{self._path}: {gaps.frames} frames are missing, by damage or from the start")
        if self._deinterlacer.used:
            self.warnings.append(f"{self._path}: is interlaced; its fields were made whole frames (bwdif)")
        self._warn_of_missing_end(end)

    def _whole(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            yield from self._deinterlacer.push(frame)
        yield from self._deinterlacer.flush()

    # --- the stream ------------------------------------------------------------------------------------

    def _choose_stream(self) -> VideoStream:
        covers = Disposition.attached_pic
        streams = [s for s in self._container.streams.video if not s.disposition & covers]
        if not streams:
            what = "has sound but no video" if self._container.streams.audio else "holds no video"
            raise InputError(f"{self._path}: {what}; give a video of a face")
        best = self._container.streams.best("video")
        return best if isinstance(best, VideoStream) and best in streams else streams[0]

    def _check_stream(self) -> None:
        if self._stream.codec_context is None:
            raise InputError(f"{self._path}: its video codec is not known; convert it to H.264 mp4")
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if width and height:
            check_size(self._path, width, height, self._config)
        self._set_threads()

    def _set_threads(self) -> None:
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = min(os.cpu_count() or 1, _MAX_THREADS)

    def _describe(self) -> SourceInfo:
        stream, container = self._stream, self._container
        time_base = stream.time_base or Fraction(1, self._config.default_ticks_per_s)
        start = (stream.start_time or 0) * time_base
        duration, self._own_duration = None, True
        if stream.duration:
            duration = stream.duration * time_base
        elif (end := _stated_end(stream.metadata.get("DURATION", ""))) is not None:  # Matroska's, from 0
            duration = end - start
        elif container.duration:  # of its longest stream, with Matroska from 0
            self._own_duration = False
            duration = Fraction(container.duration, av.time_base)
            duration -= start if container.format.name.startswith("matroska") else 0
        self._untimed = container.format.name in UNTIMED
        if container.format.name == "mjpeg":
            rate = self._config.default_fps
            self.warnings.append(f"{self._path}: states no frame rate; {rate} per second are taken")
        return SourceInfo(
            time_base=time_base,
            average_fps=self._plausible_rate(),
            duration_s=duration if duration is None or duration > 0 else None,
            origin_pts=stream.start_time or 0,
            has_audio=container.streams.best("audio") is not None,
        )

    def _plausible_rate(self) -> Fraction:
        stated = [self._stream.average_rate, self._stream.guessed_rate]
        if self._untimed:  # what FFmpeg calls their average is its own default
            stated = [self._stream.codec_context.framerate]
        for rate in stated:
            if rate and rate <= self._config.max_plausible_fps:
                return rate
        return Fraction(self._config.default_fps)

    # --- decoding --------------------------------------------------------------------------------------

    def _decode_from(self, pts: int) -> Iterator[VideoFrame]:
        """From a key frame at or before ``pts``; from the beginning where seeking does not get there."""
        # A decoder may drop the first frames after a seek, and AVI does not say which: only counting does.
        uncertain = self._untimed or (self._unordered and self._stream.codec_context.has_b_frames)
        if uncertain:
            yield from self._decode()
            return
        try:
            self._container.seek(pts, stream=self._stream)
            frames = self._decode()
            first = next(frames, None)
        except FFmpegError:
            first, frames = None, iter(())
        if first is not None and first.pts is not None and first.pts <= pts:
            yield first
            yield from frames
            return
        self._rewind()
        yield from self._decode()

    def _rewind(self) -> None:
        index = self._stream.index
        self._container.close()
        self._container = open_container(self._path)
        stream = self._container.streams[index]
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._set_threads()

    def _decode(self) -> Iterator[VideoFrame]:
        damaged = 0
        self._order.clear()
        self._count, self._nominal = 0, max(ticks(1 / self.info.average_fps, self.info.time_base), 1)
        # The other streams tell how far the file goes.
        packets = self._container.demux(*([self._stream] if self._own_duration else self._timed_streams()))
        packet: Packet[Any] | None = None
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                packet = None
                self.warnings.append(f"{self._path}: is truncated ({cause(error)}); what came before is used")
            if packet is not None and packet.stream is not self._stream:
                self._note_end(packet)
                continue
            self._note_order(packet)
            try:
                yield from map(self._ordered, self._stream.decode(packet))  # None drains the decoder
            except AVEOFError:
                break
            except FFmpegError:
                damaged += 1
                if self._order:
                    self._order.popleft()
            if packet is None:
                break
        if damaged:
            self.warnings.append(f"{self._path}: is truncated or damaged; {damaged} packets were left out")

    def _timed_streams(self) -> list[Stream]:
        return [s for s in self._container.streams if s is self._stream or s.type in ("audio", "subtitle")]

    def _note_end(self, packet: Packet) -> None:
        if packet.pts is not None and packet.time_base:
            self._furthest = max(self._furthest, (packet.pts + (packet.duration or 0)) * packet.time_base)

    def _note_order(self, packet: Packet[VideoStream] | None) -> None:
        if self._unordered and packet is not None and packet.size:
            self._order.append(packet.dts)

    def _ordered(self, frame: VideoFrame) -> VideoFrame:
        """Its time where the file states none: the n-th frame shown gets the n-th time that AVI states in order of
        decoding; streams without a container are counted."""
        if self._unordered:
            frame.pts = self._order.popleft() if self._order else None
        elif self._untimed:
            frame.pts, self._count = self._count * self._nominal, self._count + 1
        return frame

    def _warn_of_missing_end(self, end: Fraction | None) -> None:
        if end is None or self.info.duration_s is None:
            return
        read = end - self.info.origin_pts * self.info.time_base
        if not self._own_duration:
            read = max(read, self._furthest - self.info.origin_pts * self.info.time_base)
        if self.info.duration_s - read > self._config.missing_end_s:
            self.warnings.append(
                f"{self._path}: is truncated: {float(read):.1f} s of the stated "
                f"{float(self.info.duration_s):.1f} s could be read"
            )

    def _warn_of_hdr(self, frame: VideoFrame) -> None:
        text = f"{self._path}: is HDR video, shown without tone mapping; its colours will look pale"
        if frame.color_trc in _HDR_TRANSFERS and text not in self.warnings:
            self.warnings.append(text)


def _stated_end(text: str) -> Fraction | None:
    """Seconds of ``00:16:41.040000000``."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text)
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3])


class _Gaps:
    """Counter of the frames that are missing in a clip of constant rate; clips of varying rate have none to miss."""

    def __init__(self, step: Fraction) -> None:
        """
        Args:
            step: ticks between two frames.
        """
        self._step = step
        self._last: int | None = None
        self._regular = self._others = self._missing = 0

    def add(self, pts: int | None) -> None:
        """The next frame's time stamp."""
        if pts is None:
            return
        if self._last is not None:
            step = pts - self._last
            if abs(step - self._step) <= max(1, self._step / 20):
                self._regular += 1
            else:
                self._others += 1
                self._missing += max(round(step / self._step) - 1, 0)
        self._last = pts

    @property
    def frames(self) -> int:
        """Missing frames."""
        return self._missing if self._regular >= _REGULAR_SHARE * (self._regular + self._others) else 0


# --- pixels -------------------------------------------------------------------------------------------------

_SPC_RGB = 0  # H.273 matrix coefficients
_CONVERTED = (1, 4, 5, 6, 7, 9)  # those that swscale knows
_REFUSED = {
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived, constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_MAX_PIXEL_ASPECT = 4  # DVDs and tapes stay below 2


def _unnamed(kind: type[SideDataType], value: Any) -> SideDataType:
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


# PyAV refuses to list the side data of a frame that has any of a kind it has no name for, such as EXIF.
SideDataType._missing_ = classmethod(_unnamed)  # pyright: ignore[reportAttributeAccessIssue]


class FrameConverter:
    """Converts the frames of one clip; the first one decides about size and rotation."""

    def __init__(self, path: Path, aspect: Fraction | None, config: MediaConfig) -> None:
        """
        Args:
            path: for messages.
            aspect: width / height of a stored pixel, if stated.
        """
        self._path, self._aspect, self._config = path, aspect, config
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None  # (width, height) of every frame, before rotation
        self._turn: np.ndarray | None = None  # display matrix

    def upright_rgb(self, frame: VideoFrame) -> np.ndarray:
        """uint8 ``(H, W, 3)``: square pixels, the size of the first frame, turned as the file asks.

        Raises:
            InputError: its colours are of a kind that cannot be converted.
        """
        if self._size is None:
            self._set_geometry(frame)
        width, height = self._size or (frame.width, frame.height)
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=self._matrix(frame),
            dst_color_range=ColorRange.JPEG,
            threads=1,  # starting threads costs more than a frame of this size
        ).to_ndarray()
        return rgb if self._turn is None else turn(rgb, self._turn)

    def _set_geometry(self, first: VideoFrame) -> None:
        """Fix size and rotation for the whole clip.

        Asking a frame for its side data ties it into a reference cycle, which would keep it in memory until a
        garbage collection: this asks the first frame only.
        """
        self._size = (_square_width(first.width, self._aspect), first.height)
        matrix = first.side_data.get("DISPLAYMATRIX")
        self._turn = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)

    def _matrix(self, frame: VideoFrame) -> int | None:
        matrix = int(frame.colorspace)
        if matrix == _SPC_RGB:
            return None
        if matrix in _CONVERTED:
            return matrix
        if matrix in _REFUSED:
            raise InputError(
                f"{self._path}: its colours are {_REFUSED[matrix]} (matrix {matrix}), which cannot be converted "
                f"here; {convert_hint(self._path, '-vf zscale=matrix=709')}"
            )
        hd = min(frame.width, frame.height) > self._config.unspecified_hd_height_px  # unspecified or reserved
        return Colorspace.ITU709 if hd else Colorspace.ITU601


def _square_width(width: int, aspect: Fraction | None) -> int:
    """The width that makes pixels of the given shape (width / height) square; absurd shapes are ignored."""
    if not aspect or not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
        return width
    return max(round(width * aspect), 1)


def turn(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``image`` ``(H, W, 3)`` turned and mirrored by a display matrix to the nearest quarter turn.

    ``matrix``: nine int32 in FFmpeg's order (a, b, u, c, d, v, x, y, w); a point (x, y) of the stored frame
    is shown at (a x + c y, b x + d y).
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flip_x, flip_y = a < 0, d < 0
    else:
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    image = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(image)
