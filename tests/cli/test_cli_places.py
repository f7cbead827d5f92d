"""The real program where it is less at home: without a console, a home, a cache, or many descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from personalive.cli.main import main
from support.clips import read_film

ANIMATE = f"{sys.executable} -m personalive animate"


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONALIVE_", "PYTHON"))}
    kept |= {"PERSONALIVE_BACKEND": "eager", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=kept, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize(
    ("form", "environment"),
    [
        ("exec {} >&- 2>&- <&-", {}),
        ("set -o pipefail; {} 2>&1 | true", {}),
        ("ulimit -n 24; exec {}", {"PYTHONIOENCODING": "ascii", "HOME": "/", "XDG_CACHE_HOME": "/dev/null"}),
    ],
    ids=["closed streams", "a reader that leaves", "24 descriptors, ASCII and no cache"],
)
def test_the_place_does_not_decide_about_the_video(place, portrait, driving, small_weights, form, environment):
    name = "fröhlich-日本.mp4"
    command = f"{ANIMATE} me.png clip.mp4 -o {name} --weights {small_weights} --framing center"
    done = shell(form.format(command), place, **environment)
    assert done.returncode == 0, done.stderr
    assert len(read_film(place / name).images) == 10
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["me.png", "clip.mp4", name, name.replace("mp4", "json")]
    )
    if environment:
        assert r"fr\xf6hlich-\u65e5\u672c.mp4" in done.stdout


def test_names_that_are_no_text(place, portrait, driving, small_weights):
    odd = os.fsdecode(b"clip-\xff.mp4")
    driving.rename(place / odd)
    command = f"{ANIMATE} me.png clip-$'\\xff'.mp4 -o $'\\xfe'.mp4 --weights {small_weights} --framing center"
    done = shell(command, place)
    assert done.returncode == 0, done.stderr
    assert len(read_film((place / os.fsdecode(b"\xfe.mp4")).rename(place / "ok.mp4")).images) == 10


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
