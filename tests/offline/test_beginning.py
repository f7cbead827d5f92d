"""The beginning of a driver, and the reading of its head's angles: decided by what its first seconds show."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
import torch

from personalive.offline.beginning import Beginning, read_beginning
from personalive.offline.config import BeginningConfig
from personalive.offline.driving import MotionDriving
from personalive.offline.motion_file import load_motion_file, save_motion_file
from support.studio import Studio

CONFIG = BeginningConfig()


def beginning(yaw: list[float], face: list[float] | None = None) -> Beginning:
    count = len(yaw)
    angles = torch.tensor([[value, 0.0, 0.0] for value in yaw]).reshape(count, 3)
    tokens = torch.tensor([[value, 1.0] for value in face or [0.0] * count]).reshape(count, 2)
    return Beginning(torch.arange(count, dtype=torch.float64) / 5, tokens, angles)


@pytest.mark.parametrize(
    ("yaw", "pose"),
    [
        ([28, 30, 26, 29, 31], "relative"),  # filmed from the side
        ([2, -8, 5, 0, 4], "absolute"),  # from the front
        ([30, 2, 0, -3, 1], "absolute"),  # it looks aside at first, which is no base
        ([1, 25, 28, 24, 30], "absolute"),  # it turns aside after a frontal start
        ([], "absolute"),  # no face
    ],
)
def test_turns_are_relative_where_the_camera_stands_aside(yaw: list[float], pose: str):
    found, note = beginning(yaw).pose(0.0, CONFIG)
    assert found == pose
    assert bool(note) == (pose == "relative")
    if note:
        assert "29° from the front" in note


def test_the_most_neutral_frame_looks_ahead_with_the_usual_face():
    found = beginning([0, 20, 1, 0, -1], [5.0, 0.1, 0.4, 0.1, 4.0])  # an open mouth at both ends
    assert found.most_neutral(CONFIG) == pytest.approx(0.4)
    assert beginning([]).most_neutral(CONFIG) is None


def test_a_recording_is_searched_too(studio: Studio):
    """Motion with a frame that is the usual one; the video of it begins there."""
    path = studio.record(studio.clip(40))
    clip = load_motion_file(path)
    found = read_beginning(MotionDriving(clip, 4), studio.engine, 1.0, 0.16)
    assert found.times_s.tolist() == [float(Fraction(4 * n, 25)) for n in range(7)]
    start_s = found.most_neutral(CONFIG)
    report, video = studio.animate(path, start_s="auto", end_s=1.2)
    wanted = read_beginning(MotionDriving(clip.part(None, 1.2), 4), studio.engine, 10.0, 0.25).most_neutral(CONFIG)
    assert start_s is not None
    assert wanted is not None
    assert len(video.times) == report.frames == round((1.2 - wanted) * 25)
    assert report.options["start_s"] == "auto"
    assert f"driver: begins at {wanted:.2f} s" in report.warnings[0]


def test_a_driver_filmed_from_the_side_is_told_in_the_record(studio: Studio):
    path = studio.record(studio.clip(12))
    clip = load_motion_file(path)
    poses = dataclasses.replace(
        clip.motion.poses, yaw=torch.linspace(29, 31, 12), pitch=torch.zeros(12), roll=torch.zeros(12)
    )
    motion = dataclasses.replace(clip.motion, poses=poses)
    save_motion_file(path, dataclasses.replace(clip, motion=motion))
    report, video = studio.animate(path)
    assert [line for line in report.warnings if "° from the front" in line]
    assert (video.images == studio.animate(path, name="b.mp4", pose="relative")[1].images).all()
    assert not (video.images == studio.animate(path, name="c.mp4", pose="absolute")[1].images).all()
