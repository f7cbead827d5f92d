"""The bundled model for photographs with its real networks, on the generated people of the documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from personalive.engine.face_engine import FaceEngine
from personalive.errors import CheckpointError
from personalive.media.still import load_still
from personalive.offline.motion_file import engine_motion_digest, weights_motion_digest
from personalive.runtime import openvino
from personalive.runtime.face import load_face_engine
from personalive.runtime.load import load_diffusion_engine, load_engine

SHEET = Path(__file__).parents[2] / "docs" / "images" / "photo.jpg"
CELL_PX = 232


@pytest.fixture(scope="module")
def engine() -> FaceEngine:
    return load_face_engine()


def cell(row: int, column: int) -> np.ndarray:
    """One image of the sheet: a person per row."""
    y, x = row * CELL_PX, column * CELL_PX
    return np.ascontiguousarray(load_still(SHEET)[y : y + CELL_PX, x : x + CELL_PX])


def jaw(engine: FaceEngine, image: np.ndarray) -> float:
    reading = engine.reader.read(image)
    assert reading is not None
    return reading.blendshape("jawOpen")


def test_a_photograph_follows_another_person(engine: FaceEngine):
    drivers = [cell(0, column) for column in (3, 1, 2, 3)]  # of whom the third shouts
    read = [jaw(engine, driver) for driver in drivers]
    assert read[2] > 0.4
    assert max(read[:2]) < 0.15
    frames = list(engine.stream(cell(2, 4), [driver[None] for driver in drivers]))
    assert [frame.shape for frame in frames] == [(1, 512, 512, 3)] * 4
    made = [jaw(engine, frame[0].numpy()) for frame in frames]
    assert made[2] > 0.3
    assert max(made[0], made[1], made[3]) < 0.5 * made[2]


def test_each_portrait_opens_its_mouth_as_its_own_reading_asks(engine: FaceEngine):
    """Whatever a network sees of a mouth, it sees as much of the driver's and of the result's."""
    for row in range(3):
        state = engine.start(cell(row, 4))
        assert state.jaw_read is not None
        assert np.all(np.diff(state.jaw_read) > 0)
        assert state.jaw_read[-1] - state.jaw_read[0] > 0.3


def test_the_photograph_stays_sharp(engine: FaceEngine):
    """A result at 512 px has the detail of the portrait, brought to that size."""
    portrait = cell(1, 4)
    (frames,) = engine.stream(portrait, [portrait[None]])
    state = engine.start(portrait)
    whole = state.portrait.image
    made = frames[-1].numpy().astype(np.float32)
    detail = [np.abs(np.diff(image, axis=1)).mean() for image in (whole, made)]
    assert detail[1] > 0.9 * detail[0]


def test_it_is_found_by_name_and_has_no_diffusion_networks(engine: FaceEngine):
    found = load_engine("photo")
    assert isinstance(found, FaceEngine)
    assert found.facts["backend"] == "geometry"
    assert engine_motion_digest(found) == weights_motion_digest("photo") == engine_motion_digest(engine)
    with pytest.raises(CheckpointError, match="no diffusion networks"):
        load_diffusion_engine("photo")


def test_openvino_reads_what_torch_reads(engine: FaceEngine, monkeypatch, caplog):
    """It is prepared once for each user, and where it cannot be, torch reads."""
    with_openvino = load_face_engine(backend="openvino")
    assert engine.reader is not with_openvino.reader
    for row in range(3):
        image = cell(row, 2)
        ours, theirs = engine.reader.read(image), with_openvino.reader.read(image)
        assert ours is not None and theirs is not None
        np.testing.assert_allclose(theirs.landmarks, ours.landmarks, atol=0.05)  # px
        np.testing.assert_allclose(theirs.blendshapes, ours.blendshapes, atol=0.005)
    monkeypatch.setattr(openvino, "write", lambda *_: pytest.fail("it was prepared again"))
    load_face_engine(backend="openvino")
    monkeypatch.setattr(openvino, "read", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(openvino, "write", lambda *_: None)
    assert jaw(load_face_engine(backend="openvino"), cell(0, 2)) > 0.4
    assert caplog.messages == ["openvino cannot read faces here (division by zero): torch does, slower"]


@pytest.mark.parametrize("person", [0, 1])
def test_a_framed_face_is_found_without_a_detector(engine: FaceEngine, monkeypatch, person: int):
    """The detector takes longer than all networks together, and clips are framed one frame at a time."""
    monkeypatch.setattr(engine.reader, "_detected", lambda _: pytest.fail("the detector was asked"))
    assert engine.encode_motion(cell(person, 4)[None]).tokens[0, 0, 0, -1] == 1  # there is a face
