"""Cases of synthetic heads and of folders: who is driven by whom, and with which images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import InputError, OutputError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Case, DatasetOptions, open_dataset, write_inputs
from personalive.evaluation.methods import VideoMethod
from personalive.media.reader import open_video
from personalive.media.still import load_still
from personalive.synthetic import Identity, Performance, render
from personalive.training.data.synthetic import HELD_OUT_SEED
from support.clips import contents


def opened(name: str | Path, **options):
    return open_dataset(str(name), DatasetOptions(**{"size_px": 64, "framing": "none", **options}), None)


# --- synthetic heads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "people", "numbers"),
    [
        ("synthetic", None, range(8)),
        ("synthetic:3", None, range(3)),
        ("synthetic:10-12", None, range(10, 13)),
        ("synthetic:10-12", 2, range(10, 12)),
        ("synthetic:2", 5, range(2)),
    ],
)
def test_people_are_those_asked_for(name, people, numbers):
    dataset = opened(name, people=people)
    assert [case.name for case in dataset.cases("self")] == [f"person{n:03}" for n in numbers]
    assert [case.name for case in dataset.cases("cross")] == [f"driver{n:03}_by_person{n:03}" for n in numbers]


@pytest.mark.parametrize("name", ["synthetic:", "synthetic:0", "synthetic:5-4", "synthetic:many", "synthetic:-3"])
def test_nobody_and_nonsense_are_refused(name):
    if name == "synthetic:":
        assert len(opened(name).cases("self")) == 8
        return
    with pytest.raises(InputError, match="synthetic:"):
        opened(name)


def test_synthetic_heads_are_people_that_training_never_saw_and_cross_drivers_are_others():
    (own,), (cross,) = (opened("synthetic:3-3", frames=4).cases(kind) for kind in ("self", "cross"))
    seed = EvaluationConfig.first_seed + 3
    person, driver = Identity.sample(seed), Identity.sample(seed + EvaluationConfig.driver_offset)
    performance = Performance.sample(seed)
    motions = [performance.at(index) for index in range(1, 5)]
    for case, shown in ((own, person), (cross, driver)):
        samples = list(case.samples())
        assert np.array_equal(case.portrait(), render(person, performance.at(0), 64).image)
        assert np.array_equal([s.driver for s in samples], [render(shown, motion, 64).image for motion in motions])
        assert np.array_equal([s.truth for s in samples], [render(person, motion, 64).image for motion in motions])
        assert [s.motion.yaw_deg for s in samples if s.motion] == [motion.yaw_deg for motion in motions]
        assert case.frames == 4
    assert np.abs(next(cross.samples()).driver.astype(int) - next(own.samples()).driver).mean() > 5
    assert EvaluationConfig.first_seed >= HELD_OUT_SEED


# --- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, write_video, moving) -> Path:
    place = tmp_path / "clips"
    place.mkdir()
    for seed, name in enumerate(("anna.mp4", "ben.mp4", "cleo.mp4")):
        write_video(place / name, moving(6, seed))
    (place / "notes.txt").write_text("not a video")
    return place


def test_self_is_driven_by_its_own_frames_and_cross_by_the_next_video(folder, moving):
    dataset = opened(folder)
    anna, *_ = dataset.cases("self")
    samples = list(anna.samples())
    assert len(samples) == 6
    assert np.abs(np.stack([m.driver for m in samples]).astype(int) - moving(6, 0)).mean() < 4
    assert all(m.truth is m.driver for m in samples)
    assert [m.time for m in samples] == [Fraction(n, 25) for n in range(6)]
    assert np.array_equal(anna.portrait(), samples[0].driver)
    cross = dataset.cases("cross")
    assert [case.name for case in cross] == ["ben_by_anna", "cleo_by_ben", "anna_by_cleo"]
    assert np.array_equal(cross[0].portrait(), anna.portrait())
    driven = list(cross[0].samples())
    assert np.abs(driven[3].driver.astype(int) - moving(6, 1)[3]).mean() < 4
    assert all(m.truth is None for m in driven)


def test_frames_and_cases_can_be_limited(folder):
    dataset = opened(folder, frames=2, people=1)
    assert [case.name for case in dataset.cases("self")] == ["anna"]
    assert len(list(dataset.cases("cross")[0].samples())) == 2


def test_videos_are_brought_to_the_size_compared(folder, tmp_path, write_video, moving):
    wide = tmp_path / "wide"
    wide.mkdir()
    write_video(wide / "a.mp4", np.concatenate([moving(4, 0, 64), moving(4, 1, 64)], axis=2))
    (case,) = opened(wide, size_px=32, framing="center").cases("self")
    assert case.portrait().shape == (32, 32, 3)
    (case,) = opened(wide, framing="none").cases("self")
    with pytest.raises(InputError, match="not square"):
        case.portrait()


def test_pairs_say_who_drives_whom(folder, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("# portrait,driving\nanna, cleo\n\nben,ben\n")
    assert [case.name for case in opened(folder, pairs=pairs).cases("cross")] == ["cleo_by_anna", "ben_by_ben"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("anna\n", "line 1 has 1 names"), ("\nanna,dora\n", "line 2: no video named 'dora'"), ("# none\n", "no pair")],
)
def test_bad_pairs_are_refused(folder, tmp_path, text, complaint):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(text)
    with pytest.raises(InputError, match=complaint):
        opened(folder, pairs=pairs).cases("cross")


def test_pairs_that_are_missing_or_mean_nothing_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read"):
        opened(folder, pairs=tmp_path / "gone.csv").cases("cross")
    with pytest.raises(InputError, match="leave it out for synthetic heads"):
        opened("synthetic:2", pairs=tmp_path / "gone.csv")


def test_folders_that_hold_nothing_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, complaint in (
        (tmp_path / "empty", "no video in this folder"),
        (tmp_path / "gone", "no such folder"),
        (folder / "notes.txt", "is a file: give the folder"),
    ):
        with pytest.raises(InputError, match=complaint):
            opened(name)


def test_one_video_cannot_drive_another(tmp_path, write_video, moving):
    write_video(tmp_path / "a.mp4", moving(4))
    with pytest.raises(InputError, match="one video cannot drive another"):
        opened(tmp_path).cases("cross")


def test_videos_that_differ_by_their_ending_alone_are_told(folder):
    (folder / "ben.webm").write_bytes(b"x")
    dataset = opened(folder)
    assert len(dataset.cases("self")) == 3
    assert [line for line in dataset.skipped if "ben.webm: skipped" in line]


# --- inputs of other methods --------------------------------------------------------------------------------------


def heads(kind: str) -> Case:
    (case,) = open_dataset("synthetic:1", DatasetOptions(size_px=64, frames=6), None).cases(kind)  # pyright: ignore[reportArgumentType]
    return case


def test_portrait_and_driving_video_are_the_case_s(tmp_path: Path):
    cases = [heads("self"), heads("cross")]
    assert write_inputs(cases, tmp_path / "inputs") == []
    names = {f"{case.name}{ending}" for case in cases for ending in (".png", ".mp4")}
    assert {path.name for path in (tmp_path / "inputs").iterdir()} == names
    for case in cases:
        assert np.array_equal(load_still(tmp_path / "inputs" / f"{case.name}.png"), case.portrait())
        with open_video(tmp_path / "inputs" / f"{case.name}.mp4") as video:
            frames = list(video)
        assert [frame.time for frame in frames] == [Fraction(n, 25) for n in range(6)]
        for frame, sample in zip(frames, case.samples(), strict=True):
            assert np.abs(frame.image.astype(int) - sample.driver).mean() < 4


def test_a_driving_video_given_back_is_a_video_of_another_method(tmp_path: Path):
    case = heads("self")
    write_inputs([case], tmp_path / "inputs")
    videos = VideoMethod("echo", tmp_path / "inputs", 64)
    assert len(list(videos.reenact(case))) == 6
    assert videos.notes == []


def test_a_case_that_cannot_be_read_is_told_and_a_folder_in_use_is_left_alone(tmp_path: Path, write_video, moving):
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "a.mp4", moving(4)[:, :48])
    dataset = open_dataset(str(tmp_path / "clips"), DatasetOptions(size_px=64, framing="none"), None)
    (line,) = write_inputs(dataset.cases("self"), tmp_path / "inputs")
    assert line.startswith("a (self, inputs): ")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="is there already"):
        write_inputs([heads("self")], tmp_path / "clips")
    assert contents(tmp_path) == before
