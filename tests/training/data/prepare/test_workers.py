"""What becomes of the workers when something ends early."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from personalive.errors import DeviceError
from personalive.training.data.prepare.runner import prepare
from support.head_films import write_heads
from support.prepared import SETTINGS


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_heads(folder / "a.mp4", range(40))
    for name in "bcdefghijkl":
        os.link(folder / "a.mp4", folder / f"{name}.mp4")
    return folder


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_that_is_killed_ends_the_command_with_one_line(videos: Path, tmp_path: Path):
    def kill() -> None:
        wait_for(lambda: any(tmp_path.glob("set/videos/*.json")))
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DeviceError, match="fewer --workers to go on"):
        prepare(videos, tmp_path / "set", **SETTINGS | {"workers": 2})
    killer.join()
    assert not list((tmp_path / "set").rglob(".personalive-*"))
