"""Everything of a portrait that is not the face: hair, ears, neck and shoulders as a lattice with depth.

Nodes that the face model covers hang on its triangles; the others continue its depth. So face and surroundings move
alike where they meet, and no contour is seen twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.vision.face_fit import Fit
from personalive.vision.face_model import SKIN, FaceModel
from personalive.vision.mesh_raster import rasterise, towards_camera

_NODES = 60  # per side
_MARGIN = 0.2  # of the image's side, on each side
_NECK = (-13.0, -8.0)  # model units: shoulders below stay, above the head turns
_HAIR = (1.5, 9.0)  # model units outside the skull that go wholly with the head, and where nothing does any more
_EXPRESSION_REACH = 1.5  # model units outside the face at which an expression has faded to 1/e
_BODY_FOLLOW = 0.6  # share of the head's shift that the shoulders take
_RELAXATIONS = 12
_FIELD_SIDE = 144  # side at which the lattice is drawn: its field is smooth


@dataclass(frozen=True, eq=False)
class Surround:
    """Lattice of one portrait; L nodes.

    Attributes:
        places: (L, 3) float32 pixels and depth in the portrait.
        head: (L,) share of the head's movement.
        body: (L,) share of its shift that the rest takes.
        corners: (L, 3) int64 vertices whose expression a node takes, with ``weights`` (L, 3).
        triangles: (M, 3) int64.
    """

    places: np.ndarray
    head: np.ndarray
    body: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray

    def moved(self, rigid: np.ndarray, strain: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
        """Nodes in another frame, (L, 3).

        Args:
            rigid: (L, 3) the nodes as the head moves.
            strain: (V, 3) what the expression adds to each vertex, in pixels.
            shift_px: (2,) of the head.
        """
        stretched = (strain[self.corners] * self.weights[..., None]).sum(1)
        side = _NODES
        stretched = cv2.blur(stretched.reshape(side, side, 3), (3, 3)).reshape(-1, 3)
        target = self.places + self.head[:, None] * (rigid + stretched - self.places)
        target[:, :2] += (self.body * (1 - self.head))[:, None] * shift_px
        return target


def build_surround(model: FaceModel, fit: Fit, size_px: int, *, layered: bool) -> Surround:
    """Lattice over a square portrait.

    Args:
        layered: the person is cut out by a mask, so all around the head may move with it; else the movement fades.
    """
    step = size_px * (1 + 2 * _MARGIN) / (_NODES - 1)
    line = np.arange(_NODES) * step - _MARGIN * size_px
    x, y = (axis.ravel() for axis in np.meshgrid(line, line))
    placed = fit.pose.place(fit.shape)
    triangles = model.triangles[towards_camera(placed, model.triangles)]
    triangles = triangles[(model.part[triangles] == SKIN).all(1)]
    scaled = placed.copy()
    scaled[:, :2] = (placed[:, :2] + _MARGIN * size_px) / step + 0.5
    found = rasterise(scaled, triangles, _NODES, _NODES)
    free = np.ones(_NODES * _NODES, np.uint8)
    free[found.pixels] = 0
    away, nearest = _nearest_covered(free.reshape(_NODES, _NODES), found.pixels)
    away_units = away * step / fit.pose.scale_px
    corners = np.zeros((len(free), 3), np.int64)
    weights = np.zeros((len(free), 3), np.float32)
    corners[found.pixels], weights[found.pixels] = triangles[found.triangles], found.weights
    corners, weights = corners[nearest], weights[nearest]
    height = (fit.shape[corners, 1] * weights).sum(1)
    depth = (placed[corners, 2] * weights).sum(1)
    oval = np.where(free > 0, 0, (model.oval[corners] * weights).sum(1))
    depth = _relaxed(depth, oval > 0.0)
    head = _ramp(height, *_NECK)
    if not layered:
        head = head * (1 - _ramp(away_units, *_HAIR))
    low = np.clip((size_px - y) / (0.25 * size_px), 0, 1)  # the last row stays: there is nothing below it
    head = cv2.GaussianBlur(head.reshape(_NODES, _NODES).astype(np.float32), (0, 0), 1.0).ravel()
    return Surround(
        places=np.stack([x, y, depth], 1).astype(np.float32),
        head=head,
        body=(_BODY_FOLLOW * low * (1.0 if layered else np.exp(-away_units / 8))).astype(np.float32),
        corners=corners,
        weights=weights * np.exp(-away_units / _EXPRESSION_REACH)[:, None].astype(np.float32),
        triangles=_lattice_triangles(),
    )


def _relaxed(depth: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Depth (L,) without steps outside the nodes held: skin at the jaw's edge stretches instead of tearing."""
    image, keep = depth.reshape(_NODES, _NODES).astype(np.float32), held.reshape(_NODES, _NODES)
    smooth = image
    for _ in range(_RELAXATIONS):
        smooth = np.where(keep, image, cv2.GaussianBlur(smooth, (0, 0), 1.0))
    return smooth.ravel()


def _nearest_covered(free: np.ndarray, covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in nodes and number of the nearest covered node, (L,) each."""
    away, found = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = np.asarray(found, np.int64).ravel()
    by_label = np.zeros(int(labels.max()) + 1, np.int64)
    by_label[labels[covered]] = covered
    return away.ravel(), by_label[labels]


def _lattice_triangles() -> np.ndarray:
    a = (np.arange(_NODES - 1)[:, None] * _NODES + np.arange(_NODES - 1)).ravel()
    b, c, d = a + 1, a + _NODES, a + _NODES + 1
    return np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])


def _ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def surround_field(surround: Surround, nodes: np.ndarray, size_px: int, portrait_px: int) -> np.ndarray:
    """Place in the portrait of every pixel, (size, size, 2) float32 in pixels of the portrait.

    Args:
        nodes: (L, 3) moved nodes in pixels of the portrait.
        size_px, portrait_px: side of the result and of the portrait.
    """
    side = min(size_px, _FIELD_SIDE)
    scaled = nodes * np.float32(side / portrait_px)
    found = rasterise(scaled, surround.triangles, side, side)
    centres = (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(portrait_px / side)
    identity = np.stack(np.meshgrid(centres, centres), -1)
    shift = np.zeros((side * side, 2), np.float32)
    shift[found.pixels] = found.interpolate(surround.triangles, surround.places[:, :2])
    shift[found.pixels] -= identity.reshape(-1, 2)[found.pixels]
    shift = cv2.resize(shift.reshape(side, side, 2), (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    centres = (np.arange(size_px, dtype=np.float32) + np.float32(0.5)) * np.float32(portrait_px / size_px)
    return shift + np.stack(np.meshgrid(centres, centres), -1)
