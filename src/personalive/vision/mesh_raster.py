"""Triangle meshes to pixels: a z-buffer over whole arrays, without a compiled loop.

Every triangle offers the pixel centres of its bounding box; those inside compete by depth. Made for meshes whose
triangles are small: time goes with the area of the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FAR = np.float32(-3e38)


@dataclass(frozen=True, eq=False)
class Raster:
    """Visible triangles of an image; N covered pixels, row by row of the image in no particular order.

    Attributes:
        pixels: (N,) int64 pixel numbers, y · width + x.
        triangles: (N,) int64, the nearest triangle of each.
        weights: (N, 3) float32 barycentric weights of its corners.
    """

    pixels: np.ndarray
    triangles: np.ndarray
    weights: np.ndarray

    def interpolate(self, corners: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values at the covered pixels, (N, D) float32.

        Args:
            corners: (T, 3) the triangles that were rasterised.
            values: (V, D) float32 at the vertices.
        """
        at, weights = np.take(corners, self.triangles, axis=0).T, self.weights.T[..., None]
        found = np.take(values, at[0], axis=0) * weights[0]
        found += np.take(values, at[1], axis=0) * weights[1]
        found += np.take(values, at[2], axis=0) * weights[2]
        return found


def rasterise(
    places: np.ndarray, triangles: np.ndarray, width: int, height: int, lift: np.ndarray | None = None
) -> Raster:
    """Find the nearest triangle of each pixel.

    Args:
        places: (V, 3) x and y in pixels (the centre of the first pixel is 0.5, 0.5), z towards the camera.
        triangles: (T, 3) int64; both sides are drawn, so leave out those that look away.
        width, height: of the image.
        lift: (T,) added to the depth of a triangle: layers that always win.
    """
    a, b, c = (places[triangles[:, k]].astype(np.float32) for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low = np.minimum(np.minimum(a, b), c)[:, :2]
    high = np.maximum(np.maximum(a, b), c)[:, :2]
    size = np.array([width, height])
    first = np.clip(np.ceil(low - 0.5), 0, size).astype(np.int32)
    last = np.clip(np.floor(high - 0.5), -1, size - 1).astype(np.int32)
    span = np.maximum(last - first + 1, 0)
    count = span[:, 0] * span[:, 1]
    count[np.abs(area) < 1e-9] = 0
    of = np.repeat(np.arange(len(triangles), dtype=np.int32), count)
    number = np.arange(len(of), dtype=np.int32) - np.repeat(np.cumsum(count, dtype=np.int32) - count, count)
    across = np.repeat(span[:, 0], count)
    row = number // across
    column = number - row * across
    column += np.repeat(first[:, 0], count)
    row += np.repeat(first[:, 1], count)
    planes = np.repeat(_planes(a, b, c, area), count, axis=1)
    x, y = column.astype(np.float32) + np.float32(0.5), row.astype(np.float32) + np.float32(0.5)
    second = planes[0] * x + planes[1] * y + planes[2]
    third = planes[3] * x + planes[4] * y + planes[5]
    inside = np.flatnonzero((second >= -1e-4) & (third >= -1e-4) & (second + third <= 1.0001))
    of, second, third = of.take(inside), second.take(inside), third.take(inside)
    pixel = row.take(inside).astype(np.int64) * width + column.take(inside)
    depths = np.stack([a[:, 2], b[:, 2] - a[:, 2], c[:, 2] - a[:, 2]])
    depth = depths[0].take(of) + second * depths[1].take(of) + third * depths[2].take(of)
    if lift is not None:
        depth += lift.astype(np.float32).take(of)
    nearest = np.full(width * height, _FAR, np.float32)
    np.maximum.at(nearest, pixel, depth)
    wins = np.flatnonzero(depth == nearest[pixel])
    winner = np.full(width * height, -1, np.int64)
    winner[pixel[wins]] = wins  # of equals, the last
    wins = winner[winner >= 0]
    weights = np.stack([1 - second[wins] - third[wins], second[wins], third[wins]], axis=1)
    return Raster(pixel[wins], of[wins], weights)


def _planes(a: np.ndarray, b: np.ndarray, c: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Weights of the second and third corner as p0 x + p1 y + p2 and p3 x + p4 y + p5, (6, T) float32."""
    inverse = 1 / np.where(np.abs(area) < 1e-9, 1, area)
    bx, by = (c[:, 1] - a[:, 1]) * inverse, -(c[:, 0] - a[:, 0]) * inverse
    cx, cy = -(b[:, 1] - a[:, 1]) * inverse, (b[:, 0] - a[:, 0]) * inverse
    bc, cc = (-(px * a[:, 0] + py * a[:, 1]) for px, py in ((bx, by), (cx, cy)))
    return np.stack([bx, by, bc, cx, cy, cc])


def towards_camera(places: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(T,) bool, triangles whose outside is seen; corners run anticlockwise where y is up, so clockwise here."""
    a, b, c = (places[triangles[:, k], :2] for k in range(3))
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) < 0
