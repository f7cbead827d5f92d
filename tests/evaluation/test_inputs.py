"""What other methods are given to work on."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import OutputError
from personalive.evaluation.contenders import FilmFolder
from personalive.evaluation.datasets import Case, DatasetOptions, open_dataset
from personalive.evaluation.inputs import write_inputs
from personalive.media import load_still, open_video
from support.film_files import contents


def heads(kind: str) -> Case:
    (case,) = open_dataset("synthetic:1", DatasetOptions(size_px=64, frames=6), None).cases(kind)  # pyright: ignore[reportArgumentType]
    return case


def test_portrait_and_driving_film_are_the_case_s(tmp_path: Path):
    cases = [heads("self"), heads("cross")]
    assert write_inputs(cases, tmp_path / "inputs") == []
    names = {f"{case.name}{ending}" for case in cases for ending in (".png", ".mp4")}
    assert {path.name for path in (tmp_path / "inputs").iterdir()} == names
    for case in cases:
        assert np.array_equal(load_still(tmp_path / "inputs" / f"{case.name}.png"), case.portrait())
        with open_video(tmp_path / "inputs" / f"{case.name}.mp4") as film:
            frames = list(film)
        assert [frame.time for frame in frames] == [Fraction(n, 25) for n in range(6)]
        for frame, moment in zip(frames, case.moments(), strict=True):
            assert np.abs(frame.image.astype(int) - moment.driver).mean() < 4


def test_a_driving_film_given_back_is_a_film_of_another_method(tmp_path: Path):
    case = heads("self")
    write_inputs([case], tmp_path / "inputs")
    films = FilmFolder("echo", tmp_path / "inputs", 64)
    assert len(list(films.play(case))) == 6
    assert films.notes == []


def test_a_case_that_cannot_be_read_is_told_and_a_folder_in_use_is_left_alone(tmp_path: Path, write_film, moving):
    (tmp_path / "clips").mkdir()
    write_film(tmp_path / "clips" / "a.mp4", moving(4)[:, :48])
    dataset = open_dataset(str(tmp_path / "clips"), DatasetOptions(size_px=64, framing="none"), None)
    (line,) = write_inputs(dataset.cases("self"), tmp_path / "inputs")
    assert line.startswith("a (self, inputs): ")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="is there already"):
        write_inputs([heads("self")], tmp_path / "clips")
    assert contents(tmp_path) == before
