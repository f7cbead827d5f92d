"""Evaluations through the command line: a report, or one line that says why not, and nothing left behind."""

from __future__ import annotations

import json

import pytest

from support.clips import contents, write_noise


def test_a_report_of_synthetic_heads(run, place, small_weights):
    common = ("--weights", small_weights, "--no-cross", "--inputs", "given")
    done = run("evaluate", "synthetic:1", "--frames", 4, "-o", "scores", *common)
    assert (done.code, done.err) == (0, "")
    assert {path.name for path in (place / "given").iterdir()} == {"person000.png", "person000.mp4"}
    assert {path.name for path in (place / "scores").iterdir()} == {
        "evaluation.json",
        "evaluation.md",
        "evaluation.html",
    }
    assert "self, ours  L1 0." in done.out
    assert "evaluation.html" in done.out
    assert "needs vgg16-397923af.pth" in done.out
    record = json.loads((place / "scores" / "evaluation.json").read_text(encoding="utf-8"))
    assert record["options"]["kinds"] == ["self"]
    assert record["model"]["weights"] == str(small_weights)


def test_videos_of_two_methods_without_a_model(run, place):
    for folder in ("clips", "one", "two"):
        (place / folder).mkdir()
        write_noise(place / folder / "a.mp4", 4)
    methods = ("--method", "one=one", "--method", "two=two")
    done = run(
        "evaluate", "clips", "-o", "scores", "--no-model", "--framing", "none", "--no-cross", "--size", 64, *methods
    )
    assert (done.code, done.err) == (0, "")
    record = json.loads((place / "scores" / "evaluation.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in record["results"][:2]] == ["one", "two"]
    assert record["model"] == {}
    again = run("evaluate", "clips", "-o", "scores", "--no-model", "--framing", "none", "--no-cross", *methods)
    assert again.code == 1
    assert "use --overwrite" in again.err


@pytest.mark.parametrize(
    ("arguments", "line", "code"),
    [
        (("empty",), "error: empty: no video in this folder", 1),
        (("gone",), "error: gone: no such folder", 1),
        (("synthetic:none",), "error: dataset 'synthetic:none': give synthetic:16", 1),
        (
            ("broken",),
            "error: broken: not one video in it can be read; the first reason: broken/b.mp4: is not a video",
            1,
        ),
        (("--no-self", "--no-cross"), "error: nothing to evaluate", 1),
        (("--frames", 0), "error: frames 0: give a whole number from 1 up", 1),
        (("--method", "folder"), "error: --method folder: write NAME=FOLDER; see `personalive evaluate --help`", 2),
        (("--method", "a=gone"), "error: gone: no such folder", 1),
        (("--no-model",), "error: --no-model leaves nothing to score", 2),
        (("-o", "empty/deep/scores"), "error: empty/deep/scores: the folder", 1),
        (("-o", "broken"), "error: broken: holds other things than a report", 1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_inputs_end_in_one_line(run, place, small_weights, arguments, line, code):
    (place / "empty").mkdir()
    (place / "broken").mkdir()
    (place / "broken" / "b.mp4").write_bytes(b"no video")
    before = contents(place)
    common = ("--weights", small_weights, "--framing", "none")
    arguments = (*arguments, "--no-cross") if arguments[0] == "broken" else arguments
    output = () if "-o" in arguments else ("-o", "scores")
    done = run("evaluate", *arguments, *output, *common)
    assert done.code == code
    assert len(done.error_lines) == 1, done.err
    assert done.error_lines[0].startswith(line)
    assert done.out == ""
    assert contents(place) == before
