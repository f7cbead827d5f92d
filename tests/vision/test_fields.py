"""Fields against what slicing gives, and against images that are looked up twice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from personalive.vision.warps import add_flow, enlarged, places, sample, shift_of

CPU = torch.device("cpu")
SIDE_PX = 16
COARSE = 4
sides = st.sampled_from((8, 16, 32))
pixels = st.integers(-5, 5)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shifted(side: int, x_px: float, y_px: float) -> Tensor:
    """The field that looks so many pixels to the right and down."""
    return places(side, CPU) + torch.tensor([x_px, y_px]) * 2 / side


def wave(side: int) -> Tensor:
    """(1, 2, side, side) in -1..1: smooth, and another in x than in y."""
    x, y = places(side, CPU)[0].unbind(dim=-1)
    return torch.stack([torch.sin(2 * x + y), torch.cos(x - 2 * y + 0.5)])[None]


def inner(image: Tensor, margin: int) -> Tensor:
    return image[..., margin:-margin, margin:-margin]


# --- looking up ---------------------------------------------------------------------------------------------


def test_places_are_pixel_centres_x_before_y():
    found = places(4, CPU)
    line = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    assert found.shape == (1, 4, 4, 2)
    torch.testing.assert_close(found[0, 2], torch.stack([line, torch.full((4,), 0.25)], dim=-1))


@given(side=st.integers(1, 40), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_places_change_nothing(side: int, seed: int):
    images = noise(2, 3, side, side, seed=seed)
    field = places(side, CPU).expand(2, -1, -1, -1)
    torch.testing.assert_close(sample(images, field), images, atol=1e-4, rtol=0)


@given(side=sides, x=pixels, y=pixels)
@settings(deadline=None, max_examples=30)
def test_whole_pixels_are_what_slicing_finds_and_edges_are_repeated(side: int, x: int, y: int):
    image = noise(1, 3, side, side)
    line = torch.arange(side)
    expected = image[:, :, (line + y).clamp(0, side - 1)][..., (line + x).clamp(0, side - 1)]
    torch.testing.assert_close(sample(image, shifted(side, x, y)), expected, atol=1e-5, rtol=0)


def test_half_way_between_pixels_lies_their_mean():
    image = noise(1, 1, SIDE_PX, SIDE_PX)
    expected = (image[..., 1:] + image[..., :-1]) / 2
    torch.testing.assert_close(sample(image, shifted(SIDE_PX, 0.5, 0))[..., :-1], expected, atol=1e-5, rtol=0)


def test_half_precision_images_keep_their_kind_and_lose_no_place():
    side = 512  # between 0.5 and 1 a bfloat16 is exact to a whole pixel of this side
    image = noise(1, 1, side, side).bfloat16()
    found = sample(image, shifted(side, 3, -2))
    assert found.dtype is torch.bfloat16
    assert torch.equal(found[:, :, 2:, :-3], image[:, :, :-2, 3:])
    between = shifted(side, 0.37, 0.81)
    assert torch.equal(sample(image, between), sample(image.float(), between).bfloat16())


def test_every_image_has_its_own_field():
    images = noise(2, 3, SIDE_PX, SIDE_PX)
    fields = [shifted(SIDE_PX, 2, 1), shifted(SIDE_PX, -3, 0)]
    alone = [sample(images[[i]], field) for i, field in enumerate(fields)]
    assert torch.equal(sample(images, torch.cat(fields)), torch.cat(alone))


# --- shifts -------------------------------------------------------------------------------------------------


@given(side=sides, x=pixels, y=pixels, coarse=st.sampled_from((1, 2, 4, 8)))
@settings(deadline=None, max_examples=30)
def test_the_shift_of_a_field_is_in_half_sides(side: int, x: int, y: int, coarse: int):
    found = shift_of(shifted(side, x, y), coarse)
    expected = torch.tensor([2 * x / side, 2 * y / side])[None, :, None, None].expand(1, 2, coarse, coarse)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_shift_of_a_cell_is_the_mean_of_its_pixels():
    shift = noise(1, SIDE_PX, SIDE_PX, 2)
    found = shift_of(places(SIDE_PX, CPU) + shift, COARSE)
    torch.testing.assert_close(found[0, :, 1, 2], shift[0, 4:8, 8:12].mean(dim=(0, 1)), atol=1e-6, rtol=0)


@given(side=sides, other=st.sampled_from((4, 16, 64)), x=pixels, y=pixels)
@settings(deadline=None, max_examples=30)
def test_a_constant_shift_is_the_same_at_every_side(side: int, other: int, x: int, y: int):
    shift = torch.tensor([2 * x / side, 2 * y / side])
    found = enlarged(shifted(side, x, y), other)
    torch.testing.assert_close(found, places(other, CPU) + shift, atol=1e-6, rtol=0)


def test_an_enlarged_field_moves_an_enlarged_image_likewise():
    small, large = (0.1 * wave(side).permute(0, 2, 3, 1) + places(side, CPU) for side in (32, 64))
    assert (enlarged(small, 64) - large).abs()[:, 2:-2, 2:-2].max() * 32 < 0.05  # pixels of the large side
    torch.testing.assert_close(enlarged(small, 32), small, atol=1e-6, rtol=0)


# --- corrections --------------------------------------------------------------------------------------------


@given(x=pixels, y=pixels, coarse=st.sampled_from((2, 4, 16)))
@settings(deadline=None, max_examples=30)
def test_a_constant_flow_is_added_to_places_away_from_borders(x: int, y: int, coarse: int):
    flow = torch.tensor([2 * x / SIDE_PX, 2 * y / SIDE_PX])[None, :, None, None].expand(1, 2, coarse, coarse)
    found = add_flow(places(SIDE_PX, CPU), flow)
    assert found.shape == (1, SIDE_PX, SIDE_PX, 2)
    torch.testing.assert_close(found[:, 5:-5, 5:-5], shifted(SIDE_PX, x, y)[:, 5:-5, 5:-5], atol=1e-6, rtol=0)


def test_a_flow_out_of_the_image_finds_its_edge():
    flow = torch.tensor([3.0, 0.0])[None, :, None, None].expand(1, 2, COARSE, COARSE)
    found = add_flow(places(SIDE_PX, CPU), flow)
    assert (found[..., 0] - (1 - 1 / SIDE_PX)).abs().max() < 1e-6
    torch.testing.assert_close(found[..., 1], places(SIDE_PX, CPU)[..., 1], atol=1e-6, rtol=0)


def test_no_flow_leaves_any_field_as_it_is():
    field = places(SIDE_PX, CPU) + 0.1 * noise(2, SIDE_PX, SIDE_PX, 2)
    torch.testing.assert_close(add_flow(field, torch.zeros(2, 2, COARSE, COARSE)), field, atol=1e-5, rtol=0)


def test_a_corrected_field_looks_the_flow_up_in_the_image_that_the_field_makes():
    side, margin = 64, 12
    image = torch.sin(3 * wave(side))
    field = places(side, CPU) + 0.15 * wave(side).permute(0, 2, 3, 1)
    flow = 0.12 * wave(side // 8).flip(1)
    fine = F.interpolate(flow, size=(side, side), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    expected = sample(sample(image, field), places(side, CPU) + fine)
    found = sample(image, add_flow(field, flow))
    error = inner(found - expected, margin).abs().max()
    added = sample(image, field + fine)  # what adding both up would give
    assert error < 0.02  # of -1..1: interpolated twice, once as pixels and once as places
    assert inner(added - expected, margin).abs().max() > 10 * error
