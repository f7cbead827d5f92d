"""Face boxes and detectors. YuNet's file is no part of the project: only its failures are tested."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.config import FACE_DETECTOR
from personalive.errors import CheckpointError, InputError
from personalive.vision.config import FramingConfig, HaarConfig
from personalive.vision.faces import FaceBox, HaarDetector, YuNetDetector, find_detector

YUNET_NAME = Path(FACE_DETECTOR).name


def draw_face(image: np.ndarray, x: int, y: int, side: int) -> None:
    """Paint a shaded cartoon face that a frontal cascade takes for one, in the square (x, y, side)."""

    def ellipse(cx: float, cy: float, rx: float, ry: float, grey: int) -> None:
        centre = (round(x + cx * side), round(y + cy * side))
        cv2.ellipse(image, centre, (round(rx * side), round(ry * side)), 0, 0, 360, (grey,) * 3, -1)

    ellipse(0.5, 0.47, 0.43, 0.55, 60)  # hair
    ellipse(0.5, 0.55, 0.36, 0.5, 205)  # skin
    for eye in (0.33, 0.67):
        ellipse(eye, 0.37, 0.1, 0.025, 70)  # brow
        ellipse(eye, 0.45, 0.1, 0.06, 120)  # socket
        ellipse(eye, 0.46, 0.08, 0.035, 235)
        ellipse(eye, 0.46, 0.035, 0.035, 25)
    ellipse(0.5, 0.56, 0.04, 0.14, 225)  # ridge of the nose
    ellipse(0.5, 0.68, 0.075, 0.025, 130)
    ellipse(0.5, 0.82, 0.15, 0.035, 95)  # mouth
    image[:] = cv2.GaussianBlur(image, (0, 0), max(side / 90, 0.5))


@pytest.fixture(scope="module")
def haar() -> HaarDetector:
    return HaarDetector()


def test_haar_finds_synthetic_faces_where_they_are_largest_first(haar: HaarDetector) -> None:
    image = np.full((480, 900, 3), 150, np.uint8)
    draw_face(image, 80, 150, 150)
    draw_face(image, 500, 100, 260)
    faces = haar.detect(image)
    assert len(faces) == 2
    for face, (x, y, side) in zip(faces, [(500, 100, 260), (80, 150, 150)], strict=True):
        assert face.centre[0] == pytest.approx(x + side / 2, abs=0.12 * side)
        assert face.centre[1] == pytest.approx(y + 0.55 * side, abs=0.15 * side)
        assert 0.6 * side < face.side_px < 1.4 * side


def test_boxes_are_in_the_pixels_of_the_given_image(haar: HaarDetector) -> None:
    image = np.full((320, 320, 3), 150, np.uint8)
    draw_face(image, 90, 80, 150)
    (small,) = haar.detect(image)
    (large,) = haar.detect(np.ascontiguousarray(image.repeat(3, axis=0).repeat(3, axis=1)))
    tripled = [3 * value for value in (small.x, small.y, small.width, small.height)]
    assert [large.x, large.y, large.width, large.height] == pytest.approx(tripled, abs=6)


def test_too_small_faces_are_ignored() -> None:
    image = np.full((320, 320, 3), 150, np.uint8)
    draw_face(image, 90, 80, 150)
    assert HaarDetector(FramingConfig(min_face_share=0.2)).detect(image)
    assert HaarDetector(FramingConfig(min_face_share=0.6)).detect(image) == []


def test_haar_finds_nothing_in_noise_and_plain_images(haar: HaarDetector) -> None:
    rng = np.random.default_rng(0)
    for blur in (1, 4, 9):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8), (0, 0), blur)
        stretched = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)  # pyright: ignore[reportCallIssue, reportArgumentType]
        assert haar.detect(stretched.astype(np.uint8)) == []
    assert haar.detect(np.full((200, 300, 3), 127, np.uint8)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (4000, 3), (17, 16)])
def test_slivers_have_no_face(haar: HaarDetector, shape: tuple[int, int]) -> None:
    assert haar.detect(np.zeros((*shape, 3), np.uint8)) == []


def test_a_grey_image_is_refused(haar: HaarDetector) -> None:
    with pytest.raises(InputError, match="RGB"):
        haar.detect(np.zeros((64, 64), np.uint8))


def test_a_missing_cascade_says_what_to_reinstall() -> None:
    with pytest.raises(CheckpointError, match="reinstall opencv-python-headless"):
        HaarDetector(haar=HaarConfig(cascades=(("no_such_cascade", 3),)))


@pytest.mark.parametrize("content", [b"", b"not a network" * 40, b"\x08\x07\x12\x00"])
@pytest.mark.parametrize("place", [".", "face_detection_yunet"])
def test_a_damaged_yunet_file_is_one_line_that_names_it(tmp_path: Path, content: bytes, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / YUNET_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable YuNet") as caught:
        find_detector(tmp_path)
    assert str(folder / YUNET_NAME) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_yunet_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="download"):
        YuNetDetector(tmp_path / YUNET_NAME)


def test_without_the_yunet_file_haar_is_used(tmp_path: Path) -> None:
    assert find_detector(tmp_path).name == "haar"
    assert find_detector(None).name == "haar"


boxes = st.builds(
    FaceBox,
    x=st.floats(-50, 50),
    y=st.floats(-50, 50),
    width=st.floats(1, 80),
    height=st.floats(1, 80),
    score=st.just(1.0),
)


@given(one=boxes, other=boxes)
def test_overlap_is_a_symmetric_share(one: FaceBox, other: FaceBox) -> None:
    assert 0 <= one.overlap(other) <= 1
    assert one.overlap(other) == pytest.approx(other.overlap(one))
    assert one.overlap(one) == pytest.approx(1)


def test_overlap_of_known_boxes() -> None:
    box = FaceBox(0, 0, 10, 10, 1)
    assert box.overlap(FaceBox(5, 0, 10, 10, 1)) == pytest.approx(50 / 150)
    assert box.overlap(FaceBox(20, 0, 10, 10, 1)) == 0
