"""A square put back into its photograph: the same pixels where nothing moved, and no trace of its borders."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from personalive.errors import InputError
from personalive.vision.config import PasteBackConfig
from personalive.vision.faces import FaceBox
from personalive.vision.framing import Framed
from personalive.vision.paste_back import PasteBack
from personalive.vision.resize import Square, crop_square, resize_portrait

SIDE = 256  # of the model's images

INSIDE = Square(120, 70, 400)
CORNER = Square(0, 0, 300)  # two of its sides are the photograph's own
BEYOND = Square(-60, -20, 520)  # sticks out of a photograph that is 400 px wide
SQUARES = {"inside": (INSIDE, (601, 703)), "corner": (CORNER, (480, 640)), "beyond": (BEYOND, (600, 401))}


def photograph(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Smooth colours with fine grain, as a photograph has."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(30, 220, (6, 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth + rng.normal(0, 3, (height, width, 3))).clip(0, 255).astype(np.uint8)


def framed(image: np.ndarray, square: Square, face: FaceBox | None = None) -> tuple[Framed, np.ndarray]:
    cut = crop_square(image, square)
    return Framed(cut, square, face, ""), resize_portrait(cut, SIDE)


def middle_face(square: Square) -> FaceBox:
    third = square.side_px / 3
    return FaceBox(square.x + third, square.y + third, third, third, 1.0)


def moved(still: np.ndarray, *, level: int = 90) -> np.ndarray:
    """A result with a block in its middle that the portrait does not have."""
    result = still.copy()
    quarter = SIDE // 4
    result[quarter:-quarter, quarter:-quarter] = (still[quarter:-quarter, quarter:-quarter].astype(int) + level) % 256
    return result


@pytest.mark.parametrize(("square", "shape"), SQUARES.values(), ids=SQUARES)
def test_a_result_in_which_nothing_moves_gives_the_photograph(square: Square, shape: tuple[int, int]):
    image = photograph(*shape)
    paste_back = PasteBack(image, *framed(image, square))
    made = paste_back.put_back(framed(image, square)[1])
    assert np.array_equal(made, image[: shape[0] // 2 * 2, : shape[1] // 2 * 2])
    assert made.shape == (paste_back.height, paste_back.width, 3)


def test_a_face_at_rest_has_the_models_sharpness_and_no_other_place():
    """Frames of a face that moves and of one that rests are equally sharp, and its pixels stay where they were."""
    image = photograph(600, 700)
    frame, still = framed(image, INSIDE, middle_face(INSIDE))
    made = PasteBack(image, frame, still).put_back(still)
    enlarged = cv2.resize(still, (INSIDE.side_px,) * 2, interpolation=cv2.INTER_CUBIC)
    inner = np.s_[INSIDE.y + 170 : INSIDE.y + 230, INSIDE.x + 170 : INSIDE.x + 230]
    assert np.array_equal(made[inner], enlarged[170:230, 170:230])
    untouched = np.ones(image.shape[:2], bool)
    untouched[INSIDE.y + 90 : INSIDE.y + 310, INSIDE.x + 90 : INSIDE.x + 310] = False
    assert np.array_equal(made[untouched], image[untouched])


@pytest.mark.parametrize(("square", "shape"), SQUARES.values(), ids=SQUARES)
@pytest.mark.parametrize("seed", [1, 2])
def test_pixels_outside_the_square_are_the_photographs_whatever_the_result(
    square: Square, shape: tuple[int, int], seed: int
):
    image = photograph(*shape)
    result = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    paste_back = PasteBack(image, *framed(image, square))
    made = paste_back.put_back(result)
    outside = np.ones(made.shape[:2], bool)
    outside[max(square.y, 0) : square.y + square.side_px, max(square.x, 0) : square.x + square.side_px] = False
    assert np.array_equal(made[outside], image[: paste_back.height, : paste_back.width][outside])
    assert not np.array_equal(made, image[: paste_back.height, : paste_back.width])


def test_what_moves_shows_as_the_result_and_what_is_still_keeps_every_pixel():
    image = photograph(600, 700)
    frame, still = framed(image, INSIDE)
    result = moved(still)
    made = PasteBack(image, frame, still).put_back(result)
    enlarged = cv2.resize(result, (INSIDE.side_px,) * 2, interpolation=cv2.INTER_CUBIC)
    inner = np.s_[INSIDE.y + 110 : INSIDE.y + 290, INSIDE.x + 110 : INSIDE.x + 290]
    assert np.abs(made[inner].astype(int) - enlarged[110:290, 110:290]).max() <= 1
    far = np.ones(image.shape[:2], bool)
    far[INSIDE.y + 60 : INSIDE.y + 340, INSIDE.x + 60 : INSIDE.x + 340] = False
    assert np.array_equal(made[far], image[far])


@pytest.mark.parametrize(("square", "shape"), SQUARES.values(), ids=SQUARES)
def test_no_step_at_the_squares_borders_even_where_all_of_it_moved(square: Square, shape: tuple[int, int]):
    """A result of another image altogether, over flat grey: it comes in by small steps."""
    image = np.full((*shape, 3), 90, np.uint8)
    result = np.full((SIDE, SIDE, 3), 240, np.uint8)
    made = PasteBack(image, *framed(image, square)).put_back(result).astype(int)
    assert made.max() == 240
    for axis in (0, 1):
        assert np.abs(np.diff(made, axis=axis)).max() <= 8  # 150 levels over an eighth of 300 px or more
    height, width = made.shape[:2]
    ends = {"left": square.x > 0, "right": square.x + square.side_px < width}
    row = made[min(square.y + square.side_px // 2, height - 1), :, 0]
    found = {"left": row[max(square.x, 0)], "right": row[min(square.x + square.side_px, width) - 1]}
    assert {name: level == 90 for name, level in found.items()} == ends


@pytest.mark.parametrize("shift", [(12, -9, 6), (-30, -30, -30)])
def test_a_result_of_other_colours_is_given_the_photographs(shift: tuple[int, int, int]):
    image = photograph(600, 700)
    frame, still = framed(image, INSIDE)
    tinted = (still.astype(int) + shift).clip(0, 255).astype(np.uint8)
    made = PasteBack(image, frame, still).put_back(tinted).astype(int)
    assert np.abs(made - image).mean() < 0.1 * np.abs(shift).mean()
    # and a block that moves in it is itself, in the photograph's colours
    block = (moved(still, level=50).astype(int) + shift).clip(0, 255).astype(np.uint8)
    inner = np.s_[INSIDE.y + 150 : INSIDE.y + 250, INSIDE.x + 150 : INSIDE.x + 250]
    wanted = PasteBack(image, frame, still).put_back(moved(still, level=50))[inner].astype(int)
    error = np.abs(PasteBack(image, frame, still).put_back(block)[inner].astype(int) - wanted)
    assert np.median(error) <= 3


def test_frames_do_not_depend_on_each_other():
    image = photograph(600, 700)
    frame, still = framed(image, INSIDE)
    paste_back = PasteBack(image, frame, still)
    first = paste_back.put_back(moved(still))
    kept = first.copy()
    paste_back.put_back(moved(still, level=40))
    assert np.array_equal(first, kept)
    assert np.array_equal(paste_back.put_back(moved(still)), kept)


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [
        ((400, 600), (600, 400), ""),
        ((401, 600), (600, 400), "the last row"),
        ((400, 601), (600, 400), "the last column"),
        ((401, 601), (600, 400), "the last column and the last row"),
    ],
)
def test_sides_are_even_and_the_note_says_what_is_left_out(shape: tuple[int, int], size: tuple[int, int], words: str):
    image = photograph(*shape)
    paste_back = PasteBack(image, *framed(image, Square(20, 20, 300)))
    assert (paste_back.width, paste_back.height) == size
    assert paste_back.note.endswith(words)
    assert bool(paste_back.note) == bool(words)


def test_a_photograph_too_large_for_players_is_refused_in_one_line():
    limit = PasteBackConfig.max_side_px
    image = np.zeros((64, limit + 1, 3), np.uint8)
    with pytest.raises(InputError, match=f"{limit + 1}x64 px is too large .* at most {limit} px a side"):
        PasteBack(image, *framed(image, Square(0, 0, 64)))


def test_a_4k_photograph_needs_memory_for_its_square_and_no_more_with_every_frame():
    image = np.full((2160, 3840, 3), 120, np.uint8)
    square = Square(1500, 400, 900)
    frame, still = framed(image, square, middle_face(square))
    paste_back = PasteBack(image, frame, still)
    result = moved(still)
    paste_back.put_back(result)
    tracemalloc.start()
    for _ in range(3):
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        made = paste_back.put_back(result)
        peak = tracemalloc.get_traced_memory()[1] - before
        del made
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
        assert peak < image.nbytes + 24 * square.side_px**2  # a copy, and 24 bytes a pixel of the square
    tracemalloc.stop()
