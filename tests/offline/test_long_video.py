"""Hundreds of frames through ``animate`` on the smallest model there is: memory does not follow the length."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator
from os import getpid
from pathlib import Path

import numpy as np

from personalive.engine.engine import Engine
from personalive.offline.animate import animate
from personalive.offline.config import PartsConfig
from personalive.progress import Progress
from support.clips import save_image, write_clip
from support.small_engine import key_seeded_networks
from support.small_model import smallest_shape

FRAMES, WARM_AFTER_FRAMES, EVERY_FRAMES = 600, 200, 20
MAX_GROWTH_BYTES = 2_000_000  # 5 kB a frame: less than one image of the video; without a leak it is 1 MB


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    gc.collect()
    kib = subprocess.run(["ps", "-o", "rss=", "-p", str(getpid())], check=True, capture_output=True, text=True).stdout
    return 1024 * int(kib)


def drawn_frames() -> Iterator[np.ndarray]:
    """An image that wanders, never the same twice in a row."""
    ground = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = np.kron(ground, np.ones((4, 4, 1), np.uint8))
    for index in range(FRAMES):
        yield np.roll(image, (index % 32, index // 32 % 32), axis=(0, 1))


def test_memory_does_not_grow_with_the_video(tmp_path: Path):
    driving = write_clip(tmp_path / "long.mp4", drawn_frames(), range(FRAMES))
    portrait = save_image(tmp_path / "portrait.png", next(drawn_frames()))
    taken: list[tuple[int, int]] = []

    def measure(progress: Progress) -> None:
        if progress.frames >= WARM_AFTER_FRAMES + EVERY_FRAMES * len(taken):
            taken.append((progress.frames, resident_bytes()))

    gc.freeze()  # a collection looks at what comes from here on: of all that was imported it would take seconds
    report = animate(
        portrait,
        driving,
        tmp_path / "video.mp4",
        engine=Engine(key_seeded_networks(smallest_shape())),
        framing="center",
        keyframe_threshold=0,
        steps=1,
        side_by_side=True,
        contact_sheet=str(tmp_path / "sheet.png"),
        progress=measure,
        parts=PartsConfig(cpu_part_s=60.0),  # one: each part's encoder takes and frees some MB
    )
    gc.unfreeze()
    assert (report.frames, report.keyframes) == (FRAMES, 3)
    assert len(taken) > 15
    growth = max(size for _, size in taken) - taken[0][1]
    assert growth < MAX_GROWTH_BYTES, f"{growth / 1e6:.0f} MB more than after {taken[0][0]} frames"
