"""Motion files through the command line: recorded, shown, replayed, refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from personalive.cli import motion as command
from personalive.offline.motion_file import load_motion_file
from support.clips import NOISE_FPS, contents, read_video, write_noise
from support.small_model import write_small_model

COMMON = ("--framing", "center", "--dtype", "float32")


@pytest.fixture
def take(run, place, driving, small_weights) -> Path:
    path = place / "take.safetensors"
    assert run("motion", "record", driving, path, "--weights", small_weights, *COMMON).code == 0
    return path


def test_a_recording_says_what_is_in_it(run, place, driving, small_weights):
    done = run("motion", "record", driving, "take.safetensors", "--weights", small_weights, *COMMON)
    assert (done.code, done.err) == (0, "")
    labels = [line.split()[0] for line in done.out.splitlines()]
    assert labels == ["motion", "length", "shots", "head", "face", "read", "model"]
    assert f"10 frames, {10 / NOISE_FPS:.2f} s, {NOISE_FPS} frames per second" in done.out
    assert len(load_motion_file(place / "take.safetensors")) == 10


def test_show_fits_on_a_screen_and_names_the_model_that_fits(run, take, small_weights, tmp_path):
    clip = load_motion_file(take)
    done = run("motion", "show", take, "--weights", small_weights)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) < 12
    assert clip.reader in done.out
    yaw = clip.motion.poses.yaw
    assert f"yaw {round(float(yaw.min())):+d} to {round(float(yaw.max())):+d}, pitch" in done.out
    assert lines[-1].endswith(f"{small_weights}: yes")
    other = write_small_model(tmp_path / "other", seed=1)
    assert run("motion", "show", take, "--weights", other).out.splitlines()[-1].endswith("no")


def test_a_replayed_clip_is_the_clips_video(run, place, portrait, driving, take, small_weights):
    options = ("--weights", small_weights, *COMMON, "--expression", "0.5")
    assert run("animate", portrait, driving, "-o", "usual.mp4", *options).code == 0
    renamed = take.rename(place / "take.dat")  # known by its content
    done = run("animate", portrait, renamed, "-o", "take.mp4", *options)
    assert (done.code, done.err) == (0, "")
    wanted, found = (read_video(place / name).images for name in ("usual.mp4", "take.mp4"))
    assert np.array_equal(wanted, found)


def test_options_of_a_recording_reach_it(run, place, small_weights):
    clip = write_noise(place / "long.mp4", 25)
    options = ("--weights", small_weights, *COMMON, "--start", "0.2", "--end", "0.52")
    assert run("motion", "record", clip, "plain.safetensors", *options).code == 0
    assert run("motion", "record", clip, "mirrored.safetensors", *options, "--mirror").code == 0
    plain, mirrored = (load_motion_file(place / f"{name}.safetensors") for name in ("plain", "mirrored"))
    assert len(plain) == len(mirrored) == 8
    assert not np.array_equal(plain.motion.tokens.numpy(), mirrored.motion.tokens.numpy())


def test_choices_of_a_recording_are_those_that_need_no_portrait():
    assert [choice.value for choice in command.NoFace] == ["hold", "error"]


def refused(run, place, *arguments, names: str, way_out: str, code: int = 1) -> None:
    before = contents(place)
    done = run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert len(done.error_lines) == 1, done.err
    assert done.error_lines[0].startswith("error: ")
    assert names in done.error_lines[0]
    assert way_out in done.error_lines[0]
    assert contents(place) == before


def test_clips_that_cannot_be(run, place, portrait, driving, take, small_weights):
    damaged = place / "damaged.safetensors"
    damaged.write_bytes(take.read_bytes()[:-7])
    weights = next(small_weights.rglob("pose_guider.safetensors"))
    for file, way_out in ((damaged, "record it again"), (weights, "motion record"), ("gone.safetensors", "check")):
        refused(run, place, "motion", "show", file, names=str(file), way_out=way_out)
        refused(run, place, "animate", portrait, file, names=str(file), way_out=way_out)
    refused(run, place, "motion", "show", driving, names="clip.mp4", way_out="personalive motion record")


def test_videos_that_cannot_be(run, place, portrait, take, small_weights, tmp_path):
    other = write_small_model(tmp_path / "other", seed=1)
    video = ("animate", portrait, take, "--framing", "center")
    refused(
        run, place, *video, "--weights", other, names="take.safetensors: was read by another", way_out="--weights"
    )
    refused(run, place, *video, "--mirror", names="take.safetensors", way_out="record it with --mirror")
    refused(run, place, *video, "--start", "5", names="take.safetensors", way_out="choose other times")


def test_recordings_that_cannot_be(run, place, driving, take, small_weights):
    record = ("motion", "record", driving)
    refused(run, place, *record, "out.mp4", names="out.mp4", way_out=".safetensors")
    refused(run, place, *record, "no/out.safetensors", names="no/out.safetensors", way_out="create it")
    refused(
        run, place, "motion", "record", take, "out.safetensors", "--weights", small_weights,
        names="take.safetensors: is a motion file", way_out="give a clip",
    )  # fmt: skip
    usage = {"way_out": "see `personalive motion record --help`", "code": 2}
    refused(run, place, *record, names="OUT", **usage)
    refused(run, place, *record, "o.safetensors", "--no-face", "neutral", names="--no-face", **usage)
