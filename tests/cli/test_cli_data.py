"""``personalive data prepare`` as typed: what it says, its exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from personalive.progress import Progress
from personalive.training.data.prepare import runner
from personalive.training.data.prepare.config import PrepareConfig
from support.clips import contents
from support.head_videos import write_heads

DEADLINE_S = 300


@pytest.fixture
def videos(place: Path) -> Path:
    (place / "videos").mkdir()
    write_heads(place / "videos" / "one.mp4", range(20))
    return place / "videos"


def test_the_plainest_command(run, place, videos):
    write_heads(videos / "short.mp4", range(5), seed=2)
    done = run("data", "prepare", "videos", "set", "--size", "96", "--min-seconds", "0.6", "--workers", "1")
    assert (done.code, done.err) == (0, "")
    assert "set, 1 clips from 1 of 2 videos" in done.out
    assert re.search(r"20 frames, 0.0 minutes, \d+ kB", done.out)
    assert "dropped  1 too short" in done.out
    assert "set/report.md" in done.out
    assert json.loads((place / "set" / "set.json").read_text())["settings"] == {
        "size_px": 96,
        "fps": 25,
        "framing_scale": 1.9,
        "min_clip_s": 0.6,
        "detector": "haar",
    }


@pytest.mark.parametrize(
    ("arguments", "says", "way_out"),
    [
        (["gone", "set"], "gone: no such folder", "check the name"),
        (["videos/one.mp4", "set"], "one.mp4: is a file", "give the folder"),
        (["videos", "videos/set"], "videos/set: is inside videos", "choose a folder beside it"),
        (["videos", "set", "--size", "97"], "size 97", "even number"),
        (["videos", "set", "--size", "32"], "size 32", "from 64 to 2048"),
        (["videos", "set", "--workers", "0"], "workers 0", "from 1 up"),
        (["videos", "set", "--min-seconds", "0"], "least length 0.0 s", "above 0"),
        (["videos", "set", "--min-seconds", "nan"], "least length nan s", "above 0"),
        (["videos", "set", "--framing-scale", "9"], "framing scale 9", "from 1 to 4"),
        (["videos", "set", "--weights", "nowhere"], "nowhere: no such folder", "leave --weights out"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(run, place, videos, arguments, says, way_out):
    before = contents(place)
    done = run("data", "prepare", *arguments)
    assert done.code == 1
    assert len(done.error_lines) == 1, done.err
    assert says in done.err
    assert way_out in done.err
    assert contents(place) == before


def test_an_empty_result_is_an_error_that_names_the_report(run, place, videos):
    done = run("data", "prepare", "videos", "set", "--size", "96", "--workers", "1")
    assert done.code == 1
    assert done.error_lines == ["error: set: not one clip could be kept (1 too short); see set/report.md"]
    assert (place / "set" / "report.md").exists()


def test_time_left_is_that_of_what_this_run_has_to_do(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])
    videos = [runner.Video(Path(name), name, name, size, name) for name, size in (("a", 600), ("b", 300), ("c", 100))]
    told: list[Progress] = []
    job = runner.Job(videos[1:], Path(), PrepareConfig(), None)
    meter = runner.Meter(videos, job, told.append)
    clock[0] += 10
    meter.tell()
    assert told[-1].note == "1 of 3 videos, 0 frames, 0 per second"
    job.shares[0], job.frames[0] = 0.5, 50
    clock[0] += 10
    meter.tell()
    assert told[-1].done == pytest.approx(0.75)
    assert told[-1].note == "1 of 3 videos, 50 frames, 2 per second, 0:33 left"
    job.shares[:] = 1.0, 1.0
    meter.finish()
    meter.finish()
    assert (told[-1].done, told[-1].note) == (1.0, "3 of 3 videos, 50 frames, 2 per second, 0:00 left")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.full)])
def test_ctrl_c_says_how_to_go_on_and_leaves_nothing_half_written(videos, place, tmp_path, workers):
    for name in "abcdefgh":
        os.link(videos / "one.mp4", videos / f"{name}.mp4")
    command = [sys.executable, "-m", "personalive", "data", "prepare", "videos", "set"]
    command += ["--size", "96", "--min-seconds", "0.6", "--workers", workers]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path / "data")}
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        end = time.monotonic() + DEADLINE_S
        while process.poll() is None and time.monotonic() < end and not any(place.glob("set/videos/*.json")):
            time.sleep(0.005)
        assert process.poll() is None, "finished before it was stopped"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers too
        out, err = process.communicate(timeout=DEADLINE_S)
    *progress, last = err.splitlines()
    assert process.returncode == 130, err
    assert last == "interrupted: the videos finished so far are kept in set; the same command goes on", err
    assert all(line.startswith("preparing: ") for line in progress)
    assert out == ""
    assert not list((place / "set").rglob(".personalive-*"))
    assert not (place / "set" / "index.jsonl").exists()
