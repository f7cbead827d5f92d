"""Opening of video and sound files, through PyAV: local files of known formats only."""

from __future__ import annotations

import mmap
from errno import EINVAL
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError

from personalive.errors import InputError
from personalive.media.paths import convert_hint, reason

# FFmpeg also opens playlists that name other files and addresses, and text as images: those are no clips.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,mp3,aac,flac,h264,hevc,mjpeg,mpegvideo,m4v,"
    "vc1,obu,ivf,mxf,dv,yuv4mpegpipe"
)
UNTIMED = frozenset({"h264", "hevc", "mjpeg", "mpegvideo", "m4v", "vc1", "obu"})  # streams without time stamps
_JPEG_BEGIN, _JPEG_END, _JPEG_SCAN = b"\xff\xd8\xff", b"\xff\xd9", 0xDA


def open_container(path: Path) -> InputContainer:
    """``path`` opened for reading.

    Raises:
        InputError: not a video or sound file, of another format, or cut off before anything can be read.
    """
    try:
        # "file:" keeps a colon in the name from being taken for a protocol.
        return av.open(
            f"file:{path}",
            mode="r",
            format="mjpeg" if is_jpeg_sequence(path) else None,
            metadata_errors="replace",
            container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
        )
    except (FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) == EINVAL:
            raise InputError(f"{path}: is of a format that is not read here; {convert_hint(path)}") from None
        raise InputError(
            f"{path}: is not a video that can be read, or its index is missing ({cause(error)}); "
            "copy it again or convert it to mp4"
        ) from None


def cause(error: Exception) -> str:
    """The short cause in an FFmpeg error."""
    return reason(error).split(":")[0]


def is_jpeg_sequence(path: Path) -> bool:
    """Return True for JPEG images one right after the other, as in a raw motion JPEG stream.

    A photograph with a second view or a gain map behind it names it in its multi-picture segment (MPF).
    """
    with path.open("rb") as file:
        if file.read(3) != _JPEG_BEGIN:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = 2
            while at + 4 <= len(data) and data[at] == 0xFF:
                marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
                if marker == 0xE2 and data[at + 4 : at + 8] == b"MPF\0":
                    return False
                at += 2 + size
                if marker == _JPEG_SCAN:
                    break
            end = data.find(_JPEG_END, at)
            return end >= 0 and data[end + 2 : end + 5] == _JPEG_BEGIN
