"""A video whose run was ended, whatever ended it, is the one that an unbroken run makes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from personalive.errors import OutputError
from personalive.media.paths import alone_in
from personalive.media.still import load_still
from personalive.offline import parts as module
from personalive.offline.config import PartsConfig
from personalive.offline.parts import unfinished_video
from personalive.progress import Progress
from support.c2pa_reader import read as credentials
from support.clips import read_video, save_image, write_clip
from support.small_engine import noise_images
from support.studio import Noting, Studio

FRAMES, PARTS = 34, PartsConfig(cpu_part_s=0.3)  # parts of two chunks of four


def sound(path: Path) -> list[tuple[int, bytes]]:
    """Time and content of every packet."""
    with av.open(str(path)) as video:
        return [(packet.pts, bytes(packet)) for packet in video.demux(audio=0) if packet.pts is not None]


def assert_same(one: Path, other: Path) -> None:
    first, second = read_video(one), read_video(other)
    assert first.times == second.times
    assert np.array_equal(first.images, second.images)
    assert sound(one) == sound(other)
    sheets = [load_still(path.with_suffix(".png")) for path in (one, other)]
    assert np.array_equal(*sheets)
    assert credentials(one).whole and credentials(other).whole


def killed(folder: Path, frames: int, kills: int, part_s: float) -> str:
    """Make the video whole and killed, in processes; returns what was told."""
    images = noise_images(32, 2)
    save_image(folder / "portrait.png", images[0])
    write_clip(
        folder / "driving.mp4", (images[number % 32] for number in range(frames)), range(frames), audio_s=frames / 25
    )
    program = [sys.executable, "-m", "support.kill_and_animate", str(folder), str(kills), str(part_s)]
    place = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(program, capture_output=True, text=True, check=True, env=os.environ | place).stderr
    assert_same(folder / "whole.mp4", folder / "killed.mp4")
    assert {path.name for path in folder.iterdir()} == {
        *("portrait.png", "driving.mp4"),
        *(f"{name}{suffix}" for name in ("whole", "killed") for suffix in (".mp4", ".json", ".png")),
    }
    return told


def test_a_run_killed_without_warning_goes_on(tmp_path: Path):
    killed(tmp_path, frames=40, kills=1, part_s=0.3)


@pytest.mark.full
def test_two_minutes_killed_five_times(tmp_path: Path):
    assert "goes on from" in killed(tmp_path, frames=3000, kills=5, part_s=PartsConfig.cpu_part_s)


# --- in this process ----------------------------------------------------------------------------------------


def stop_at(frames: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.frames == frames:
            raise KeyboardInterrupt

    return stop


def made(studio: Studio, driving: Path, name: str, **options):
    sheet = str(studio.folder / name.replace(".mp4", ".png"))
    options = {"parts": PARTS, "keyframe_threshold": 0.0, "contact_sheet": sheet, "side_by_side": True} | options
    return studio.animate(driving, name=name, **options)


def broken(studio: Studio, driving: Path, frames: int = 20, **options) -> KeyboardInterrupt:
    """A run that ends after so many frames."""
    with pytest.raises(KeyboardInterrupt) as stop:
        made(studio, driving, "b.mp4", progress=stop_at(frames), **options)
    return stop.value


@pytest.mark.parametrize("driver", ["clip", "motion file"])
def test_a_run_goes_on_from_its_last_part(studio: Studio, caplog: pytest.LogCaptureFixture, driver: str):
    driving = studio.clip(FRAMES, audio_s=1.0)
    if driver == "motion file":
        driving = studio.record(driving)
    made(studio, driving, "a.mp4")
    stop = broken(studio, driving)
    assert stop.__notes__ == [
        f"The first 20 frames were kept in {studio.folder / 'b.partial.mp4'}",
        "the same command goes on from 0:01 of the video",
    ]
    part, whole = (read_video(studio.folder / name) for name in ("b.partial.mp4", "a.mp4"))
    assert np.array_equal(part.images[:16], whole.images[:16])
    assert part.images.shape[0] == 20
    assert not caplog.messages
    engine = Noting(studio.engine.networks, name="small") if driver == "clip" else studio.engine
    heard: list[Progress] = []
    report, _ = made(studio, driving, "b.mp4", engine=engine, progress=heard.append)
    assert caplog.messages == [f"{studio.folder / 'b.mp4'}: goes on from 0:01, which an earlier run reached"]
    assert (report.frames, heard[0].frames, heard[-1].frames) == (FRAMES, 20, FRAMES)
    if isinstance(engine, Noting):
        assert len(engine.driven) == 8  # 16 frames were finished, and 12 in flight
    if driver == "clip":
        assert_same(studio.folder / "a.mp4", studio.folder / "b.mp4")
    else:
        assert np.array_equal(read_video(studio.folder / "b.mp4").images, whole.images)
    assert not list(studio.folder.glob(".personalive*"))


def test_another_video_is_made_anew(studio: Studio, caplog: pytest.LogCaptureFixture):
    driving = studio.clip(FRAMES)
    broken(studio, driving)
    (folder,) = studio.folder.glob(".personalive*")
    state, part = folder / "state.safetensors", folder / "part-00000.mp4"
    kept = {file: file.read_bytes() for file in (state, part, folder / "part-00001.mp4")}

    def told(change: Callable[[], object], **options) -> list[str]:
        folder.mkdir(exist_ok=True)
        for file, content in kept.items():
            file.write_bytes(content)
        change()
        caplog.clear()
        assert len(broken(studio, driving, frames=4, **options).__notes__) == 1  # nothing to go on from
        assert not folder.exists()
        return caplog.messages

    damaged = [f"{studio.folder / 'b.mp4'}: what an earlier run left of it is damaged: it is made anew"]
    assert told(lambda: state.write_bytes(b"nothing")) == damaged
    assert told(lambda: state.write_bytes(kept[state].replace(b"HeadPose", b"HeadPost"))) == damaged
    assert told(lambda: part.write_bytes(kept[part][:-1])) == damaged
    assert "with other options" in told(lambda: None, seed=5)[0]
    assert "with other driving" in told(lambda: os.utime(driving, ns=(0, 0)))[0]


def test_a_full_disk_is_one_line_and_the_parts_stay(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    driving = studio.clip(FRAMES, audio_s=1.0)
    written, save = [], module.save_file

    def full(*given):
        written.append(given)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*given)

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OutputError) as error:
        made(studio, driving, "b.mp4")
    assert "state could not be written (No space left on device)" in str(error.value)
    assert error.value.__notes__[-1] == "the same command goes on from 0:00 of the video"
    made(studio, driving, "b.mp4")
    made(studio, driving, "a.mp4")
    assert_same(studio.folder / "a.mp4", studio.folder / "b.mp4")


def test_two_runs_do_not_make_one_video(studio: Studio):
    target = studio.folder / "video.mp4"
    with unfinished_video(target, {}) as first, pytest.raises(OutputError, match="at work there"):
        assert first.folder.is_dir()
        studio.animate(studio.clip(1))
    with alone_in(studio.folder), unfinished_video(target, {}):
        pass
    assert studio.left() == {"portrait.png", "driving.mp4"}
