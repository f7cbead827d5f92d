"""Rows of a batch whose files are at URLs: the same video, whole or not at all, and a line for what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from personalive.errors import InputError
from personalive.offline.batch import RowResult, is_made, run_batch
from personalive.offline.config import BatchConfig
from personalive.offline.manifest import BatchRow, read_manifest
from personalive.offline.storage import Url, folder_of, place_of
from support.clips import read_video
from support.studio import Studio

HEADER = "portrait,driving,output,contact-sheet\n"


@pytest.fixture
def bucket(studio: Studio) -> Iterator[fsspec.AbstractFileSystem]:
    """Storage at memory://b with a portrait and a clip."""
    studio.clip(2)
    found = fsspec.filesystem("memory")
    for name in ("portrait.png", "driving.mp4"):
        found.put_file(str(studio.folder / name), f"/b/in/{name}")
    yield found
    found.rm("/b", recursive=True)


def rows(studio: Studio, line: str, folder: str | None = None) -> list[BatchRow]:
    (studio.folder / "m.csv").write_text(HEADER + line)
    batch = read_manifest(studio.folder / "m.csv", folder, {"framing": "center"})
    assert batch.problems == []
    return batch.rows


def made(studio: Studio, row: BatchRow) -> RowResult:
    (result,) = run_batch([row], lambda: studio.engine, "small")
    return result


def test_the_video_is_that_of_paths_and_is_made_once(studio: Studio, bucket: fsspec.AbstractFileSystem):
    line = "memory://b/in/portrait.png,memory://b/in/driving.mp4,out.mp4,sheet.png\n"
    (row,) = rows(studio, line, "memory://b/results/")
    assert (row.output, row.output.stem) == (Url("memory://b/results/out.mp4"), "out")
    result = made(studio, row)
    assert (result.state, result.problem) == ("made", None)
    assert result.report is not None
    assert result.report.output == "memory://b/results/out.mp4"
    names = ["out.json", "out.mp4", "sheet.png"]
    assert [Path(path).name for path in sorted(bucket.ls("/b/results", detail=False))] == names
    record = json.loads(bucket.cat_file("/b/results/out.json"))
    assert record["inputs"] == {"portrait": "memory://b/in/portrait.png", "driving": "memory://b/in/driving.mp4"}
    assert record["contact_sheet"] == "memory://b/results/sheet.png"
    assert made(studio, row).state == "kept"
    bucket.get_file("/b/results/out.mp4", str(studio.folder / "fetched.mp4"))
    (by_path,) = rows(studio, "portrait.png,driving.mp4,local.mp4,\n")
    assert made(studio, by_path).state == "made"
    fetched, local = (read_video(studio.folder / name).images for name in ("fetched.mp4", "local.mp4"))
    assert fetched.shape == (2, 64, 64, 3)
    assert (fetched == local).all()


def test_a_manifest_at_a_url_finds_its_files_beside_it(studio: Studio, bucket: fsspec.AbstractFileSystem):
    bucket.pipe_file("/b/m.csv", b"portrait,driving\nin/portrait.png,in/driving.mp4\n")
    (row,) = read_manifest("memory://b/m.csv", None, {"framing": "center"}).rows
    assert row.output == Url("memory://b/driving_by_portrait.mp4")
    assert made(studio, row).state == "made"
    assert bucket.exists("/b/driving_by_portrait.mp4")
    (row,) = read_manifest("memory://b/m.csv", studio.folder, {"framing": "center"}).rows
    assert row.output == studio.folder / "driving_by_portrait.mp4"
    assert made(studio, row).state == "made"
    bucket.pipe_file("/b/own.csv", b"portrait,driving,output\nin/portrait.png,in/driving.mp4,own.csv\n")
    assert "own.csv" in str(read_manifest("memory://b/own.csv").problems)
    for name, says in (("gone.csv", "memory://b/gone.csv: cannot be read"), ("in", "should be the URL of a single")):
        with pytest.raises(InputError, match=says):
            read_manifest(f"memory://b/{name}")


def test_a_fetched_input_makes_a_local_video(studio: Studio, bucket: fsspec.AbstractFileSystem):
    (row,) = rows(studio, f"file://{studio.folder}/portrait.png,memory://b/in/driving.mp4,,\n")
    assert row.output == studio.folder / "driving_by_portrait.mp4"
    assert made(studio, row).state == "made"
    assert is_made(row, "small")
    bucket.put_file(str(studio.folder / "driving.mp4"), "/b/in/driving.mp4")  # again, so later
    assert not is_made(row, "small")


@pytest.mark.parametrize(
    ("driving", "says"),
    [
        ("memory://b/in/gone.mp4", "memory://b/in/gone.mp4: cannot be fetched"),
        ("warp://b/in/driving.mp4", "warp://b/in/driving.mp4: cannot be fetched (Protocol not known"),
        ("s3://b/in/driving.mp4", "s3://b/in/driving.mp4: cannot be fetched (Install s3fs"),
        ("memory://b/in/portrait.png.mp4", "memory://b/in/portrait.png.mp4: "),  # no video
    ],
)
def test_what_cannot_be_fetched_or_read_fails_by_its_url_and_writes_nothing(
    studio: Studio, bucket: fsspec.AbstractFileSystem, driving: str, says: str
):
    bucket.pipe_file("/b/in/portrait.png.mp4", b"no video" * 100)
    (row,) = rows(studio, f"portrait.png,{driving},memory://b/results/out.mp4,\n")
    problem = made(studio, row).problem or ""
    assert problem.startswith(f"line 2: {says}")
    assert "\n" not in problem
    assert not bucket.exists("/b/results")


def test_what_is_too_large_is_not_fetched(studio: Studio, bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(BatchConfig, "max_fetched_bytes", 100)
    (row,) = rows(studio, "portrait.png,memory://b/in/driving.mp4,,\n")
    assert "cannot be fetched (is larger than" in (made(studio, row).problem or "")


def test_a_result_that_cannot_be_sent_whole_is_not_there(studio: Studio, bucket, monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(type(bucket), "mv", full)
    (row,) = rows(studio, "portrait.png,driving.mp4,memory://b/results/out.mp4,\n")
    assert "memory://b/results/out.mp4: cannot be written (no space)" in (made(studio, row).problem or "")
    assert bucket.find("/b/results") == []
    assert not is_made(row, "small")


@pytest.mark.parametrize("text", ["s3://bucket", "zip://a.mp4::s3://b/c.zip"])
def test_a_url_is_one_file(text: str, tmp_path: Path):
    with pytest.raises(InputError, match="URL of a single file"):
        place_of(text, tmp_path)


def test_places_are_urls_or_absolute_paths(tmp_path: Path):
    assert place_of("a.mp4", tmp_path) == tmp_path.resolve() / "a.mp4"
    assert place_of("a.mp4", folder_of("s3://b/c/")) == Url("s3://b/c/a.mp4")
    url = Url("https://x.org/a/b.tar.mp4?sign=1.2/3")
    assert (url.name, url.stem, url.suffix) == ("b.tar.mp4", "b.tar", ".mp4")
