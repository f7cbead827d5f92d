"""Engine of photographs: a stub reads faces, so that every landmark and expression is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from personalive.engine import face_engine
from personalive.engine.controls import Controls
from personalive.engine.face_engine import BLENDSHAPES, CONFIG, FaceEngine
from personalive.engine.state import Window
from personalive.errors import InputError
from personalive.vision.face_landmarks import BLENDSHAPE_NAMES, FaceReading
from support.synthetic_face import synthetic_face

SIDE_PX = 128
REST = {"eyeBlinkLeft": 0.1, "eyeBlinkRight": 0.1}


class CodedReader:
    """Reads what the first pixels of an image tell: red 0 is no face, else a driver's frame; its green the jaw."""

    def __init__(self) -> None:
        self.calls = 0

    def read(self, image: np.ndarray, *previous: FaceReading | None) -> FaceReading | None:
        self.calls += 1
        red, green, blue = (int(value) for value in image[0, 0])
        if red == 0:
            return None
        values = np.zeros(BLENDSHAPES, np.float32)
        for name, value in {**REST, "jawOpen": green / 255}.items():
            values[BLENDSHAPE_NAMES.index(name)] = value
        landmarks = synthetic_face(3, image.shape[0], yaw_deg=(blue - 128) / 3).landmarks_px
        return FaceReading(landmarks.astype(np.float32), values, 1.0)


def frame(jaw: float = 0.0, yaw_deg: float = 0.0, *, face: bool = True) -> np.ndarray:
    """A driving frame; a smooth image below the code."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    image = (255 * np.stack([0.4 + 0.4 * x, y, 0.5 + 0.4 * np.sin(9 * x)], -1)).astype(np.uint8)
    image[:4, :4] = (200 if face else 0, round(255 * jaw), round(128 + 3 * yaw_deg))
    return image


def window(*frames: np.ndarray) -> np.ndarray:
    return np.stack([*frames, *[frames[-1]] * (4 - len(frames))])


@pytest.fixture
def engine() -> FaceEngine:
    return FaceEngine(CodedReader(), config=dataclasses.replace(CONFIG, image_size_px=SIDE_PX, chunk_frames=4))  # type: ignore[arg-type]


def run(engine: FaceEngine, *windows: np.ndarray, controls: Controls = Controls()) -> list[np.ndarray]:  # noqa: B008
    return [chunk.numpy() for chunk in engine.stream(frame(), windows, controls=controls)]


def test_every_driving_frame_gives_a_frame_at_once(engine: FaceEngine):
    assert engine.warmup_frames == 0
    chunks = run(engine, window(frame()), window(frame(0.5)))
    assert [chunk.shape for chunk in chunks] == [(4, SIDE_PX, SIDE_PX, 3)] * 2
    assert chunks[0].dtype == np.uint8
    still, opened = chunks[0][-1].astype(int), chunks[1][-1].astype(int)
    assert np.abs(opened - still).max() > 30
    background = (slice(None, SIDE_PX // 8), slice(None))
    assert np.abs(opened[background] - still[background]).max() <= 2


def test_a_driver_at_rest_shows_the_portrait(engine: FaceEngine):
    (chunk,) = run(engine, window(frame()))
    away = np.abs(chunk[0].astype(int) - frame().astype(int))
    assert np.median(away) <= 1
    assert away[8:].mean() < 4


def test_interleaved_streams_are_those_run_alone(engine: FaceEngine):
    inputs = [
        [window(frame(0.1), frame(0.6)), window(frame(0.9, 8.0))],
        [window(frame(0.7, -6.0)), window(frame(0.0))],
    ]
    alone = [run(engine, *stream) for stream in inputs]
    states, together = [engine.start(frame()) for _ in inputs], [[], []]
    for turn in range(2):
        for number, stream in enumerate(inputs):
            states[number], frames = engine.step(states[number], stream[turn])
            together[number].append(frames.numpy())
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(np.stack(one), np.stack(other))


def test_a_stream_of_motion_is_that_of_its_frames(engine: FaceEngine):
    windows = [window(frame(0.2), frame(0.8, 5.0)), window(frame(0.4, -5.0))]
    motions = [engine.encode_motion(one) for one in windows]
    prepared = [engine.prepared(Window(given)) for given in (windows[0], motions[1])]
    for given in (motions, prepared):
        shown = [chunk.numpy() for chunk in engine.stream(frame(), given)]
        np.testing.assert_array_equal(np.stack(run(engine, *windows)), np.stack(shown))


def test_frames_without_a_face_repeat_the_last_motion(engine: FaceEngine):
    lost = frame(face=False)
    (chunk,) = run(engine, window(frame(), frame(0.8), lost, lost))
    np.testing.assert_array_equal(chunk[1], chunk[2])
    np.testing.assert_array_equal(chunk[1], chunk[3])
    (nothing,) = run(engine, window(lost))
    assert np.median(np.abs(nothing[0].astype(int) - frame().astype(int))) <= 1


def test_a_cut_begins_with_another_driver(engine: FaceEngine):
    state = engine.start(frame())
    state, _ = engine.step(state, window(frame(0.0)))
    _, moved = engine.step(state, window(frame(0.6)))
    _, cut = engine.step(state, window(frame(0.6)), cut=0)
    fresh, first = engine.step(engine.start(frame()), window(frame(0.6)))
    np.testing.assert_array_equal(cut.numpy(), first.numpy())
    assert not torch.equal(moved, cut)
    assert fresh.driver is not None


@pytest.mark.parametrize(
    ("controls", "still"),
    [
        (Controls(expression=0.0), window(frame(0.0), frame(0.9))),
        (Controls(mouth=0.0), window(frame(0.0), frame(0.9))),
        (Controls(head_motion=0.0), window(frame(0.0), frame(0.0, 10.0))),
    ],
)
def test_controls_at_nothing_hold_what_they_name(engine: FaceEngine, controls: Controls, still: np.ndarray):
    (plain,) = run(engine, still)
    (held,) = run(engine, still, controls=controls)
    moved = np.abs(plain[1].astype(int) - plain[0].astype(int)).mean()
    assert np.abs(held[1].astype(int) - held[0].astype(int)).mean() < 0.2 * moved


def test_a_relative_pose_starts_where_the_portrait_is(engine: FaceEngine):
    turned = window(frame(0.0, 12.0))
    (absolute,) = run(engine, turned)
    (relative,) = run(engine, turned, controls=Controls(pose="relative"))
    rest = frame().astype(int)
    assert np.abs(relative[0] - rest).mean() < 0.5 * np.abs(absolute[0] - rest).mean()


def test_smoothing_keeps_a_share_of_the_frame_before(engine: FaceEngine):
    sudden = window(frame(0.0), frame(0.9))
    (plain,) = run(engine, sudden)
    (smooth,) = run(engine, sudden, controls=Controls(smoothing=0.8))
    change = [np.abs(chunk[1].astype(int) - chunk[0].astype(int)).mean() for chunk in (plain, smooth)]
    assert 0 < change[1] < 0.7 * change[0]


def test_a_portrait_without_a_face_is_one_line(engine: FaceEngine):
    with pytest.raises(InputError, match="no face is found in the portrait") as error:
        engine.start(frame(face=False))
    assert "\n" not in str(error.value)


def test_motion_of_another_model_is_refused(engine: FaceEngine):
    motion = engine.encode_motion(window(frame()))
    wrong = type(motion)(motion.tokens[..., :5], motion.poses)
    with pytest.raises(InputError, match="this model needs"):
        engine.step(engine.start(frame()), wrong)


# --- what it tells about poor portraits and drivers -----------------------------------------------------------------


def test_a_good_portrait_and_driver_have_no_notes(engine: FaceEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(face_engine, "covered_parts", lambda *_: [])  # these frames are no faces
    state = engine.start(frame().repeat(2, axis=0).repeat(2, axis=1))
    state, _ = engine.step(state, window(frame(0.5, 10)))
    assert engine.notes(state) == []


@pytest.mark.parametrize(
    ("portrait", "told"),
    [
        (frame(yaw_deg=28), "turned aside"),
        (frame(jaw=0.5), "mouth is open"),
        (frame(), "head is small (128 px"),
    ],
)
def test_a_poor_portrait_is_told_with_what_is_better(engine: FaceEngine, portrait: np.ndarray, told: str):
    found = engine.notes(engine.start(portrait))
    assert any(told in note and note.startswith("portrait: ") for note in found)


def test_shut_eyes_are_told(engine: FaceEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(REST, "eyeBlinkLeft", 0.7)
    monkeypatch.setitem(REST, "eyeBlinkRight", 0.6)
    assert any("eyes are shut" in note for note in engine.notes(engine.start(frame())))


def test_covered_parts_are_told(engine: FaceEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(face_engine, "covered_parts", lambda *_: ["the mouth", "an eye"])
    assert any("cover the mouth and an eye, and will move" in note for note in engine.notes(engine.start(frame())))


def test_a_driver_in_profile_is_told_once_it_is_plain(engine: FaceEngine):
    state = engine.start(frame())
    for _ in range(5):
        state, _ = engine.step(state, window(frame()))
    state, _ = engine.step(state, window(frame(yaw_deg=30)))
    assert not any("driver" in note for note in engine.notes(state))  # 30° is within what it may
    for yaw in (-41, 41):
        state, _ = engine.step(state, window(frame(yaw_deg=yaw)))
    assert any("in 25 % of the frames" in note for note in engine.notes(state))


def test_there_are_no_denoising_steps_to_choose(engine: FaceEngine):
    for steps in (1, 4, 0):
        with pytest.raises(InputError, match=f"^steps {steps}: this model has no denoising steps: leave them out$"):
            engine.start(frame(), steps=steps)
