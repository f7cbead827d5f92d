"""Clips whose every frame and time is known, a plain way to read videos back, and what lies in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

AUDIO_RATE = 48_000
NOISE_SIDE_PX, NOISE_FPS = 64, 25


@dataclass(frozen=True)
class Video:
    """Decoded contents of a video."""

    times: list[Fraction]
    images: np.ndarray  # (F, H, W, 3) uint8
    audio_s: float  # 0 without sound


def write_clip(
    path: Path,
    images: Iterable[np.ndarray],
    ticks: Sequence[int],
    time_base: Fraction = Fraction(1, 25),
    *,
    audio_s: float = 0.0,
    container: dict[str, str] | None = None,
) -> Path:
    """H.264 of (H, W, 3) uint8 images at the given ticks; with ``audio_s``, so much of a tone."""
    with av.open(str(path), "w", container_options=container or {}) as out:
        video = sound = None
        for image, tick in zip(images, ticks, strict=True):
            if video is None:
                height, width = image.shape[:2]
                options = {"preset": "ultrafast", "crf": "10"}
                video = out.add_stream(
                    "libx264", rate=1 / time_base, width=width, height=height, time_base=time_base, options=options
                )
                video.pix_fmt = "yuv420p"
                sound = out.add_stream("aac", rate=AUDIO_RATE, layout="mono") if audio_s else None
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            out.mux(video.encode(frame))
        assert video is not None
        out.mux(video.encode(None))
        if sound is not None:
            write_tone(out, sound, audio_s)
    return path


def write_noise(path: Path, frames: int, *, fps: int = NOISE_FPS, sound: bool = False, **options: object) -> Path:
    """A clip of changing noise: every frame costs bytes, so that cutting the file cuts frames."""
    rng = np.random.default_rng(2)
    images = (rng.integers(0, 256, (NOISE_SIDE_PX, NOISE_SIDE_PX, 3), dtype=np.uint8) for _ in range(frames))
    return write_clip(path, images, range(frames), Fraction(1, fps), audio_s=sound * frames / fps, **options)


def write_tone(out, stream, seconds: float) -> None:
    """Sound of 440 Hz."""
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE)
    for begin in range(0, len(samples), 1024):
        piece = np.ascontiguousarray(samples[None, begin : begin + 1024].astype(np.float32))
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), begin
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def read_video(path: Path) -> Video:
    """Decode ``path`` with PyAV alone."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    audio_s = 0.0
    with av.open(str(path)) as container:
        if container.streams.audio:
            audio_s = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return Video(
        times=[Fraction(frame.pts) * frame.time_base for frame in frames],
        images=np.stack([frame.to_ndarray(format="rgb24") for frame in frames]),
        audio_s=audio_s,
    )


def save_image(path: Path, image: np.ndarray, kind: str = "PNG") -> Path:
    """A still, whatever the name of the file."""
    Image.fromarray(image).save(path, kind)
    return path


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below ``folder`` with size and time of change."""
    return {
        os.fspath(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }
