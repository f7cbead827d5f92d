"""Made-up clips, films read back, and what lies in a folder."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CLIP_SIDE_PX, CLIP_FPS = 64, 25


def write_clip(
    path: Path, frames: int, *, fps: int = CLIP_FPS, sound: bool = False, options: dict[str, str] | None = None
) -> Path:
    """A clip of changing noise: every frame costs bytes, so that cutting the file cuts frames."""
    rng = np.random.default_rng(2)
    with av.open(str(path), "w", container_options=options or {}) as out:
        video = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width = video.height = CLIP_SIDE_PX
        video.pix_fmt, video.time_base, video.codec_context.max_b_frames = "yuv420p", Fraction(1, fps), 0
        tone = out.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for index in range(frames):
            image = rng.integers(0, 256, (CLIP_SIDE_PX, CLIP_SIDE_PX, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if tone is not None:
            write_tone(out, tone, frames / fps)
    return path


def write_tone(out: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    samples = np.sin(np.arange(round(48_000 * seconds)) / 20).astype(np.float32)[None] / 2
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 48_000, 0
    for packet in (*stream.encode(frame), *stream.encode(None)):
        out.mux(packet)


def read_film(path: Path) -> tuple[list[np.ndarray], bool]:
    """All frames as (H, W, 3) RGB, and whether there is sound."""
    with av.open(str(path)) as film:
        has_sound = bool(film.streams.audio)
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)], has_sound


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below ``folder`` with size and time of change."""
    return {
        os.fspath(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }
