"""Frames from a video file, through PyAV."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import EOFError as AVEOFError
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.paths import reason
from personalive.media.source import RawFrame, SourceInfo
from personalive.media.still import check_size

# FFmpeg also opens playlists that name other files and addresses, and text as images: those are no clips.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,mp3,aac,flac,h264,hevc"
_SPC_RGB, _SPC_UNSPECIFIED = 0, 2  # H.273 matrix coefficients
_MAX_PIXEL_ASPECT = 4  # DVDs and tapes stay below 2
_HDR_TRANSFERS = (16, 18)  # H.273: PQ and HLG


def open_container(path: Path) -> InputContainer:
    """``path`` opened for reading: local files of known container formats only.

    Raises:
        InputError: not a video or sound file, or cut off before anything can be read.
    """
    try:
        # "file:" keeps a colon in the name from being taken for a protocol.
        return av.open(
            f"file:{path}",
            mode="r",
            metadata_errors="replace",
            container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
        )
    except (FFmpegError, ValueError) as error:
        raise InputError(
            f"{path}: is not a video that can be read, or its index is missing ({_cause(error)}); "
            "copy it again or convert it to mp4"
        ) from None


def _cause(error: Exception) -> str:
    return reason(error).split(":")[0]


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
        self._order: deque[int | None] = deque()
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None  # (width, height) of every frame, before rotation
        self._turn: np.ndarray | None = None  # display matrix

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self, from_pts: int | None) -> Iterator[RawFrame]:
        """Decoded frames; damaged stretches are left out and reported in ``warnings``."""
        decoded = self._decode_from(from_pts) if from_pts is not None else self._decode()
        end: Fraction | None = None
        for frame in decoded:
            self._warn_of_hdr(frame)
            if frame.pts is not None:
                end = (frame.pts + (frame.duration or 0)) * self.info.time_base
            yield RawFrame(partial(self._upright_rgb, frame), frame.pts, frame.duration or None)
        self._warn_of_missing_end(end)

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
        self._stream.thread_type = "AUTO"

    def _describe(self) -> SourceInfo:
        stream, container = self._stream, self._container
        time_base = stream.time_base or Fraction(1, self._config.default_ticks_per_s)
        duration = None
        if stream.duration:
            duration = stream.duration * time_base
        elif container.duration:
            duration = Fraction(container.duration, av.time_base)
        return SourceInfo(
            time_base=time_base,
            average_fps=self._plausible_rate(),
            duration_s=duration,
            origin_pts=stream.start_time or 0,
            has_audio=container.streams.best("audio") is not None,
        )

    def _plausible_rate(self) -> Fraction:
        for rate in (self._stream.average_rate, self._stream.guessed_rate):
            if rate and rate <= self._config.max_plausible_fps:
                return rate
        return Fraction(self._config.default_fps)

    # --- decoding --------------------------------------------------------------------------------------

    def _decode_from(self, pts: int) -> Iterator[VideoFrame]:
        """From a key frame at or before ``pts``; from the beginning where seeking does not get there."""
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
        self._stream.thread_type = "AUTO"

    def _decode(self) -> Iterator[VideoFrame]:
        damaged = 0
        self._order.clear()
        packets = self._container.demux(self._stream)
        packet: Packet[VideoStream] | None = None
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                packet = None
                self.warnings.append(f"{self._path}: is truncated ({_cause(error)}); what came before is used")
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

    def _note_order(self, packet: Packet[VideoStream] | None) -> None:
        if self._unordered and packet is not None and packet.size:
            self._order.append(packet.dts)

    def _ordered(self, frame: VideoFrame) -> VideoFrame:
        """AVI states times in order of decoding only: the n-th frame shown gets the n-th of them."""
        if self._unordered:
            frame.pts = self._order.popleft() if self._order else None
        return frame

    def _warn_of_missing_end(self, end: Fraction | None) -> None:
        if end is None or self.info.duration_s is None:
            return
        read = end - self.info.origin_pts * self.info.time_base
        if self.info.duration_s - read > self._config.missing_end_s:
            self.warnings.append(
                f"{self._path}: is truncated: {float(read):.1f} s of the stated "
                f"{float(self.info.duration_s):.1f} s could be read"
            )

    def _warn_of_hdr(self, frame: VideoFrame) -> None:
        text = f"{self._path}: is HDR video, shown without tone mapping; its colours will look pale"
        if frame.color_trc in _HDR_TRANSFERS and text not in self.warnings:
            self.warnings.append(text)

    # --- pixels ----------------------------------------------------------------------------------------

    def _upright_rgb(self, frame: VideoFrame) -> np.ndarray:
        """uint8 ``(H, W, 3)``: square pixels, the size of the first frame, turned as the file asks."""
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
        self._size = (_square_width(first.width, self._stream.sample_aspect_ratio), first.height)
        matrix = first.side_data.get("DISPLAYMATRIX")
        self._turn = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)

    def _matrix(self, frame: VideoFrame) -> int | None:
        if frame.colorspace == _SPC_RGB:
            return None
        if frame.colorspace != _SPC_UNSPECIFIED:
            return frame.colorspace
        hd = min(frame.width, frame.height) > self._config.unspecified_hd_height_px
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
