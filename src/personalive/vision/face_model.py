"""Reduced morphable face: vertices, displacement fields, parts and the rims of lids and lips.

The asset comes from ICT-FaceKit (MIT, notice beside it) by ``scripts/reduce_face.py``. Model units: the head is about
20 high, y points up, z to the camera. Letters: V vertices, T triangles, I identities, E expressions, P pins (vertices
with a place among MediaPipe's 478 landmarks).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

SKIN, MOUTH, GUM, TOOTH, EYE = range(5)
PIVOT = np.array([0.0, -4.0, -3.0], np.float32)  # joint of head and neck, about which the head turns
LANDMARKS = 478  # MediaPipe's, iris points last
IRIS_RIGHT, IRIS_LEFT = 468, 473  # iris centres among them; four rim points follow each
SIDES = ("right", "left")  # the person's own; right lies left in a frontal image

_ASSET = Path(str(resources.files("personalive"))) / "assets" / "face" / "face.npz"


@dataclass(frozen=True, eq=False)
class FaceModel:
    """Arrays of the morphable face; float32 unless said otherwise.

    Attributes:
        neutral: (V, 3).
        triangles: (T, 3) int64; the skin's inside of the lids is left out, so the eyes are holes.
        part: (V,) uint8, ``SKIN`` to ``EYE``.
        triangle_part: (T,) uint8; the inside of the lips counts as mouth.
        oval: (V,) 1 well inside the oval of the face, 0 at its rim and beyond.
        identities: (I, V, 3), one standard deviation each.
        expressions: (E, V, 3), ARKit's, at full strength.
        expression_names: E names, as ``jawOpen`` or ``eyeBlink_L``.
        eyeballs: (2, 4) centre and radius, right and left.
        pins: (P,) int64 vertices.
        pin_landmarks: (P, 2) int64 and ``pin_weights`` (P,): the place of a pin is (1 - w) a + w b.
        rims: vertices in order, from the outer corner, as ``lid_upper_right``.
        upper_jaw: vertices of the teeth and gums that do not go with the jaw.
        source: (V,) int64, whose texture a vertex takes: its own, or the rim's inside lips.
    """

    neutral: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    triangle_part: np.ndarray
    oval: np.ndarray
    identities: np.ndarray
    expressions: np.ndarray
    expression_names: tuple[str, ...]
    eyeballs: np.ndarray
    pins: np.ndarray
    pin_landmarks: np.ndarray
    pin_weights: np.ndarray
    rims: dict[str, np.ndarray]
    upper_jaw: np.ndarray
    source: np.ndarray

    def index(self, name: str) -> int:
        """Number of an expression.

        Raises:
            ValueError: no such expression.
        """
        return self.expression_names.index(name)

    def pin_places(self, landmarks: np.ndarray) -> np.ndarray:
        """Places of the pins, (P, D), among landmarks (478, D)."""
        a, b = landmarks[self.pin_landmarks[:, 0]], landmarks[self.pin_landmarks[:, 1]]
        return a + self.pin_weights[:, None] * (b - a)


@lru_cache(maxsize=1)
def face_model() -> FaceModel:
    """The model, loaded once; 30 ms."""
    with np.load(_ASSET, allow_pickle=False) as stored:
        z = {name: stored[name] for name in stored.files}
    neutral, part = z["neutral"].astype(np.float32), z["part"]
    rims = {name[4:]: z[name].astype(np.int64) for name in z if name.startswith("rim_")}
    triangles = z["triangles"].astype(np.int64)
    hidden = _behind(triangles, _ring(rims, "lid"), _hole_rims(triangles, part, neutral))
    triangles = triangles[~np.isin(triangles, hidden).any(axis=1)]
    inner = _ring(rims, "lip_inner")
    inside = np.union1d(_behind(triangles, inner, np.flatnonzero(part == MOUTH)), np.flatnonzero(part == MOUTH))
    source = np.arange(len(neutral))
    source[inside] = inner[np.linalg.norm(neutral[inside, None] - neutral[None, inner], axis=2).argmin(1)]
    within = source != np.arange(len(source))
    names = tuple(str(name) for name in z["expression_names"])
    jaw = np.linalg.norm(z["expressions"][names.index("jawOpen")].astype(np.float32), axis=1)
    return FaceModel(
        neutral=neutral,
        triangles=triangles,
        part=part,
        triangle_part=np.where(within[triangles].any(axis=1), MOUTH, part[triangles].max(axis=1)).astype(np.uint8),
        oval=z["oval"].astype(np.float32) / 255,
        identities=z["identities"].astype(np.float32),
        expressions=z["expressions"].astype(np.float32),
        expression_names=names,
        eyeballs=z["eyeballs"],
        pins=z["landmark_vertices"].astype(np.int64),
        pin_landmarks=z["landmark_pairs"].astype(np.int64),
        pin_weights=z["landmark_weights"],
        rims=rims,
        upper_jaw=np.flatnonzero(((part == TOOTH) | (part == GUM)) & (jaw < 0.1)),
        source=source,
    )


def _ring(rims: dict[str, np.ndarray], start: str) -> np.ndarray:
    return np.unique(np.concatenate([rim for name, rim in rims.items() if name.startswith(start)]))


def _hole_rims(triangles: np.ndarray, part: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Skin vertices on the border of the eyes' holes."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    single, count = np.unique(edges, axis=0, return_counts=True)
    border = np.unique(single[count == 1])
    x, y, z = neutral[border].T
    return border[(part[border] == SKIN) & (z > 7) & (np.abs(y - 3.5) < 1.2) & (np.abs(x) < 5)]


def _behind(triangles: np.ndarray, rim: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Vertices reached from ``start`` over edges without crossing a rim; the rim itself is left out."""
    reached = np.zeros(int(triangles.max()) + 1, bool)
    blocked = reached.copy()
    blocked[rim] = True
    reached[start] = True
    reached &= ~blocked
    while True:
        touched = triangles[reached[triangles].any(axis=1)]
        grown = reached.copy()
        grown[touched.ravel()] = True
        grown &= ~blocked
        if (grown == reached).all():
            return np.flatnonzero(reached)
        reached = grown
