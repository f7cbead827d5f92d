"""Squares around faces: always usable, always holding the face, unmoved by jitter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.vision.config import FramingConfig
from personalive.vision.faces import FaceBox
from personalive.vision.resize import Square, crop_square
from personalive.vision.tracking import centre_square, face_square, inside_share, whole_square

CONFIG = FramingConfig()

shapes = st.tuples(st.integers(20, 400), st.integers(20, 400))
faces = st.builds(
    FaceBox,
    x=st.floats(-80, 380),
    y=st.floats(-80, 380),
    width=st.floats(5, 300),
    height=st.floats(5, 300),
    score=st.just(1.0),
)


def is_visible(face: FaceBox, shape: tuple[int, int]) -> bool:
    return face.x < shape[1] and face.y < shape[0] and face.x + face.width > 0 and face.y + face.height > 0


@given(shape=shapes, face=faces)
def test_a_square_holds_all_of_the_visible_face(shape: tuple[int, int], face: FaceBox) -> None:
    square = face_square([face], shape, 1.9, CONFIG)
    assert square.side_px >= 1
    if is_visible(face, shape):
        assert inside_share(face, square, shape) == pytest.approx(1)


@given(shape=shapes, seen=st.lists(faces, min_size=1, max_size=12))
def test_a_square_leaves_the_image_only_if_it_must(shape: tuple[int, int], seen: list[FaceBox]) -> None:
    square = face_square(seen, shape, 1.9, CONFIG)
    for start, extent in ((square.x, shape[1]), (square.y, shape[0])):
        if square.side_px <= extent:
            assert 0 <= start <= extent - square.side_px
        else:  # as much of the image as there is
            assert extent - square.side_px <= start <= 0
    assert square.side_px <= max(shape)
    image = np.zeros((*shape, 3), np.uint8)
    assert crop_square(image, square).shape == (square.side_px, square.side_px, 3)


def test_a_roomy_image_gives_the_documented_square() -> None:
    face = FaceBox(400, 300, 80, 100, 1)
    square = face_square([face], (1000, 1000), 2.0, FramingConfig(up_shift=0.1))
    assert square == Square(440 - 100, 350 - 10 - 100, 200)


def test_a_face_that_fills_a_square_image_keeps_the_whole_image() -> None:
    assert face_square([FaceBox(120, 90, 250, 320, 1)], (512, 512), 1.9, CONFIG) == Square(0, 0, 512)


@given(
    jitter=st.lists(st.tuples(*[st.floats(-4, 4)] * 4), min_size=12, max_size=12),
    stray=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
)
def test_jitter_and_one_stray_detection_hardly_move_the_square(
    jitter: list[tuple[float, float, float, float]], stray: tuple[float, float]
) -> None:
    truth = FaceBox(400, 300, 150, 200, 1)
    seen = [FaceBox(400 + x, 300 + y, 150 + w, 200 + h, 1) for x, y, w, h in jitter]
    seen[5] = FaceBox(400 + stray[0], 300 + stray[1], 150, 200, 1)
    steady, shaken = (face_square(boxes, (1000, 1000), 1.9, CONFIG) for boxes in ([truth], seen))
    assert abs(steady.side_px - shaken.side_px) <= 4 * 1.9 + 1
    assert abs(steady.x + steady.side_px / 2 - shaken.x - shaken.side_px / 2) <= 4 + 2 + 1
    assert abs(steady.y + steady.side_px / 2 - shaken.y - shaken.side_px / 2) <= 4 + 2 + 1.5


def test_a_face_that_moves_about_gets_a_larger_square() -> None:
    path = [FaceBox(300 + 40 * step, 400, 80, 100, 1) for step in range(12)]
    square = face_square(path, (1000, 1000), 1.9, CONFIG)
    assert square.side_px == round(1.1 * (11 * 40 + 80))
    assert all(inside_share(face, square, (1000, 1000)) == pytest.approx(1) for face in path)


def test_a_face_that_roams_the_whole_width_is_framed_where_it_mostly_is() -> None:
    path = [FaceBox(x, 50, 80, 100, 1) for x in (0, 500, 505, 510, 900)]
    square = face_square(path, (200, 1000), 1.9, CONFIG)
    assert square.side_px == 200
    assert inside_share(path[2], square, (200, 1000)) == pytest.approx(1)


def test_share_of_the_visible_face_in_the_square() -> None:
    square = Square(0, 0, 100)
    assert inside_share(FaceBox(50, 0, 100, 100, 1), square, (200, 200)) == pytest.approx(0.5)
    assert inside_share(FaceBox(-50, 0, 100, 100, 1), square, (200, 200)) == pytest.approx(1)
    assert inside_share(FaceBox(300, 0, 100, 100, 1), square, (200, 200)) == 0


@given(shape=shapes)
def test_the_centre_square_is_the_largest_and_central(shape: tuple[int, int]) -> None:
    square = centre_square(shape)
    assert square.side_px == min(shape)
    assert abs(2 * square.x + square.side_px - shape[1]) <= 1
    assert abs(2 * square.y + square.side_px - shape[0]) <= 1


def test_only_square_images_are_taken_whole() -> None:
    assert whole_square((512, 512), CONFIG) == Square(0, 0, 512)
    assert whole_square((512, 508), CONFIG).side_px == 508
    with pytest.raises(InputError, match=r"640x480 px is not square.*--framing center"):
        whole_square((480, 640), CONFIG)
