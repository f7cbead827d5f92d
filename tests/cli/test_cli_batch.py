"""``personalive batch``: the right videos once each, whatever stops it, and the rest in spite of what fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from personalive.offline import batch as module
from support.clips import read_video, write_noise
from support.small_model import SMALL_SIZE_PX
from support.waiting import wait_until

FRAMES = 3
MANIFEST = """portrait,driving,output,size,audio
me.png,clip.mp4,first.mp4,,
broken.png,clip.mp4,second.mp4,,
me.png,clip.mp4,third.mp4,48,no
"""


@pytest.fixture
def manifest(place: Path, portrait: Path, driving: Path) -> Path:
    write_noise(driving, FRAMES)
    (place / "broken.png").write_bytes(b"\x89PNG of nothing")
    (place / "videos.csv").write_text(MANIFEST)
    return place / "videos.csv"


@pytest.fixture
def common(small_weights: Path) -> list[str]:
    return ["--weights", str(small_weights), "--framing", "center"]


def videos(folder: Path) -> dict[str, int]:
    """Finished videos by name, with the time of their last change."""
    inputs = ("clip.mp4", "long.mp4")
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4") if path.name not in inputs}


def states(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()]


def test_what_fails_is_listed_at_the_end_and_the_rest_is_made_once(run, place, manifest, common):
    done = run("batch", manifest, *common, "--json", "summary.json")
    assert done.code == 1
    assert states(done.out) == ["made", "made", "failed", "videos", "json"]
    assert "line 3: " in done.out
    assert "broken.png" in done.out
    assert "videos  2 made, 0 kept, 1 failed" in done.out
    assert len(done.error_lines) == 1
    assert "1 of 3 videos failed, as listed: correct them and run the same command again" in done.err
    made = videos(place)
    assert made.keys() == {"first.mp4", "third.mp4"}
    assert read_video(place / "first.mp4").images.shape == (FRAMES, SMALL_SIZE_PX, SMALL_SIZE_PX, 3)
    assert read_video(place / "third.mp4").images.shape == (FRAMES, 48, 48, 3)
    found = json.loads((place / "summary.json").read_text())["videos"]
    assert [Path(video["output"]).name for video in found] == ["first.mp4", "third.mp4", "second.mp4"]  # by portrait
    assert [video["state"] for video in found] == ["made", "made", "failed"]
    assert "broken.png" in found[2]["problem"]

    shutil.copy(place / "me.png", place / "broken.png")  # corrected
    done = run("batch", manifest, *common)
    assert (done.code, done.err) == (0, "")
    assert "videos  1 made, 2 kept, 0 failed" in done.out
    assert made.items() < videos(place).items()
    assert videos(place).keys() == {"first.mp4", "second.mp4", "third.mp4"}


def test_what_is_made_is_kept_from_any_folder_and_records_that_are_none_are_nobodys(
    run, place, manifest, common, monkeypatch
):
    manifest.write_text("portrait,driving,output\nme.png,clip.mp4,one.mp4\n")
    assert run("batch", manifest, *common).code == 0
    before = videos(place)
    monkeypatch.chdir("/")
    done = run("batch", manifest, *common)
    assert (done.code, videos(place)) == (0, before)
    assert "videos  0 made, 1 kept, 0 failed" in done.out
    (place / "one.json").write_text("{")
    done = run("batch", manifest, *common)
    assert (done.code, videos(place)) == (1, before)
    assert "is no record itself" in done.out
    (place / "one.json").unlink()
    assert run("batch", manifest, *common).code == 0
    made = videos(place)
    assert made != before
    assert run("batch", manifest, *common, "--no-resume").code == 0
    assert videos(place) != made


def test_one_model_is_loaded_and_none_where_all_is_made(run, place, manifest, common, monkeypatch):
    loaded = []
    load = module.run_batch

    def counted(rows, engine, *rest, **options):
        return load(rows, lambda: loaded.append(1) or engine(), *rest, **options)

    monkeypatch.setattr(module, "run_batch", counted)
    manifest.write_text("".join(line for line in MANIFEST.splitlines(True) if "broken" not in line))
    assert run("batch", manifest, *common).code == 0
    assert run("batch", manifest, *common).code == 0
    assert loaded == [1]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_a_batch_that_is_stopped_goes_on(run, place, manifest, common, monkeypatch, stop):
    manifest.write_text("portrait,driving,output\nme.png,clip.mp4,a.mp4\nme.png,clip.mp4,b.mp4\n")
    make, calls = module.animate, []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise stop("of a library")
        return make(*arguments, **options)

    monkeypatch.setattr(module, "animate", stopped)
    done = run("batch", manifest, *common)
    made = videos(place)
    assert made.keys() == {"a.mp4"}
    assert len(done.error_lines) == 1
    if stop is KeyboardInterrupt:
        assert (done.code, done.out) == (130, "")
        assert done.err == "interrupted: 1 of 2 videos are made; the same command makes the rest\n"
    else:  # a fault of ours in one row is that row's
        assert done.code == 1
        assert "line 3: unexpected ZeroDivisionError: of a library" in done.out
    done = run("batch", manifest, *common)
    assert (done.code, done.err) == (0, "")
    assert "videos  1 made, 1 kept, 0 failed" in done.out
    assert made.items() < videos(place).items()


@pytest.mark.full
def test_a_batch_that_is_killed_goes_on(run, place, manifest, common, tmp_path):
    write_noise(place / "long.mp4", 100)
    rows = ["me.png,clip.mp4,a.mp4", "me.png,long.mp4,b.mp4", "me.png,clip.mp4,c.mp4"]
    manifest.write_text("\n".join(["portrait,driving,output", *rows]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERSONALIVE_")}
    environment = kept | {"PERSONALIVE_BACKEND": "eager", "XDG_DATA_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-m", "personalive", "batch", str(manifest), *common]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=place, env=environment, stdout=nowhere, stderr=nowhere) as process:
        wait_until(lambda: (place / "a.json").exists() and any(place.glob(".personalive-*")))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    made = videos(place)
    assert made.keys() == {"a.mp4"}
    again = run("batch", manifest, *common)
    assert (again.code, again.err) == (0, "")
    assert "videos  2 made, 1 kept, 0 failed" in again.out
    assert videos(place).keys() == {"a.mp4", "b.mp4", "c.mp4"}
    assert made.items() < videos(place).items()
    assert len(read_video(place / "b.mp4").images) == 100


def test_folders_make_every_pair(run, place, portrait, common):
    for name in ("faces", "clips"):
        (place / name).mkdir()
    for name in ("ann.png", "bob.png"):
        shutil.copy(portrait, place / "faces" / name)
    for name in ("hello.mp4", "bye.mp4"):
        write_noise(place / "clips" / name, FRAMES)
    done = run("batch", "faces", "clips", "-o", "new/out", *common, "--size", "48", "--side-by-side")
    assert (done.code, done.err) == (0, "")
    pairs = {f"{clip}_by_{face}.mp4" for clip in ("hello", "bye") for face in ("ann", "bob")}
    assert videos(place / "new/out").keys() == pairs
    assert read_video(place / "new/out/bye_by_bob.mp4").images.shape == (FRAMES, 48, 3 * 48, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone.csv"], "gone.csv: no such file"),
        (["me.png"], "should be a .csv or .jsonl manifest"),
        (["videos.csv", "--size", "33"], "size 33"),
        (["videos.csv", "--json", "first.json"], "belongs to a video of the batch"),
        (["videos.csv", "--json", "sum.txt"], "should end in .json"),
        (["videos.csv", "--weights", "nowhere"], "no such weights folder"),
        (["videos.csv", "--device", "warp"], "'warp' is not available"),
    ],
)
def test_what_no_video_could_be_made_with_is_one_line(run, place, manifest, arguments, says):
    done = run("batch", *arguments)
    assert (done.code, len(done.error_lines), done.out) == (1, 1, "")
    assert says in done.err
    assert videos(place) == {}
