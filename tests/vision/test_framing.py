"""Portraits and driving clips framed with a detector that sees painted blocks as faces."""

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.errors import FaceNotFoundError, InputError
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceBox
from personalive.vision.framing import DrivingFramer, FramedFrame, FrameTime, frame_portrait
from personalive.vision.resize import Square, crop_and_resize

CONFIG = FramingConfig()
FACE = (250, 20, 20)  # the colour that the fake detector takes for a face
HEIGHT, WIDTH = 180, 320
Spot = tuple[int, int, int]  # a face of (x, y, side)


class BlockDetector:
    """Finds blocks of the face colour; counts how often it was asked."""

    name = "blocks"

    def __init__(self, jitter_px: float = 0.0) -> None:
        self.searches = 0
        self._jitter_px = jitter_px
        self._rng = np.random.default_rng(0)

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        self.searches += 1
        mask = (image == FACE).all(axis=2).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        shake = self._rng.uniform(-self._jitter_px, self._jitter_px, (len(stats), 4))
        found = [FaceBox(*(row[:4] + move).tolist(), 1.0) for row, move in zip(stats, shake, strict=True)][1:]
        return sorted(found, key=lambda face: -face.width * face.height)


def scene(*spots: Spot, grey: int = 100, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    image = np.full((*shape, 3), grey, np.uint8)
    for x, y, side in spots:
        image[y : y + side, x : x + side] = FACE
    return image


def framer(detector: BlockDetector | None = None, **options) -> DrivingFramer:
    return DrivingFramer(detector or BlockDetector(), size_px=64, **options)


def run(stream: DrivingFramer, clip: Iterable[np.ndarray]) -> list[FramedFrame]:
    framed = [frame for image in clip for frame in stream.push(image)]
    return framed + stream.flush()


def faces_in(frames: Sequence[FramedFrame]) -> list[bool]:
    return [frame.face_found for frame in frames]


# --- portraits --------------------------------------------------------------------------------------------


def test_a_portrait_is_cropped_around_its_largest_face() -> None:
    image = scene((40, 40, 20), (600, 500, 100), shape=(1000, 1200))
    framed = frame_portrait(image, BlockDetector())
    assert framed.image.shape == (190, 190, 3)
    assert framed.face is not None
    assert framed.face.centre == (650, 550)
    assert "2 faces" in framed.note
    block = (framed.image == FACE).all(axis=2)
    assert block.sum() == 100 * 100
    rows, columns = np.nonzero(block)
    assert columns.mean() == pytest.approx(94.5, abs=1)  # in the middle from left to right
    assert rows.mean() == pytest.approx(94.5 + 10, abs=1)  # a tenth of the face lower than the middle


def test_a_portrait_without_a_face_says_how_to_go_on() -> None:
    with pytest.raises(FaceNotFoundError, match="--framing center") as caught:
        frame_portrait(scene(shape=(64, 64)), BlockDetector())
    assert "\n" not in str(caught.value)


def test_a_portrait_without_a_face_is_centred_where_that_is_allowed() -> None:
    framed = frame_portrait(scene(), BlockDetector(), allow_center_fallback=True)
    assert framed.box == Square(70, 0, 180)
    assert "centred" in framed.note


def test_portrait_modes_without_detection() -> None:
    assert frame_portrait(scene(), None, "center").box == Square(70, 0, 180)
    square = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(frame_portrait(square, None, "none").image, square)
    with pytest.raises(InputError, match="not square"):
        frame_portrait(scene(), None, "none")
    with pytest.raises(ValueError, match="detector"):
        frame_portrait(scene(), None, "auto")


# --- one shot ---------------------------------------------------------------------------------------------


@given(
    steps=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=45),
    live=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_one_square_holds_still_for_a_moving_jittered_face(steps: list[tuple[int, int]], live: bool) -> None:
    spots = [(140 + x, 70 + y, 50) for x, y in steps]
    clip = [scene(spot) for spot in spots]
    stream = framer(BlockDetector(jitter_px=2), live=live)
    framed = run(stream, clip)
    assert [frame.index for frame in framed] == list(range(len(clip)))
    assert all(faces_in(framed))
    assert stream.report.cuts == 0
    (used,) = stream.report.squares
    for image, frame in zip(clip, framed, strict=True):
        expected = crop_and_resize(image, Square(used.x, used.y, used.side_px), 64)
        np.testing.assert_array_equal(frame.image, expected)


def test_frames_come_out_after_the_look_ahead_and_then_one_by_one() -> None:
    stream = framer()
    ready = [len(stream.push(scene((140, 70, 50)))) for _ in range(CONFIG.look_ahead_frames + 5)]
    assert ready == [0] * (CONFIG.look_ahead_frames - 1) + [CONFIG.look_ahead_frames] + [1] * 5
    assert stream.flush() == []


def test_live_frames_come_out_at_once() -> None:
    stream = framer(live=True)
    assert [len(stream.push(scene((140, 70, 50)))) for _ in range(20)] == [1] * 20


def test_a_settled_face_is_searched_for_every_few_frames_only() -> None:
    detector = BlockDetector()
    run(framer(detector), [scene((140, 70, 50))] * (CONFIG.look_ahead_frames + 40))
    assert detector.searches == CONFIG.look_ahead_frames + 40 // CONFIG.detect_every_frames


def test_the_larger_face_is_followed_though_another_grows_larger() -> None:
    clip = [scene((40, 70, 50), (220, 70, 30 + min(step, 40))) for step in range(60)]
    stream = framer()
    run(stream, clip)
    (used,) = stream.report.squares
    assert used.x <= 40
    assert used.x + used.side_px < 220


# --- frames without a face --------------------------------------------------------------------------------

SEEN, GONE = scene((140, 70, 50)), scene()


def interrupted(gap: int) -> list[np.ndarray]:
    return [SEEN] * 20 + [GONE] * gap + [SEEN] * 10


def test_hold_repeats_the_last_good_image_and_the_same_square_goes_on() -> None:
    stream = framer()
    framed = run(stream, interrupted(30))
    lost = [frame.index for frame in framed if not frame.face_found]
    late = CONFIG.bridge_frames + CONFIG.detect_every_frames
    assert 20 <= lost[0] <= 20 + late
    assert lost == list(range(lost[0], 50))
    assert stream.report.frames_without_face == len(lost)
    assert stream.report.cuts == 0
    for index in lost:
        np.testing.assert_array_equal(framed[index].image, framed[0].image)
        assert not framed[index].neutral


def test_neutral_asks_for_the_portraits_own_pose() -> None:
    framed = run(framer(no_face="neutral"), interrupted(30))
    assert [frame.neutral for frame in framed] == [not found for found in faces_in(framed)]
    assert any(frame.neutral for frame in framed)


def test_error_names_the_frame_and_its_time() -> None:
    stream = framer(no_face="error")
    with pytest.raises(FaceNotFoundError, match=r"driving frame 26 \(1\.04 s\).*--no-face hold"):
        for index, image in enumerate(interrupted(30)):
            stream.push(image, FrameTime(Fraction(index, 25), Fraction(1, 25)))


def test_missed_detections_are_bridged_up_to_a_limit() -> None:
    config = FramingConfig(detect_every_frames=1)
    assert all(faces_in(run(framer(config=config), interrupted(config.bridge_frames))))
    stream = framer(config=config)
    run(stream, interrupted(config.bridge_frames + 2))
    assert stream.report.frames_without_face == 2


def test_frames_before_the_first_face_are_given_its_image() -> None:
    framed = run(framer(), [GONE] * 7 + [SEEN] * 20)
    assert [frame.index for frame in framed] == list(range(27))
    assert faces_in(framed) == [False] * 7 + [True] * 20
    for frame in framed[:7]:
        np.testing.assert_array_equal(frame.image, framed[7].image)


def test_live_frames_before_the_first_face_are_neutral() -> None:
    framed = run(framer(live=True), [GONE] * 5 + [SEEN] * 5)
    assert [frame.neutral for frame in framed] == [True] * 5 + [False] * 5


def test_a_clip_without_any_face_is_refused_at_its_end_or_when_patience_ends() -> None:
    stream = framer()
    assert [stream.push(GONE) for _ in range(30)] == [[]] * 30
    with pytest.raises(FaceNotFoundError, match=r"first 30 frames.*--framing center"):
        stream.flush()
    impatient = framer(config=FramingConfig(patience_frames=5))
    with pytest.raises(FaceNotFoundError, match="first 5 frames"):
        run(impatient, [GONE] * 6)


def test_memory_stays_bounded_while_no_face_or_a_shot_is_waited_for() -> None:
    stream = framer()
    for image in [GONE] * 60 + [SEEN] * 40:
        stream.push(image)
        assert len(stream._waiting) < CONFIG.look_ahead_frames


# --- shots ------------------------------------------------------------------------------------------------


def test_a_cut_chooses_a_new_square() -> None:
    clip = [scene((40, 70, 50))] * 30 + [scene((220, 60, 60), grey=200)] * 30
    stream = framer()
    framed = run(stream, clip)
    assert [frame.index for frame in framed if frame.cut] == [30]
    assert [frame.index for frame in framed] == list(range(60))
    assert [used.first_frame for used in stream.report.squares] == [0, 30]
    assert stream.report.squares[1].x > 150
    assert all(faces_in(framed))


def test_a_cut_within_the_look_ahead_does_not_mix_shots() -> None:
    clip = [scene((40, 70, 50))] * 5 + [scene((220, 60, 60), grey=200)] * 30
    stream = framer()
    run(stream, clip)
    first, second = stream.report.squares
    assert first.x + first.side_px < 220
    assert (first.first_frame, second.first_frame) == (0, 5)


def test_a_flash_is_not_a_cut() -> None:
    clip = [scene((140, 70, 50), grey=100 + 100 * (step in (25, 26))) for step in range(50)]
    stream = framer()
    run(stream, clip)
    assert stream.report.cuts == 0


def test_a_change_of_size_is_a_cut() -> None:
    clip = [SEEN] * 20 + [scene((40, 200, 60), shape=(320, 180))] * 20
    stream = framer()
    framed = run(stream, clip)
    assert [frame.index for frame in framed if frame.cut] == [20]
    assert all(faces_in(framed))


def test_a_face_that_walks_away_for_good_gets_a_new_square() -> None:
    clip = [scene((20 + 6 * min(max(step - 20, 0), 35), 70, 50)) for step in range(110)]
    stream = framer()
    framed = run(stream, clip)
    assert stream.report.cuts >= 1
    assert all(faces_in(framed[-30:]))
    last = stream.report.squares[-1]
    assert last.x <= 230
    assert last.x + last.side_px >= 280


def test_a_face_that_steps_out_for_a_moment_does_not() -> None:
    clip = [scene((20 + 120 * (25 <= step < 33), 70, 50)) for step in range(60)]
    stream = framer()
    framed = run(stream, clip)
    assert stream.report.cuts == 0
    assert not all(faces_in(framed))


def test_a_face_that_goes_far_back_gets_a_smaller_square() -> None:
    clip = [scene((140, 70, 60))] * 20 + [scene((155, 85, 20))] * 60
    stream = framer()
    run(stream, clip)
    first, last = stream.report.squares
    assert last.side_px < first.side_px / 2


# --- the other modes --------------------------------------------------------------------------------------


def test_center_and_none_never_look_for_faces() -> None:
    stream = DrivingFramer(None, "center", size_px=64)
    framed = run(stream, [GONE] * 3)
    assert faces_in(framed) == [True] * 3
    np.testing.assert_array_equal(framed[0].image, crop_and_resize(GONE, Square(70, 0, 180), 64))
    assert stream.report.detector == "not used"
    with pytest.raises(InputError, match="not square"):
        DrivingFramer(None, "none").push(GONE)


def test_center_reports_cuts() -> None:
    stream = DrivingFramer(None, "center", size_px=64)
    framed = run(stream, [scene(grey=50)] * 5 + [scene(grey=200)] * 5)
    assert [frame.index for frame in framed if frame.cut] == [5]


@pytest.mark.parametrize("live", [False, True])
def test_faceless_streams_are_centred_where_that_is_allowed(live: bool) -> None:
    stream = framer(allow_center_fallback=True, live=live)
    framed = run(stream, [GONE] * 20)
    assert faces_in(framed) == [True] * 20
    assert [frame.index for frame in framed] == list(range(20))
    assert stream.report.squares[0].side_px == HEIGHT
    assert "centred" in stream.report.note


def test_the_fallback_does_not_touch_clips_with_a_face() -> None:
    clip = [SEEN] * 20
    allowed, strict = framer(allow_center_fallback=True), framer()
    for one, other in zip(run(allowed, clip), run(strict, clip), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    assert allowed.report == strict.report


def test_a_short_clip_of_synthetic_heads_is_centred_at_its_end() -> None:
    assert len(run(framer(allow_center_fallback=True), [GONE] * 3)) == 3


def test_the_report_is_json_and_bounded() -> None:
    stream = framer(config=FramingConfig(reported_squares=2))
    clip = [scene((40 + 180 * (step // 15 % 2), 70, 50), grey=60 + 120 * (step // 15 % 2)) for step in range(75)]
    run(stream, clip)
    report = json.loads(json.dumps(stream.report.to_json()))
    assert report["frames"] == 75
    assert report["cuts"] == 4
    assert [used["first_frame"] for used in report["squares"]] == [0, 15]
    assert report["detector"] == "blocks"
