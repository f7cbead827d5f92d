"""Resizing, cropping and conversion: where points land, which values come out."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from personalive.errors import InputError
from personalive.vision.resize import (
    Square,
    check_image,
    crop_and_resize,
    crop_square,
    frames_to_tensor,
    resize_frames,
    resize_portrait,
    shrink_to,
    tensor_to_frames,
)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_portraits_are_resized_by_pil_lanczos() -> None:
    image = random_image(70, 50)
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize_portrait(image, 32), expected)


def test_frames_are_resized_without_antialiasing() -> None:
    # Halving with half-pixel centres and no antialias is the mean of each 2x2 block.
    frames = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    halved = resize_frames(frames, 4)
    torch.testing.assert_close(halved, torch.nn.functional.avg_pool2d(frames, 2))
    # To a quarter, only the middle 2x2 of each 4x4 block counts: an antialiased filter would see all 16.
    quartered = resize_frames(frames**2, 2)
    middle = (frames**2).reshape(2, 3, 2, 4, 2, 4)[:, :, :, 1:3, :, 1:3].mean(dim=(3, 5))
    torch.testing.assert_close(quartered, middle)


def test_frames_of_the_right_size_are_untouched() -> None:
    frames = torch.rand(1, 3, 6, 6)
    assert resize_frames(frames, 6) is frames


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    x=st.integers(-60, 60),
    y=st.integers(-60, 60),
    side=st.integers(1, 50),
)
def test_a_crop_repeats_the_edge_outside_the_image(height: int, width: int, x: int, y: int, side: int) -> None:
    image = random_image(height, width)
    crop = crop_square(image, Square(x, y, side))
    padded = np.pad(image, ((120, 120), (120, 120), (0, 0)), mode="edge")
    np.testing.assert_array_equal(crop, padded[120 + y : 120 + y + side, 120 + x : 120 + x + side])


@given(
    column=st.integers(20, 79),
    row=st.integers(20, 79),
    x=st.integers(-10, 15),
    y=st.integers(-10, 15),
    side=st.integers(90, 120),
    size=st.integers(40, 200),
)
def test_a_marked_point_lands_where_geometry_says(
    column: int, row: int, x: int, y: int, side: int, size: int
) -> None:
    assume(max(column - x, row - y) + 4 <= side)  # the whole mark is inside the square
    image = np.zeros((110, 110, 3), np.uint8)
    image[row - 3 : row + 4, column - 3 : column + 4] = 255
    framed = crop_and_resize(image, Square(x, y, side), size)[..., 0].astype(float)
    rows, columns = np.indices(framed.shape)
    scale = size / side
    # Pixel centres lie at half pixels, before and after.
    assert np.average(columns, weights=framed) == pytest.approx((column + 0.5 - x) * scale - 0.5, abs=0.1)
    assert np.average(rows, weights=framed) == pytest.approx((row + 0.5 - y) * scale - 0.5, abs=0.1)


def test_shrinking_crops_averages_areas() -> None:
    image = random_image(64, 64)
    framed = crop_and_resize(image, Square(0, 0, 64), 16).astype(float)
    areas = image.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(framed - areas).max() <= 0.5 + 1e-6


def test_a_crop_of_the_same_size_keeps_its_pixels_and_owns_them() -> None:
    image = random_image(16, 16)
    framed = crop_and_resize(image, Square(0, 0, 16), 16)
    np.testing.assert_array_equal(framed, image)
    assert not np.shares_memory(framed, image)


@given(height=st.integers(1, 300), width=st.integers(1, 300), longest=st.integers(1, 200))
def test_shrinking_keeps_the_aspect_and_never_enlarges(height: int, width: int, longest: int) -> None:
    small = shrink_to(np.zeros((height, width, 3), np.uint8), longest)
    assert max(small.shape[:2]) == min(longest, max(height, width))
    scale = max(small.shape[:2]) / max(height, width)
    assert abs(small.shape[0] - max(1, height * scale)) <= 0.5 + 1e-9
    assert abs(small.shape[1] - max(1, width * scale)) <= 0.5 + 1e-9


@pytest.mark.parametrize(("value_range", "lowest"), [("unit", 0.0), ("signed", -1.0)])
def test_every_byte_survives_the_way_to_a_tensor_and_back(value_range: str, lowest: float) -> None:
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 8, 16, 3)
    tensor = frames_to_tensor(frames, value_range)
    assert tensor.shape == (2, 3, 8, 16)
    assert tensor.dtype == torch.float32
    assert tensor.min() == lowest
    assert tensor.max() == 1
    np.testing.assert_array_equal(tensor_to_frames(tensor, value_range), frames)


def test_channels_keep_their_order_and_one_image_becomes_a_batch() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 2] = 255
    tensor = frames_to_tensor(image, "unit")
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor.mean(dim=(0, 2, 3)).tolist() == [0, 0, 1]


def test_read_only_and_strided_frames_are_accepted() -> None:
    frames = random_image(8, 8)[None]
    frames.flags.writeable = False
    torch.testing.assert_close(frames_to_tensor(frames[:, ::2], "unit"), frames_to_tensor(frames, "unit")[:, :, ::2])


def test_images_out_of_range_are_clamped_and_rounded() -> None:
    values = torch.tensor([-3.0, 0.4 / 255, 0.6 / 255, 7.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert tensor_to_frames(values, "unit")[0, ..., 0].flatten().tolist() == [0, 0, 1, 255]
    assert tensor_to_frames(values.bfloat16() * 2 - 1, "signed")[0, 1, 1].tolist() == [255] * 3


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_anything_but_rgb_bytes_is_refused_in_one_line(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot be used") as caught:
        check_image(image)
    assert "\n" not in str(caught.value)


def test_frames_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="uint8"):
        frames_to_tensor(np.zeros((1, 4, 4, 3), np.float32), "unit")  # pyright: ignore[reportArgumentType]
