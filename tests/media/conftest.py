"""Clips made on the spot, whose every frame and sound is known, and a plain way to read videos back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

WIDTH, HEIGHT = 64, 48
BEEP_HZ = 1000


def frame_image(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A grey that names its frame (step 7, modulo 32 steps), with a red quarter at the top left."""
    image = np.full((height, width, 3), 16 + 7 * (index % 32), np.uint8)
    image[: height // 2, : width // 2] = (230, 30, 30)
    return image


def sound(rate: int, channels: int, seconds: float, beep_s: float) -> np.ndarray:
    """Silence with a 50 ms tone that begins at ``beep_s``: float32 ``(C, N)``."""
    time = np.arange(round(rate * seconds)) / rate
    tone = np.sin(2 * np.pi * BEEP_HZ * time) * ((time >= beep_s) & (time < beep_s + 0.05)) * 0.8
    return np.repeat(tone[None].astype(np.float32), channels, 0)


def make_clip(
    path: Path,
    *,
    pts: Sequence[int] = range(25),
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    matrix: Sequence[int] | None = None,
    audio: str | None = None,
    rate: int = 48_000,
    channels: int = 2,
    seconds: float = 1.0,
    beep_s: float = 0.5,
    audio_offset_s: float = 0.0,
    container: str | None = None,
) -> Path:
    """Write a clip with the given tick per frame and, with ``audio`` (a codec), a beep."""
    with av.open(str(path), "w", format=container) as out:
        step = Fraction(int(np.median(np.diff(pts))) if len(pts) > 1 else 1) * time_base
        video = out.add_stream(codec, rate=1 / step, width=size[0], height=size[1], time_base=time_base)
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if matrix is not None:
            video.set_display_matrix(matrix)
        stream = None
        if audio:
            stream = out.add_stream(audio, rate=rate, layout="mono" if channels == 1 else "stereo")
        for index, tick in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(frame_image(index, *size), format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if stream is not None:
            _write_sound(out, stream, sound(rate, channels, seconds, beep_s), rate, audio_offset_s)
    return path


def _write_sound(out, stream, samples: np.ndarray, rate: int, offset_s: float) -> None:
    layout = "mono" if len(samples) == 1 else "stereo"
    for begin in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, begin : begin + 1024])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = begin + round(offset_s * rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


@dataclass
class Video:
    """Contents of a decoded video."""

    times: list[Fraction]
    images: list[np.ndarray]
    end: Fraction  # as the container states it
    pix_fmt: str
    tags: tuple[int, int, int, int]  # matrix, primaries, transfer, range
    audio_codec: str | None
    samples: np.ndarray  # (N,) first channel, from audio_start on
    sample_rate: int
    audio_start: Fraction

    @property
    def audio_end(self) -> Fraction:
        return self.audio_start + Fraction(len(self.samples), self.sample_rate)

    def beep_s(self) -> float:
        """Time at which the tone begins."""
        loud = np.abs(self.samples) > 0.2
        return float(self.audio_start) + int(np.argmax(loud)) / self.sample_rate


def read_video(path: Path) -> Video:
    """Decode ``path`` with PyAV alone."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        pix_fmt = context.pix_fmt or ""
        stream = container.streams.video[0]
        length = stream.duration or frames[-1].pts + frames[-1].duration - (stream.start_time or 0)
        end = ((stream.start_time or 0) + length) * stream.time_base
    sounds, codec, rate = [], None, 1
    with av.open(str(path)) as container:
        if container.streams.audio:
            stream = container.streams.audio[0]
            codec, rate = stream.codec_context.name, stream.codec_context.sample_rate
            sounds = list(container.decode(stream))
    return Video(
        times=[frame.pts * frame.time_base for frame in frames],
        images=[frame.to_ndarray(format="rgb24") for frame in frames],
        end=end,
        pix_fmt=pix_fmt,
        tags=tags,
        audio_codec=codec,
        samples=np.concatenate([_mono(s) for s in sounds]) if sounds else np.zeros(0, np.float32),
        sample_rate=rate,
        audio_start=sounds[0].pts * sounds[0].time_base if sounds else Fraction(0),
    )


def _mono(frame: av.AudioFrame) -> np.ndarray:
    samples = frame.to_ndarray()
    return samples[0] if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)[:, 0]


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """``clip("name.mp4", **options of make_clip)`` in a fresh folder."""

    def make(name: str, **options) -> Path:
        return make_clip(tmp_path / name, **options)

    return make


@pytest.fixture
def video() -> Callable[[Path], Video]:
    """Reads a video back."""
    return read_video


@pytest.fixture
def image() -> Callable[..., np.ndarray]:
    """The image that ``clip`` puts into frame ``index``."""
    return frame_image
