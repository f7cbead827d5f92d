"""The real program where it is less at home: without a console, a home, a cache, or many descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from personalive.cli.main import main
from support.clips import read_video

ANIMATE = f"{sys.executable} -m personalive animate"


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONALIVE_", "PYTHON"))}
    kept |= {"PERSONALIVE_BACKEND": "eager", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=kept, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize(
    ("form", "name", "environment"),
    [
        ("exec {} >&- 2>&- <&-", b"fr\xf6hlich.mp4", {}),  # a name that is no text
        (
            "ulimit -n 24; set -o pipefail; {} 2>&1 | true",
            "fröhlich-日本.mp4".encode(),
            {"PYTHONIOENCODING": "ascii", "HOME": "/", "XDG_CACHE_HOME": "/dev/null"},
        ),
    ],
    ids=["closed streams", "a reader that leaves, 24 descriptors, ASCII and no cache"],
)
def test_the_place_does_not_decide_about_the_video(place, portrait, driving, small_weights, form, name, environment):
    clip, video = place / os.fsdecode(b"in-" + name), place / os.fsdecode(name)
    driving.rename(clip)
    command = f'{ANIMATE} me.png "$CLIP" -o "$VIDEO" --weights {small_weights} --framing center'
    done = shell(form.format(command), place, CLIP=str(clip), VIDEO=str(video), **environment)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in place.iterdir()} == {"me.png", clip.name, video.name, f"{video.stem}.json"}
    assert len(read_video(video.rename(place / "ok.mp4")).images) == 10


def test_letters_that_the_console_lacks_are_spelled_out(tmp_path):
    done = shell(f"{ANIMATE} 日.png b.mp4", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert done.stderr == "error: \\u65e5.png: no such file; check the name and the folder\n"


def test_a_file_of_the_users_is_not_taken_for_the_record(run, place, portrait, driving, small_weights):
    command = ("animate", "me.png", "clip.mp4", "-o", "take.mp4", "--weights", small_weights, "--framing", "center")
    for content in ('{"my": "notes"}', "not JSON at all", "[1, 2]"):
        (place / "take.json").write_text(content)
        done = run(*command)
        assert done.code == 1
        assert "take.json: is in the place of the video's record" in done.err
        assert (place / "take.json").read_text() == content
        assert not (place / "take.mp4").exists()
    (place / "take.json").unlink()
    assert [run(*command).code, run(*command).code] == [0, 0]  # its own record is replaced


def test_tilde_without_a_home_makes_no_folder(place, monkeypatch, capfd):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", _no_home)
    monkeypatch.setattr(Path, "expanduser", _no_home)
    for arguments in (["animate", "a.png", "b.mp4"], ["doctor"], ["animate", "a.png", "b.mp4", "--weights", "~/w"]):
        main(arguments)
        assert "unexpected" not in capfd.readouterr().err
    assert list(place.iterdir()) == []


def _no_home(*_: object) -> Path:
    raise RuntimeError("Could not determine home directory.")
