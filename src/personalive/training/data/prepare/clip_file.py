"""One clip on disk: JPEG images in a QuickTime video that players show, and tensors beside it.

Every image stands alone at a known place in the file, so training reads any of them with one read and one
decode. The tensors (safetensors) are ``spans`` (F, 2) int64, offset and length of each image in the video;
``boxes`` (F, 4, 4) float32 in pixels; ``found`` (F,) uint8, whether a face was detected in that very frame;
``source_s`` (F,) float64, the time of the image shown in its video.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from safetensors import SafetensorError
from safetensors.numpy import load, save

from personalive.errors import InputError, OutputError
from personalive.media.paths import reason

CLIPS = "clips"  # folder inside the set
SIZES = ("film_bytes", "tensor_bytes")  # in a clip's entry of the index, in the order of ``clip_files``
_TENSORS = {  # shapes without the frames, and dtypes
    "spans": ((2,), np.int64),
    "boxes": ((4, 4), np.float32),
    "found": ((), np.uint8),
    "source_s": ((), np.float64),
}


def clip_files(out: Path, name: str) -> tuple[Path, Path]:
    """Video and tensors of a clip of the set ``out``."""
    return out / CLIPS / f"{name}.mov", out / CLIPS / f"{name}.safetensors"


class ClipWriter:
    """Writes (S, S, 3) uint8 RGB images as JPEG, one after the other, at a constant rate.

    Raises:
        OutputError: by all methods: the file cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, size_px: int, fps: int, quality: int) -> None:
        """Create ``path``."""
        self.path, self.frames = path, 0
        sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
        self._options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
        with _written(path):
            # Without "bitexact" the file would name the version of its writer.
            self._video = av.open(f"file:{path}", "w", format="mov", options={"fflags": "+bitexact"})
            self._stream = self._video.add_stream("mjpeg", rate=fps)
        self._stream.width = self._stream.height = size_px
        self._stream.pix_fmt = "yuvj444p"
        self._step = Fraction(1, fps)

    def add(self, image: np.ndarray) -> None:
        """The next image."""
        _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), self._options)
        packet = Packet(content.tobytes())
        packet.stream, packet.time_base, packet.duration = self._stream, self._step, 1
        packet.pts = packet.dts = self.frames
        packet.is_keyframe = True
        with _written(self.path):
            self._video.mux(packet)
        self.frames += 1

    def close(self) -> np.ndarray:
        """Finish the video; gives ``spans`` (F, 2)."""
        with _written(self.path):
            self._video.close()
            with av.open(f"file:{self.path}") as video:
                spans = [(packet.pos, packet.size) for packet in video.demux(video=0) if packet.size]
        return np.array(spans, np.int64)

    def discard(self) -> None:
        """Give up and delete the file."""
        try:
            with _written(self.path):
                self._video.close()
        finally:
            self.path.unlink(missing_ok=True)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, FFmpegError) as error:
        cause = f"could not be written ({reason(error)}); free some space and repeat the command"
        raise OutputError(f"{path}: {cause}") from None


def tensor_bytes(**tensors: np.ndarray) -> bytes:
    """The content of a tensor file; the same for the same values."""
    return save({n: np.ascontiguousarray(tensors[n].astype(dtype)) for n, (_, dtype) in _TENSORS.items()})


def read_tensors(path: Path, frames: int) -> dict[str, np.ndarray]:
    """The tensors of a clip of so many frames.

    Raises:
        InputError: missing, damaged, or of another clip.
    """
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: is missing or damaged ({error}): prepare this set again") from None
    shapes = {name: value.shape for name, value in tensors.items()}
    if shapes != {name: (frames, *rest) for name, (rest, _) in _TENSORS.items()}:
        raise InputError(f"{path}: does not belong to a clip of {frames} frames: prepare this set again")
    return tensors


def read_image(path: Path, span: np.ndarray) -> np.ndarray:
    """One image of a video, uint8 (S, S, 3) RGB.

    Raises:
        InputError: the video is missing or damaged there.
    """
    offset, length = map(int, span)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = np.frombuffer(file.read(length), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) == length else None
    except (OSError, cv2.error) as error:
        raise InputError(f"{path}: cannot be read ({error}): prepare this set again") from None
    if image is None:
        raise InputError(f"{path}: is damaged at byte {offset}: prepare this set again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # pyright: ignore[reportReturnType]
