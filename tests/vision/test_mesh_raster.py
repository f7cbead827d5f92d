"""Rasterising: coverage without holes or overlaps, the nearest wins, weights interpolate, layers lift."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.vision.mesh_raster import rasterise, towards_camera

SQUARE = np.array([[0, 0, 0], [8, 0, 0], [8, 8, 0], [0, 8, 0]], np.float32)
TWO = np.array([[0, 1, 2], [0, 2, 3]])


def test_two_triangles_cover_a_square_once():
    found = rasterise(SQUARE, TWO, 8, 8)
    assert sorted(found.pixels.tolist()) == list(range(64))
    np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-5)


def test_weights_interpolate_linearly():
    found = rasterise(SQUARE, TWO, 8, 8)
    x_and_y = found.interpolate(TWO, SQUARE[:, :2])
    np.testing.assert_allclose(x_and_y[:, 0], found.pixels % 8 + 0.5, atol=1e-4)
    np.testing.assert_allclose(x_and_y[:, 1], found.pixels // 8 + 0.5, atol=1e-4)


def test_the_nearest_triangle_wins_unless_another_is_lifted():
    places = np.concatenate([SQUARE, SQUARE + np.array([0, 0, 5])]).astype(np.float32)
    both = np.concatenate([TWO, TWO + 4])
    assert set(rasterise(places, both, 8, 8).triangles.tolist()) == {2, 3}
    assert set(rasterise(places, both[::-1], 8, 8).triangles.tolist()) == {0, 1}
    lifted = rasterise(places, both, 8, 8, lift=np.array([10.0, 10.0, 0.0, 0.0]))
    assert set(lifted.triangles.tolist()) == {0, 1}


@pytest.mark.parametrize("shift", [-100.0, -4.0, 4.0, 100.0])
def test_only_pixels_of_the_image_are_covered(shift: float):
    found = rasterise(SQUARE + np.array([shift, 0, 0], np.float32), TWO, 8, 8)
    assert len(found.pixels) == 8 * max(8 - abs(int(shift)), 0)


def test_triangles_without_area_are_left_out():
    assert len(rasterise(SQUARE, np.array([[0, 0, 1], [0, 1, 1]]), 8, 8).pixels) == 0


def test_sides_are_told_apart():
    assert towards_camera(SQUARE, TWO).tolist() == [False, False]
    assert towards_camera(SQUARE, TWO[:, ::-1]).tolist() == [True, True]
