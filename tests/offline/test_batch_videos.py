"""Rows of a batch that are made already, and the order of the others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from personalive.engine.engine import Engine
from personalive.errors import CheckpointError
from personalive.offline.batch import by_portrait, is_made, run_batch
from personalive.offline.manifest import BatchRow
from personalive.offline.options import AnimateOptions
from support.studio import Studio

SECOND_NS = 1_000_000_000


def row(
    studio: Studio, portrait: str = "portrait.png", driving: str = "driving.mp4", name: str = "video"
) -> BatchRow:
    folder = studio.folder
    options = AnimateOptions(framing="center", keyframe_threshold=float("inf"), contact_sheet=str(folder / "s.png"))
    files = {"portrait": folder / portrait, "driving": folder / driving, "output": folder / f"{name}.mp4"}
    return BatchRow(where="line 2", **files, options=options)


def changed(one: BatchRow, **options: object) -> BatchRow:
    return dataclasses.replace(one, options=dataclasses.replace(one.options, **options))


def touched(name: str) -> Callable[[Path], None]:
    def touch(folder: Path) -> None:
        later = (folder / "video.json").stat().st_mtime_ns + SECOND_NS
        os.utime(folder / name, ns=(later, later))

    return touch


def test_a_row_is_made_once_and_again_where_anything_differs(studio: Studio):
    studio.clip(2)
    one = row(studio)
    assert not is_made(one, "small")
    (result,) = run_batch([one], lambda: studio.engine, "small")
    assert result.state == "made"
    assert is_made(one, "small")
    assert not is_made(one, "tiny")
    assert not is_made(changed(one, seed=1), "small")
    assert not is_made(changed(one, keyframe_threshold=17.0), "small")
    assert not is_made(changed(one, contact_sheet=None), "small")
    assert not is_made(dataclasses.replace(one, driving=one.portrait), "small")

    def load() -> Engine:
        raise AssertionError("nothing is to be made")

    assert [result.state for result in run_batch([one], load, "small")] == ["kept"]


@pytest.mark.parametrize(
    "change",
    [
        touched("portrait.png"),
        touched("driving.mp4"),
        lambda folder: (folder / "video.json").unlink(),
        lambda folder: (folder / "video.json").write_text("{"),
        lambda folder: (folder / "video.json").write_text("[]"),
        lambda folder: (folder / "video.json").write_bytes(b"\xff"),
        lambda folder: (folder / "video.mp4").unlink(),
        lambda folder: (folder / "s.png").unlink(),
        lambda folder: (folder / "portrait.png").unlink(),
    ],
)
def test_files_that_changed_since_prove_nothing(studio: Studio, change: Callable[[Path], None]):
    studio.clip(1)
    run_batch([row(studio)], lambda: studio.engine, "small")
    assert is_made(row(studio), "small")
    change(studio.folder)
    assert not is_made(row(studio), "small")


def test_portraits_come_together_in_the_order_of_the_manifest(studio: Studio):
    pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("a", "5")]
    rows = [row(studio, portrait, name=name) for portrait, name in pairs]
    assert [one.output.stem for one in by_portrait(rows)] == ["1", "3", "2", "5", "4"]


def test_a_model_that_cannot_be_loaded_fails_no_row(studio: Studio):
    def load() -> Engine:
        raise CheckpointError("no such folder")

    with pytest.raises(CheckpointError):
        run_batch([row(studio)], load, "small")


def test_progress_names_the_row(studio: Studio):
    studio.clip(2)
    heard = []
    rows = [row(studio, name="gone", driving="gone.mp4"), row(studio)]
    results = run_batch(
        rows, lambda: studio.engine, "small", progress=lambda n, one, now: heard.append((n, one, now.frames))
    )
    assert heard[-1] == (2, rows[1], 2)
    assert [result.state for result in results] == ["failed", "made"]
    assert results[0].problem is not None
    assert results[0].problem.startswith("line 2: ")
    assert "gone.mp4: no such file" in results[0].problem
