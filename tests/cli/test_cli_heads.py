"""``personalive data heads`` as typed: what it says and writes, and one line for what cannot be done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalive.media.still import load_still, save_png
from support.clips import contents
from support.synthetic_face import synthetic_face

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(place: Path) -> Path:
    (place / "photos").mkdir()
    face = synthetic_face(4, 160)
    Image.fromarray(np.full((160, 160, 3), 120, np.uint8)).save(place / "photos" / "one.png")
    np.savez(place / "landmarks.npz", names=np.array(["one.png"]), landmarks_px=face.landmarks_px[None])
    np.savez(place / "other.npz", names=np.array(["two.png"]), landmarks_px=face.landmarks_px[None])
    np.savez(place / "short.npz", names=np.array(["one.png"]), landmarks_px=face.landmarks_px[None, :68])
    return place / "photos"


def test_the_plainest_command(run, place, photos):
    done = run("data", "heads", "photos", "set", "--landmarks", "landmarks.npz")
    assert done.code == 0, done.err
    assert "set, 1 heads, 0 tracks" in done.out
    assert "none" in done.out
    assert {path.name for path in (place / "set").iterdir()} == {"heads.json", "heads.npz", "images"}


def test_without_landmarks_faces_are_found(run, place):
    sheet = load_still(ROOT / "docs" / "images" / "photo.jpg")
    (place / "people").mkdir()
    save_png(place / "people" / "a.png", np.ascontiguousarray(sheet[232:464, 1160:1392]))
    save_png(place / "people" / "b.png", np.full((64, 64, 3), 128, np.uint8))
    done = run("data", "heads", "people", "set")
    assert done.code == 0, done.err
    assert "set, 1 heads" in done.out
    assert "1 without a face" in done.out


@pytest.mark.parametrize(
    ("arguments", "says", "way_out"),
    [
        (["gone", "set", "--landmarks", "landmarks.npz"], "gone: no such folder", "check the name"),
        (["photos", "set", "--landmarks", "gone.npz"], "gone.npz", "names and landmarks_px"),
        (["photos", "set", "--landmarks", "short.npz"], "(1, 68, 3)", "give (1, 478, 3)"),
        (["photos", "set", "--landmarks", "other.npz"], "not one portrait", "1 without landmarks"),
        (["photos", "photos", "--landmarks", "landmarks.npz"], "photos: already exists", "choose another folder"),
        (
            ["photos", "set", "--landmarks", "landmarks.npz", "--tracks", "landmarks.npz"],
            "no file of tracks",
            "--help",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(run, place, photos, arguments, says, way_out):
    before = contents(place)
    done = run("data", "heads", *arguments)
    assert done.code == 1
    assert len(done.error_lines) == 1, done.err
    assert says in done.err
    assert way_out in done.err
    assert contents(place) == before
