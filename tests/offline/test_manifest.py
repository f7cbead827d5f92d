"""Manifests: what a row says, and what is wrong with one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from personalive.errors import InputError
from personalive.offline.config import BatchConfig
from personalive.offline.manifest import pair_folders, read_manifest
from personalive.offline.options import AnimateOptions


def written(folder: Path, text: str, name: str = "videos.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_find_their_files_from_the_manifest_and_cells_are_options(tmp_path, monkeypatch):
    header = "portrait,driving,output,size,start,head-motion,keyframes,side_by_side,pose,contact-sheet"
    path = written(
        tmp_path,
        f"{header}\nme.jpg,a/clip.mp4,,,,,,,,\n\n"
        f"{tmp_path}/you.jpg,take.safetensors,deep/one.mp4,512,1.5,0.6,no,Yes,relative,one.png\n",
    )
    monkeypatch.chdir(tmp_path)
    batch = read_manifest(path.name, tmp_path / "out", {"seed": 3, "size_px": 64})
    assert batch.problems == []
    plain, full = batch.rows
    assert (plain.where, full.where) == ("line 2", "line 4")
    assert (plain.portrait, plain.driving) == (tmp_path / "me.jpg", tmp_path / "a/clip.mp4")
    assert plain.output == tmp_path / "out/clip_by_me.mp4"
    assert plain.options == AnimateOptions(seed=3, size_px=64)
    assert full.portrait == tmp_path / "you.jpg"
    assert full.output == tmp_path / "out/deep/one.mp4"
    sheet = str(tmp_path / "out/one.png")
    assert full.options == AnimateOptions(
        seed=3,
        size_px=512,
        start_s=1.5,
        head_motion=0.6,
        keyframe_threshold=math.inf,
        side_by_side=True,
        pose="relative",
        contact_sheet=sheet,
    )
    assert full.writes == [full.output, full.output.with_suffix(".json"), Path(sheet)]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_s_csv_is_read(tmp_path, delimiter):
    lines = [["portrait", "driving", "seed"], ["me, of course.jpg", "clip.mp4", "5"]]
    text = "\ufeff" + "\r\n".join(delimiter.join(line) for line in lines)
    (row,) = read_manifest(written(tmp_path, text)).rows
    assert (row.portrait.name, row.options.seed) == ("me, of course.jpg", 5)


def test_json_lines_say_the_same(tmp_path):
    rows = [{"portrait": "me.jpg", "driving": "clip.mp4", "size": 64, "audio": False, "end": 2}]
    (row,) = read_manifest(written(tmp_path, "\n".join(map(json.dumps, rows)), "videos.jsonl")).rows
    assert row.options == AnimateOptions(size_px=64, audio=False, end_s=2.0)
    assert row.output == tmp_path / "clip_by_me.mp4"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"portrait": "a.jpg"}', "has no driving"),
        ('{"portrait": 3, "driving": "b.mp4"}', "portrait 3: give a path"),
        ('{"portrait": "a\\u0000.jpg", "driving": "b.mp4"}', "leads nowhere"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "size": "big"}', "size 'big': input should be a valid integer"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "size": 33}', "size 33: give an even number"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "pose": "free"}', "pose 'free': input should be 'absolute' or"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "weights": "tiny"}', "'weights' is no option of animate; use"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "center_fallback": true}', "no option of animate"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "keyframes": 0, "keyframe-threshold": 2}', "leave one out"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "steps": true}', "steps True: should not be true or false"),
        ("[1]", "is no JSON object"),
        ("{", "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "output": "good.mp4"}', "would replace"),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "output": "me.jpg"}', "which the batch reads"),
        (
            '{"portrait": "a.jpg", "driving": "b.mp4", "output": "c.mp4", "contact_sheet": "me.jpg"}',
            "the batch reads",
        ),
        ('{"portrait": "a.jpg", "driving": "b.mp4", "output": "videos.jsonl"}', "which the batch reads"),
    ],
)
def test_a_row_that_cannot_be_is_one_line_and_the_others_stay(tmp_path, line, says):
    good = '{"portrait": "me.jpg", "driving": "clip.mp4", "output": "good.mp4"}'
    batch = read_manifest(written(tmp_path, f"{good}\n{line}\n", "videos.jsonl"))
    assert [row.where for row in batch.rows] == ["line 1"]
    (problem,) = batch.problems
    assert problem.startswith("line 2: ")
    assert says in problem
    assert "\n" not in problem


def test_a_cell_too_many_is_named(tmp_path):
    batch = read_manifest(written(tmp_path, "portrait,driving\na.jpg,b.mp4\na.jpg,b,c.mp4\n"))
    assert len(batch.rows) == 1
    assert batch.problems == ["line 3: has more cells than the first line names columns; check its delimiters"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.csv", None, "no such file"),
        ("videos.txt", b"portrait,driving", "should be a .csv or .jsonl manifest"),
        ("videos.csv", b"portrait,clip\na,b\n", "names no driving"),
        ("videos.csv", b"portrait,driving\n", "has no rows"),
        ("videos.csv", b"\xff\xfe\x00", "is not text in UTF-8"),
        ("videos.csv", b'portrait,driving\n"a,b', "is no CSV"),
        ("videos.jsonl", b"\n\n", "has no rows"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_manifest(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = written(tmp_path, "portrait,driving\na,b\na,c\n")
    monkeypatch.setattr(BatchConfig, "max_rows", 1)
    with pytest.raises(InputError, match="more than 1 rows"):
        read_manifest(path)
    monkeypatch.setattr(BatchConfig, "max_bytes", 10)
    with pytest.raises(InputError, match="is larger than"):
        read_manifest(path)


def test_options_for_all_rows_are_refused_once(tmp_path):
    with pytest.raises(InputError, match="size 33"):
        read_manifest(written(tmp_path, "portrait,driving\na,b\n"), None, {"size_px": 33})


def test_every_portrait_meets_every_clip(tmp_path):
    for name in ("faces/b.PNG", "faces/a.jpg", "faces/.hidden.jpg", "faces/notes.txt", "clips/x.mp4", "clips/x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    batch = pair_folders(tmp_path / "faces", tmp_path / "clips", tmp_path / "out", {"seed": 4})
    assert [row.output for row in batch.rows] == [tmp_path / "out/x_by_a.mp4", tmp_path / "out/x_by_b.mp4"]
    assert {row.options for row in batch.rows} == {AnimateOptions(seed=4)}
    (row,) = pair_folders(tmp_path / "faces/a.jpg", tmp_path / "clips/x.mp4", tmp_path).rows
    assert (row.portrait, row.where) == (tmp_path / "faces/a.jpg", "a.jpg with x.mp4")


def test_files_of_one_stem_do_not_replace_each_other(tmp_path):
    for name in ("faces/a.jpg", "faces/a.png", "clips/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    batch = pair_folders(tmp_path / "faces", tmp_path / "clips", tmp_path)
    assert [row.portrait.name for row in batch.rows] == ["a.jpg"]
    assert batch.problems[0].startswith("a.png with x.mp4: would replace ")
    assert "of a.jpg with x.mp4" in batch.problems[0]


@pytest.mark.parametrize("portraits", ["empty", "gone"])
def test_folders_without_files_are_refused(tmp_path, portraits):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"{portraits}: (holds no file|no such file)"):
        pair_folders(tmp_path / portraits, tmp_path / portraits, tmp_path)
