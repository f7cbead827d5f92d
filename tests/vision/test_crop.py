"""Crops against images whose resized values are known, and with boxes that are no good."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from personalive.vision.canvas import crop_faces

WIDTH, HEIGHT = 40, 30


def ramps(count: int = 1) -> Tensor:
    """Channel 0 is x, channel 1 is y, channel 2 the frame's number."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    planes = [torch.stack([x, y, torch.full_like(x, number)]) for number in range(count)]
    return torch.stack(planes).float()


def test_a_box_of_the_asked_size_is_copied():
    crop = crop_faces(ramps(), torch.tensor([[7, 3, 23, 19]]), 16)
    assert torch.equal(crop, ramps()[:, :, 3:19, 7:23])


def test_halving_averages_pairs():
    crop = crop_faces(ramps(), torch.tensor([[4, 2, 20, 18]]), 8)[0]
    torch.testing.assert_close(crop[0, 0], torch.arange(4, 20, 2) + 0.5)
    torch.testing.assert_close(crop[1, :, 0], torch.arange(2, 18, 2) + 0.5)


def test_enlarging_has_no_corner_alignment():
    crop = crop_faces(ramps(), torch.tensor([[10, 5, 14, 9]]), 8)[0, 0, 0]
    expected = torch.tensor([10, 10.25, 10.75, 11.25, 11.75, 12.25, 12.75, 13])
    torch.testing.assert_close(crop, expected)


def test_shrinking_does_not_smooth():
    stripes = (torch.arange(WIDTH) % 4 == 1).float().expand(1, 3, HEIGHT, WIDTH)
    crop = crop_faces(stripes, torch.tensor([[0, 0, 32, 16]]), 8)
    # samples at 1.5, 5.5, ...: half of the white column 1, 5, ... and half of its black neighbour
    torch.testing.assert_close(crop, torch.full((1, 3, 8, 8), 0.5))


def test_every_frame_has_its_own_box():
    boxes = torch.tensor([[0, 0, 8, 8], [8, 8, 16, 16], [2, 4, 10, 12]])
    crops = crop_faces(ramps(3), boxes, 8)
    assert crops[:, 0, 0, 0].tolist() == [0, 8, 2]
    assert crops[:, 1, 0, 0].tolist() == [0, 8, 4]
    assert crops[:, 2, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("box", "x", "y"),
    [
        ((0, 0, 0, 0), 0, 0),
        ((39, 29, 39, 29), 39, 29),
        ((12, 9, 12, 9), 12, 9),
        ((-90, -80, -10, -5), 0, 0),
        ((500, 400, 600, 700), 39, 29),
        ((20, 10, 5, 4), 20, 10),
    ],
)
def test_an_empty_box_becomes_its_nearest_pixel(box: tuple[int, ...], x: int, y: int):
    crop = crop_faces(ramps(), torch.tensor([box]), 4)[0]
    assert torch.equal(crop[0], torch.full((4, 4), float(x)))
    assert torch.equal(crop[1], torch.full((4, 4), float(y)))


def test_a_box_that_sticks_out_is_cut_to_the_image():
    cut = crop_faces(ramps(), torch.tensor([[-5, 10, 10, 99]]), 12)
    assert torch.equal(cut, crop_faces(ramps(), torch.tensor([[0, 10, 10, HEIGHT]]), 12))


@settings(deadline=None, max_examples=100)
@given(
    box=st.tuples(*[st.integers(-(2**40), 2**40) | st.integers(-60, 60)] * 4),
    size_px=st.integers(1, 40),
)
def test_no_box_can_crash_or_leave_the_frames_range(box: tuple[int, ...], size_px: int):
    crop = crop_faces(ramps(), torch.tensor([box]), size_px)
    assert crop.shape == (1, 3, size_px, size_px)
    assert crop.min() >= 0
    assert crop[:, 0].max() <= WIDTH - 1 + 1e-4  # rounding
    assert crop[:, 1].max() <= HEIGHT - 1 + 1e-4
