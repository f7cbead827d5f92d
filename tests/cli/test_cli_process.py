"""The real program in a process of its own: what it imports, its exit codes, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.clips import read_video, write_noise

HEAVY = ("torch", "numpy", "av", "cv2", "PIL", "diffusers", "transformers", "huggingface_hub", "safetensors")
DEADLINE_S = 300
HEADER_BYTES = 1000  # reach the disk before the first frame
FRAMES = 600  # far more than are made before the interruption


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERSONALIVE_")}
    chosen = {"PERSONALIVE_BACKEND": "eager"}  # nothing is prepared for the frames of a long clip
    return kept | chosen | {"OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path / "data")}


def test_importing_the_commands_imports_nothing_heavy():
    code = f"import sys, personalive.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_animating_imports_no_renderer_of_synthetic_heads():
    """Numba, which compiles it, fails at import where its cache cannot be written."""
    found = "[name for name in sys.modules if 'numba' in name or '.synthetic' in name]"
    code = f"import sys, personalive.offline.animate; print({found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bad_input_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "personalive", "animate", "gone.png", "gone.mp4"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(tmp_path)
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: gone.png: no such file; check the name and the folder\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = f"{sys.executable} -m personalive --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""


@pytest.fixture
def work(place: Path, portrait: Path) -> Path:
    write_noise(place / "long.mp4", FRAMES)
    return place


@pytest.mark.parametrize("ending", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.full)])
def test_an_interruption_leaves_a_playable_video_and_says_where(work, tmp_path, small_weights, ending):
    command = [sys.executable, "-m", "personalive", "animate", "me.png", "long.mp4", "-o", "video.mp4"]
    command += ["--weights", str(small_weights), "--framing", "center", "--side-by-side", "--steps", "1"]
    with subprocess.Popen(
        command, cwd=work, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_for_bytes(work, process)
        process.send_signal(ending)
        out, err = process.communicate(timeout=DEADLINE_S)
    partial = work / "video.partial.mp4"
    *progress, last = err.splitlines()
    said = re.fullmatch(rf"interrupted: The first (\d+) frames were kept in {re.escape(str(partial))}", last)
    assert process.returncode == 130, err
    assert all(line.startswith("animating: ") for line in progress)  # on a slow machine
    assert out == ""
    assert said, err
    assert 0 < len(read_video(partial).images) == int(said[1]) < FRAMES
    assert {path.name for path in work.iterdir()} == {"me.png", "long.mp4", partial.name}


def wait_for_bytes(folder: Path, process: subprocess.Popen) -> None:
    """Until the video under way, of which the driver's noise is the larger part, has reached the disk."""
    end = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < end:
        if any(path.is_file() and path.stat().st_size > HEADER_BYTES for path in folder.rglob(".personalive-*")):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing was written: exit code {process.poll()}")
