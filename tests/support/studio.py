"""A portrait and ways to make and animate clips, and to see what the engine and the encoder are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from personalive.engine.conditioning import PLAIN
from personalive.engine.controls import Controls
from personalive.engine.engine import Engine
from personalive.media.writer import VideoWriter
from personalive.offline import parts as module
from personalive.offline.animate import animate
from personalive.offline.options import AnimateReport
from personalive.offline.record import RecordOptions, record
from support.clips import Video, read_video, write_clip

MakeImages = Callable[[int, int], np.ndarray]


@dataclasses.dataclass
class Studio:
    """A portrait and ways to make, record and animate clips in one folder."""

    folder: Path
    engine: Engine
    make_images: MakeImages
    portrait: Path

    def clip(self, frames: int = 5, *, name: str = "driving.mp4", seed: int = 2, **options: Any) -> Path:
        ticks = options.pop("ticks", range(frames))
        return write_clip(self.folder / name, self.make_images(len(ticks), seed), ticks, **options)

    def animate(self, driving: Path, *, name: str = "video.mp4", **options: Any) -> tuple[AnimateReport, Video]:
        options = {"framing": "center", "engine": self.engine} | options
        report = animate(self.portrait, driving, self.folder / name, **options)
        return report, read_video(self.folder / name)

    def encoded(self, driving: Path, **options: Any) -> tuple[Video, list[np.ndarray]]:
        """A video, and its images before they were encoded."""
        given: list[np.ndarray] = []

        class Keeping(VideoWriter):
            def write(self, image, time, duration=None):
                given.append(image.copy())
                super().write(image, time, duration)

        with mock.patch.object(module, "VideoWriter", Keeping):
            _, video = self.animate(driving, **options)
        return video, given

    def record(self, clip: Path, **options: Any) -> Path:
        """Record a clip in a motion file."""
        path = self.folder / "take.safetensors"
        record(clip, path, RecordOptions(framing="center", **options), engine=self.engine)
        return path

    def left(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


class Noting(Engine):
    """Keeps the cuts, by driving frame, the images it is driven with, and the controls."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cuts: list[int] = []
        self.driven: list[np.ndarray] = []
        self.controls_seen: list[Controls] = []

    def step(self, state, window, noise=None, *, cut=None, controls=PLAIN):
        assert isinstance(window, np.ndarray)
        if cut is not None:
            self.cuts.append(len(self.driven) + cut)
        self.driven += list(window)
        self.controls_seen.append(controls)
        return super().step(state, window, noise, cut=cut, controls=controls)
