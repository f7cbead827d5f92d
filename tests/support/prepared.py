"""A folder with one video of each kind, and the set made from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from personalive.training.data.prepare.report import Report
from support.clips import write_tone
from support.head_videos import heads, write_heads, write_images

SIZE_PX = 96
SETTINGS: dict[str, Any] = {"size_px": SIZE_PX, "min_clip_s": 0.6, "workers": 1}


@dataclass(frozen=True)
class Made:
    """A set and what was said of it."""

    videos: Path
    out: Path
    report: Report


def hashes(folder: Path) -> dict[str, str]:
    """Content of every file below ``folder``."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        write_tone(out, out.add_stream("aac", rate=48_000, layout="mono"), 1.0)


def write_videos(folder: Path) -> Path:
    """One of each kind that a folder may hold."""
    (folder / "deep" / ".hidden").mkdir(parents=True)
    write_heads(folder / "a 25.mp4", range(30), seed=0)
    write_heads(folder / "b30.mp4", range(36), Fraction(1, 30), seed=2)
    write_heads(folder / "deep" / "c2997.mkv", range(36), Fraction(1001, 30000), seed=3)
    rng = np.random.default_rng(1)
    write_heads(folder / "d_variable.mp4", np.cumsum(rng.integers(18, 60, 34)).tolist(), Fraction(1, 1000), seed=6)
    first, second = (heads(seed, [i / 25 for i in range(20)]) for seed in (7, 1))
    write_images(folder / "e_cut.mp4", [*first, *second])
    write_images(folder / "f_nobody.mp4", [np.full((96, 96, 3), 40 + i, np.uint8) for i in range(20)])
    write_heads(folder / "g_short.mp4", range(9), seed=1)
    (folder / "h_broken.mp4").write_bytes(b"no video" * 100)
    sound_only(folder / "i_sound.mp4")
    (folder / "notes.txt").write_text("not a video")
    (folder / "deep" / ".hidden" / "j.mp4").write_bytes(b"x")
    return folder
