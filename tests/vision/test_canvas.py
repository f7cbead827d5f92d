"""Canvas and face box against the recorded ones, and at the image's edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from personalive.config import CanvasConfig
from personalive.vision.canvas import draw_canvas, face_box
from support import golden

CONFIG = CanvasConfig()
DISC_PIXELS = 49  # whole points within distance 4 of a whole point
quick = settings(deadline=None, max_examples=50)


def keypoints_at(*pixels: tuple[float, float], size_px: int) -> Tensor:
    """(1, 21, 3) with the seven drawn points at these pixels (the last one repeated)."""
    keypoints = torch.zeros(1, 21, 3)
    wanted = [*pixels, *[pixels[-1]] * (len(CONFIG.points) - len(pixels))]
    for point, pixel in zip(CONFIG.points, wanted, strict=True):
        keypoints[0, point, :2] = 2 * torch.tensor(pixel) / size_px - 1
    return keypoints


@st.composite
def any_keypoints(draw) -> Tensor:
    """Seeded noise around any centre, small or large, in the image or far outside."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    centre = torch.tensor([draw(st.floats(-3, 3)), draw(st.floats(-3, 3)), 0.0])
    return centre + draw(st.floats(0, 3)) * torch.randn(2, 21, 3, generator=generator)


def test_canvas_equals_the_recorded_one():
    recorded = golden.load("keypoint_canvas")
    canvas = draw_canvas(recorded["keypoints"], 256)
    assert canvas.dtype == torch.float32
    assert torch.equal((canvas * 255).round().to(torch.uint8), recorded["canvas_256"])


@pytest.mark.parametrize("size_px", [256, 512])
def test_boxes_equal_the_recorded_ones(size_px: int):
    recorded = golden.load("keypoint_canvas")
    boxes = face_box(recorded["boxes_keypoints"], size_px)
    assert torch.equal(boxes, recorded[f"boxes_{size_px}"])


def test_each_point_has_its_colour_and_a_whole_disc():
    places = [(16 + 32 * (i % 4), 16 + 32 * (i // 4)) for i in range(7)]
    canvas = draw_canvas(keypoints_at(*places, size_px=128), 128)[0]
    for (x, y), colour in zip(places, CONFIG.colours, strict=True):
        assert (canvas[:, y, x] * 255).round().tolist() == list(colour)
        assert canvas[:, y, x + 4].any()
        assert not canvas[:, y, x + 5].any()
    assert int(canvas.any(dim=0).sum()) == 7 * DISC_PIXELS


def test_overlaps_add_and_clamp():
    canvas = draw_canvas(keypoints_at((32, 32), size_px=64), 64)[0]
    assert canvas[:, 32, 32].tolist() == [1, 1, 1]
    red_and_pink = keypoints_at((32, 32), *[(200, 200)] * 5, (32, 32), size_px=64)
    blended = draw_canvas(red_and_pink, 64)[0, :, 32, 32]
    torch.testing.assert_close(blended, torch.tensor([1.0, 0.0, 85 / 255]))


def test_discs_are_cut_at_the_edge_and_do_not_wrap():
    canvas = draw_canvas(keypoints_at((0, 30), *[(200, 200)] * 6, size_px=64), 64)[0, 0]
    assert int((canvas > 0).sum()) == 29  # 9 + 2 * (4 + 3 + 3) half disc, its middle column included
    assert not canvas[:, 5:].any()


def test_frames_do_not_draw_on_each_other():
    keypoints = golden.load("keypoint_canvas")["keypoints"]
    assert torch.equal(draw_canvas(keypoints, 96)[3], draw_canvas(keypoints[3:4], 96)[0])


@quick
@given(keypoints=any_keypoints(), size_px=st.integers(8, 96))
def test_any_keypoints_give_a_canvas_in_range_and_a_box_inside_the_image(keypoints: Tensor, size_px: int):
    canvas = draw_canvas(keypoints, size_px)
    assert canvas.shape == (2, 3, size_px, size_px)
    assert 0 <= canvas.min() <= canvas.max() <= 1
    boxes = face_box(keypoints, size_px)
    assert boxes.dtype == torch.int64
    assert boxes.min() >= 0
    assert boxes.max() <= size_px - 1
    assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_box_is_measured_from_the_centre_to_the_topmost_point():
    # centre (50, 50), topmost point 10 above it: half side 17, 0.95 of it before and 1.05 behind
    points = keypoints_at((50, 40), (50, 60), (50, 50), size_px=100)
    assert face_box(points + 1e-4, 100).tolist() == [[33, 33, 67, 67]]
