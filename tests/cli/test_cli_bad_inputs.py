"""Whatever is wrong with the input: one line that names it and the way out, an exit code, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import zlib
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from personalive.cli import animate as command
from support.clips import contents, write_noise, write_tone


def check_refused(run, place, *arguments, names: str, way_out: str, code: int = 1) -> None:
    """One error line with ``names`` and ``way_out`` in it, and every file as it was."""
    before = contents(place)
    done = run("animate", *arguments)
    assert done.code == code
    assert len(done.error_lines) == 1, done.err
    line = done.error_lines[0]
    assert line.startswith("error: ")
    assert names in line
    assert way_out in line
    assert done.out == ""
    assert contents(place) == before


# --- images and clips -------------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("this is no video\n" * 100)


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path, format="PNG")


def huge(path: Path) -> None:
    """A valid PNG of 20,000 x 20,000 black pixels in a few kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side, packer = 20_000, zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        write_tone(out, out.add_stream("aac", rate=48_000, layout="mono"), 1.0)


def without_index(path: Path) -> None:
    whole = write_noise(path, 10).read_bytes()  # the index of such a file is at its end
    path.write_bytes(whole[: len(whole) // 2])


def first_frame_cut(path: Path) -> None:
    whole = write_noise(path, 10, container={"movflags": "faststart"}).read_bytes()
    path.write_bytes(whole[: whole.index(b"mdat") + 20])


@pytest.mark.parametrize(
    ("make", "name", "way_out"),
    [
        (lambda path: None, "gone.png", "check the name"),
        (empty, "empty.png", "download it again"),
        (text, "text.png", "give a PNG"),
        (one_pixel, "dot.png", "needs at least 32 pixels"),
        (huge, "huge.png", "shrink it first"),
        (Path.mkdir, "folder.png", "give one image"),
    ],
)
def test_a_bad_portrait(run, place, driving, make, name, way_out):
    make(place / name)
    check_refused(run, place, name, driving, names=name, way_out=way_out)


@pytest.mark.parametrize(
    ("make", "name", "way_out"),
    [
        (lambda path: None, "gone.mp4", "check the name"),
        (empty, "empty.mp4", "download it again"),
        (text, "text.mp4", "convert it to mp4"),
        (sound_only, "sound.m4a", "give a video of a face"),
        (without_index, "no_index.mp4", "copy it again"),
        (first_frame_cut, "nothing.mp4", "copy it again"),
        (one_pixel, "dot.png", "needs at least 32 pixels"),
        (huge, "huge.png", "shrink it first"),
        (Path.mkdir, "folder.mp4", "give one image or clip"),
    ],
)
def test_a_bad_clip(run, place, portrait, make, name, way_out):
    make(place / name)
    check_refused(run, place, portrait, name, names=name, way_out=way_out)


def test_a_portrait_without_a_face(run, place, portrait, driving, small_weights):
    refused = {"names": "portrait", "way_out": "--framing center"}
    check_refused(run, place, portrait, driving, "--weights", small_weights, **refused)


# --- outputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "way_out"),
    [
        ("no/such/folder/video.mp4", "create it or choose another"),
        (".", "add a file name"),
        ("me.png/video.mp4", "choose another"),
        ("clip.mp4", "choose another output name"),
        ("link.mp4", "choose another output name"),
        ("video.avi", "video.mp4"),
    ],
)
def test_an_output_that_cannot_be(run, place, portrait, driving, output, way_out):
    (place / "link.mp4").symlink_to(driving)
    check_refused(run, place, portrait, driving, "-o", output, names=output, way_out=way_out)


@pytest.mark.parametrize(
    ("sheet", "way_out"), [("all.jpg", "all.png"), ("me.png", "choose another"), ("no/all.png", "create it")]
)
def test_a_contact_sheet_that_cannot_be(run, place, portrait, driving, sheet, way_out):
    check_refused(run, place, portrait, driving, "--contact-sheet", sheet, names=sheet, way_out=way_out)


def test_a_record_that_cannot_be(run, place, portrait, driving):
    (place / "video.json").mkdir()
    check_refused(run, place, portrait, driving, "-o", "video.mp4", names="video.json", way_out="add a file name")


def test_a_demo_folder_that_cannot_be(run, place, portrait, monkeypatch):
    monkeypatch.setattr(command, "demo_files", lambda synthetic=False: (portrait, portrait))
    check_refused(run, place, "--demo", "-o", "me.png/demo", names="me.png/demo", way_out="choose another folder")


def test_an_installation_without_the_demo(run, place, tmp_path, monkeypatch):
    monkeypatch.setattr(command.resources, "files", lambda package: tmp_path)
    check_refused(run, place, "--demo", names="portrait-4.jpg", way_out="reinstall personalive")
    check_refused(run, place, "--demo", "--weights", "tiny", names="portrait.png", way_out="reinstall personalive")


# --- weights ------------------------------------------------------------------------------------------------------


def test_without_weights_the_model_for_photographs_is_used_and_named(run, place, portrait, driving, caplog):
    """The portrait of these tests shows no face: the line about that is the photographs' own."""
    done = run("animate", portrait, driving, "--framing", "center")
    assert done.code == 1
    (line,) = caplog.messages
    assert line.startswith("no released weights here: the bundled model for photographs is used")
    assert "no face is found in the portrait" in done.error_lines[-1]
    refused = run("export", "onnx", "out")
    assert "run `personalive weights download`" in refused.error_lines[-1]


def test_a_weights_folder_that_is_not_there(run, place, portrait, driving):
    refused = {"names": "nowhere", "way_out": "personalive weights download"}
    check_refused(run, place, portrait, driving, "--weights", "nowhere", **refused)


class _Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def damaged(small_weights: Path, tmp_path: Path) -> Path:
    """A copy of the small model to spoil, outside the working folder."""
    return Path(shutil.copytree(small_weights, tmp_path / "damaged"))


def test_incomplete_weights(run, place, portrait, driving, damaged):
    (damaged / "personalive/pose_guider.safetensors").unlink()
    refused = {"names": "personalive/pose_guider", "way_out": "personalive weights download"}
    check_refused(run, place, portrait, driving, "--weights", damaged, **refused)


def test_misshapen_weights(run, place, portrait, driving, damaged):
    path = damaged / "personalive/pose_guider.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"] = torch.zeros(8, 3, 5, 5)
    save_file(tensors, path)
    refused = {"names": f"{path}: not the weights of this model", "way_out": "download"}
    check_refused(run, place, portrait, driving, "--weights", damaged, "--framing", "center", **refused)


@pytest.mark.parametrize("save", [lambda value, path: path.write_bytes(pickle.dumps(value, 2)), torch.save])
def test_malicious_weights_run_nothing(run, place, portrait, driving, damaged, tmp_path, save):
    (damaged / "personalive/pose_guider.safetensors").unlink()
    path, trap = damaged / "personalive/pose_guider.pth", tmp_path / "trap"
    save({"conv_in.weight": _Malice(trap)}, path)
    refused = {"names": str(path), "way_out": "download it again"}
    check_refused(run, place, portrait, driving, "--weights", damaged, "--framing", "center", **refused)
    assert not trap.exists()


# --- numbers and usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names", "way_out"),
    [
        (["--size", "65"], "size 65", "even number"),
        (["--size", "16"], "size 16", "from 32 to 4096"),
        (["--size", "5000"], "size 5000", "from 32 to 4096"),
        (["--seed", "-1"], "seed -1", "from 0 up"),
        (["--keyframe-threshold", "nan"], "threshold nan", "from 0 up"),
        (["--expression", "2.5"], "expression 2.5", "from 0 to 2"),
        (["--mouth", "-1"], "mouth -1", "from 0 to 2"),
        (["--head-motion", "nan"], "head_motion nan", "from 0 to 2"),
        (["--smoothing", "1"], "smoothing 1.0", "from 0 to 0.95"),
        (["--start", "-1"], "start (-1.0 s)", "0 or more"),
        (["--end", "nan"], "end (nan s)", "must be a number"),
        (["--start", "5", "--end", "2"], "end (2.0 s)", "must be after the start"),
        (["--start", "99"], "start (99 s)", "start earlier"),
    ],
)
def test_numbers_out_of_range(run, place, portrait, driving, arguments, names, way_out):
    check_refused(run, place, portrait, driving, *arguments, names=names, way_out=way_out)


def test_a_part_that_this_model_does_not_tell_apart(run, place, portrait, driving, small_weights, monkeypatch):
    monkeypatch.setattr("personalive.engine.directions.MIN_AGREEMENT", 1.1)
    refused = {"names": "mouth: this model's motion tokens", "way_out": "turn expression instead"}
    check_refused(
        run, place, portrait, driving, "--weights", small_weights, "--framing", "center", "--mouth", "0.5", **refused
    )


def test_a_device_that_is_not_here(run, place, portrait, driving, small_weights):
    refused = {"names": "device 'warp'", "way_out": "--device cpu"}
    check_refused(run, place, portrait, driving, "--weights", small_weights, "--device", "warp", **refused)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "give PORTRAIT and DRIVING"),
        (["me.png"], "give PORTRAIT and DRIVING"),
        (["--demo", "me.png"], "leave PORTRAIT and DRIVING out"),
        (["me.png", "clip.mp4", "--no-keyframes", "--keyframe-threshold", "3"], "leave one out"),
        (["me.png", "clip.mp4", "--size", "wide"], "--size"),
        (["me.png", "clip.mp4", "--framing", "upside-down"], "--framing"),
        (["me.png", "clip.mp4", "--pose", "free"], "--pose"),
        (["me.png", "clip.mp4", "--speed", "3"], "--speed"),
        (["me.png", "clip.mp4", "more.mp4"], "more.mp4"),
    ],
)
def test_wrong_usage_says_where_help_is(run, place, arguments, names):
    check_refused(run, place, *arguments, names=names, way_out="see `personalive animate --help`", code=2)


def test_an_unexpected_error_is_one_line_and_a_traceback_only_on_demand(run, monkeypatch):
    def fail(*_):
        raise RuntimeError("the first line\nand the second")

    monkeypatch.setattr(command, "_make", fail)
    done = run("animate", "a.png", "b.mp4")
    assert done.code == 1
    assert done.error_lines == [
        "error: unexpected RuntimeError: the first line and the second: please report it with the output of "
        "`personalive --debug animate a.png b.mp4` and `personalive doctor`"
    ]
    asked = run("--debug", "animate", "a.png", "b.mp4")
    assert asked.code == 1
    assert "Traceback (most recent call last)" in asked.err
    monkeypatch.setenv("PERSONALIVE_DEBUG", "1")
    assert "Traceback (most recent call last)" in run("animate", "a.png", "b.mp4").err
