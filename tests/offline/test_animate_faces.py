"""Videos of clips with cuts, and of clips that lose the face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from personalive.errors import FaceNotFoundError
from personalive.offline import animate as module
from personalive.vision.faces import FaceBox
from support.clips import save_image, write_clip
from support.small_model import SMALL_SIZE_PX as SIDE
from support.studio import Noting, Studio


def flat(grey: int, frames: int) -> list[np.ndarray]:
    return [np.full((SIDE, SIDE, 3), grey, np.uint8)] * frames


def test_a_cut_in_the_clip_reaches_the_engine(studio: Studio):
    driving = write_clip(studio.folder / "cut.mp4", flat(40, 10) + flat(220, 9), range(19))
    engine = Noting(studio.engine.networks)
    report, video = studio.animate(driving, engine=engine)
    assert engine.cuts == [10]
    assert report.framing["cuts"] == 1
    assert len(video.times) == 19


def test_of_two_cuts_in_one_window_the_later_shot_is_the_base(studio: Studio):
    driving = write_clip(studio.folder / "cut.mp4", flat(40, 9) + flat(220, 2) + flat(100, 9), range(20))
    engine = Noting(studio.engine.networks)
    report, _ = studio.animate(driving, engine=engine)
    assert report.framing["cuts"] == 2
    assert engine.cuts == [11]


class MarkerDetector:
    """Takes a red square for a face, as a detector made for such drawings would."""

    name = "marker"

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        red = (image[..., 0] > 150) & (image[..., 1] < 90) & (image[..., 2] < 90)
        if red.sum() < 16:
            return []
        rows, columns = np.nonzero(red)
        x, y = float(columns.min()), float(rows.min())
        return [FaceBox(x, y, float(columns.max()) - x + 1, float(rows.max()) - y + 1, 0.99)]


def marked(grey: int, *, face: bool = True) -> np.ndarray:
    image = np.full((96, 96, 3), grey, np.uint8)
    if face:
        image[32:64, 32:64] = (230, 20, 20)
    return image


@pytest.fixture
def marker_studio(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr(module, "find_detector", lambda folder: MarkerDetector())
    save_image(studio.portrait, marked(200))
    return studio


LOST = range(14, 46)  # long enough for the detector, which looks at every fourth frame, to be sure


def lost_face_clip(folder: Path) -> Path:
    """Sixty frames on a background that brightens by one level per frame; the face is missing in some."""
    frames = [marked(60 + i, face=i not in LOST) for i in range(60)]
    return write_clip(folder / "lost.mp4", frames, range(60))


@pytest.mark.parametrize("mode", ["hold", "neutral"])
def test_frames_without_a_face_are_driven_as_asked(marker_studio: Studio, mode: str):
    engine = Noting(marker_studio.engine.networks)
    report, video = marker_studio.animate(
        lost_face_clip(marker_studio.folder), engine=engine, framing="auto", no_face=mode
    )
    assert len(video.times) == 60
    assert report.framing["detector"] == "marker"
    assert 0 < report.framing["frames_without_face"] <= len(LOST)
    corners = np.array([image[:6, :6].mean() for image in engine.driven])
    for shown in (slice(0, LOST.start), slice(LOST.stop, 60)):
        assert np.abs(corners - (60 + np.arange(60)))[shown].max() <= 3
    lost = corners[LOST.stop - 8 : LOST.stop]
    if mode == "hold":
        assert np.ptp(lost) == 0
        assert lost[0] <= 60 + LOST.start + 2  # an image from when the face was there
    else:
        assert np.abs(lost - 200).max() <= 3  # the portrait itself


def test_a_lost_face_is_an_error_where_asked(marker_studio: Studio):
    with pytest.raises(FaceNotFoundError) as error:
        marker_studio.animate(lost_face_clip(marker_studio.folder), framing="auto", no_face="error")
    assert "\n" not in str(error.value)
    assert "--no-face" in str(error.value)
    assert "video.mp4" not in marker_studio.left()


def test_a_portrait_without_a_face_is_refused_before_anything_is_written(studio: Studio):
    driving = studio.clip(5)
    before = studio.left()
    with pytest.raises(FaceNotFoundError) as error:
        studio.animate(driving, framing="auto")
    assert "\n" not in str(error.value)
    assert studio.left() == before


def test_the_centre_can_be_a_fallback_and_is_reported(studio: Studio):
    report, video = studio.animate(studio.clip(5), framing="auto", center_fallback=True)
    assert len(video.times) == 5
    assert [note.partition(":")[0] for note in report.warnings] == ["portrait", "driving clip"]


@pytest.mark.parametrize("mode", ["hold", "neutral", "error"])
def test_without_detection_no_face_modes_change_nothing(studio: Studio, mode: str):
    driving = studio.clip(3)
    usual = studio.animate(driving)[1].images
    assert np.array_equal(studio.animate(driving, name="other.mp4", no_face=mode)[1].images, usual)
