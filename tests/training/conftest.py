"""A set prepared from small videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from personalive.training.data.prepare.runner import prepare
from support.head_videos import write_heads
from support.prepared import SETTINGS, Made, write_videos


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A set of one video of each kind, that no test changes."""
    place = tmp_path_factory.mktemp("prepared")
    videos, out = write_videos(place / "videos"), place / "set"
    return Made(videos, out, prepare(videos, out, **SETTINGS))


@pytest.fixture
def one_video(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with one short video of a head."""

    def make(frames: int = 20, seed: int = 0) -> Path:
        folder = tmp_path / "videos"
        folder.mkdir(exist_ok=True)
        write_heads(folder / "one.mp4", range(frames), seed=seed)
        return folder

    return make
