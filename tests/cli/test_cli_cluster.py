"""``--cluster``: one line for what cannot be, before anything is written."""

from __future__ import annotations

import sys

import pytest

from support.clips import write_noise

COMMANDS = [
    ("batch", "videos.csv"),
    ("evaluate", "synthetic:1", "--weights", "tiny"),
    ("data", "prepare", "videos", "set"),
]


@pytest.fixture(autouse=True)
def inputs(place, portrait, driving):
    (place / "videos.csv").write_text("portrait,driving,output\nme.png,clip.mp4,a.mp4\n")
    (place / "videos").mkdir()
    write_noise(place / "videos" / "v.mp4", 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_ray_a_line_says_how_to_install_it(run, place, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run(*command, "--cluster", "local")
    assert (done.code, done.err) == (1, 'error: a cluster needs Ray: pip install "personalive[cluster]"\n')
    assert not (place / "a.mp4").exists()
    assert not (place / "set").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cluster", "nowhere"], "--cluster 'nowhere': give local, HOST:PORT of the cluster's head"),
        (["--cluster", "ray://head:10001"], "--cluster 'ray://head:10001': give local, HOST:PORT"),
        (["--cluster", "127.0.0.1:99999"], "--cluster '127.0.0.1:99999': give local, HOST:PORT"),
        (["--cluster", "local", "--actors", "0"], "actors 0: give a number from 1 up"),
        (["--cluster", "local", "--device", "cuda:1"], "device cuda:1: the cluster chooses; give cuda"),
    ],
)
def test_a_cluster_that_cannot_be_is_one_line(run, options, says):
    done = run("batch", "videos.csv", *options)
    assert (done.code, len(done.error_lines)) == (1, 1)
    assert says in done.err


def test_actors_without_a_cluster_are_wrong_usage(run):
    done = run("batch", "videos.csv", "--actors", 2)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert "--actors means nothing without --cluster" in done.err
