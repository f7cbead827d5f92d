"""Cases of drawn heads and of folders: who is driven by whom, and with which pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.evaluation.datasets import DatasetOptions, open_dataset
from personalive.evaluation.heldout import FIRST_SEED, run_case
from personalive.training.presets import HELD_OUT_SEED


def opened(name: str | Path, **options):
    return open_dataset(str(name), DatasetOptions(**{"size_px": 64, "framing": "none", **options}), None)


# --- drawn heads --------------------------------------------------------------------------------------------------


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


def test_drawn_heads_are_those_of_the_training_benchmark(small_engine):
    """The same people, performances and drivers as ``heldout``, which training never sees."""
    for kind in ("self", "cross"):
        (case,) = opened("synthetic:3-3", frames=4).cases(kind)
        known = run_case(small_engine, 3, 4, cross=kind == "cross")
        moments = list(case.moments())
        assert np.array_equal(case.portrait(), known.portrait)
        assert np.array_equal([moment.driver for moment in moments], known.driving)
        assert np.array_equal([moment.truth for moment in moments], known.truth)
        assert [m.motion.yaw_deg for m in moments if m.motion] == [motion.yaw_deg for motion in known.motions]
        assert case.frames == 4
    assert FIRST_SEED >= HELD_OUT_SEED


# --- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, write_film, moving) -> Path:
    place = tmp_path / "clips"
    place.mkdir()
    for seed, name in enumerate(("anna.mp4", "ben.mp4", "cleo.mp4")):
        write_film(place / name, moving(6, seed))
    (place / "notes.txt").write_text("not a video")
    return place


def test_self_is_driven_by_its_own_frames_and_cross_by_the_next_video(folder, moving):
    dataset = opened(folder)
    anna, *_ = dataset.cases("self")
    moments = list(anna.moments())
    assert len(moments) == 6
    assert np.abs(np.stack([m.driver for m in moments]).astype(int) - moving(6, 0)).mean() < 4
    assert all(m.truth is m.driver for m in moments)
    assert [m.time for m in moments] == [Fraction(n, 25) for n in range(6)]
    assert np.array_equal(anna.portrait(), moments[0].driver)
    cross = dataset.cases("cross")
    assert [case.name for case in cross] == ["ben_by_anna", "cleo_by_ben", "anna_by_cleo"]
    assert np.array_equal(cross[0].portrait(), anna.portrait())
    driven = list(cross[0].moments())
    assert np.abs(driven[3].driver.astype(int) - moving(6, 1)[3]).mean() < 4
    assert all(m.truth is None for m in driven)


def test_frames_and_cases_can_be_limited(folder):
    dataset = opened(folder, frames=2, people=1)
    assert [case.name for case in dataset.cases("self")] == ["anna"]
    assert len(list(dataset.cases("cross")[0].moments())) == 2


def test_videos_are_brought_to_the_size_compared(folder, tmp_path, write_film, moving):
    wide = tmp_path / "wide"
    wide.mkdir()
    write_film(wide / "a.mp4", np.concatenate([moving(4, 0, 64), moving(4, 1, 64)], axis=2))
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


def test_one_video_cannot_drive_another(tmp_path, write_film, moving):
    write_film(tmp_path / "a.mp4", moving(4))
    with pytest.raises(InputError, match="one video cannot drive another"):
        opened(tmp_path).cases("cross")


def test_videos_that_differ_by_their_ending_alone_are_told(folder):
    (folder / "ben.webm").write_bytes(b"x")
    dataset = opened(folder)
    assert len(dataset.cases("self")) == 3
    assert [line for line in dataset.skipped if "ben.webm: skipped" in line]
