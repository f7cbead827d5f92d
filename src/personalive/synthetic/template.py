"""The average head as a lofted mesh with slits for the eyes and the mouth (ours).

Head units: x right, y down, z away from the viewer; eyes at y = 0, crown at y = -1, chin at y = 1, the face
looks towards -z. ``HEAD_UNIT`` turns them into canonical units. Painting and displacement fields are
functions of this template's coordinates, so they stay attached to the surface whatever the shape does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

HEAD_UNIT = 0.55  # canonical units per head unit: a head fills about 60 % of the image height at scale 1
EYE_X, EYE_Z, EYE_R = 0.310, -0.468, 0.200  # eyeball centre (y = 0) and radius
SLIT_EYE = 0.170  # half width of the eye opening
MOUTH_Y, SLIT_MOUTH = 0.62, 0.245
CHIN_STATION, THROAT_STATION = 11.0, 13.0

# station by station from crown to neck: front y, z; side y, half width, z; back y, z
_STATIONS = np.array(
    [
        [-0.985, 0.05, -0.985, 0.00, 0.05, -0.985, 0.05],
        [-0.925, -0.32, -0.925, 0.315, 0.05, -0.925, 0.40],
        [-0.72, -0.60, -0.70, 0.555, 0.05, -0.72, 0.69],
        [-0.42, -0.755, -0.40, 0.690, 0.05, -0.40, 0.84],
        [-0.18, -0.790, -0.18, 0.72, 0.05, -0.16, 0.88],
        [0.00, -0.775, 0.00, 0.715, 0.05, 0.02, 0.86],
        [0.22, -0.785, 0.20, 0.695, 0.05, 0.20, 0.80],
        [0.43, -0.790, 0.38, 0.660, 0.05, 0.37, 0.71],
        [0.62, -0.795, 0.51, 0.625, 0.06, 0.51, 0.62],
        [0.79, -0.770, 0.60, 0.590, 0.06, 0.63, 0.55],
        [0.93, -0.760, 0.67, 0.550, 0.07, 0.73, 0.51],
        [1.00, -0.670, 0.74, 0.500, 0.08, 0.80, 0.49],
        [0.995, -0.42, 0.82, 0.430, 0.12, 0.88, 0.47],
        [1.03, -0.20, 1.00, 0.365, 0.15, 1.02, 0.46],
        [1.25, -0.165, 1.25, 0.350, 0.16, 1.25, 0.47],
        [1.70, -0.150, 1.70, 0.380, 0.17, 1.70, 0.50],
    ]
)


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between; ``low`` may exceed ``high``."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(x: np.ndarray, y: np.ndarray, at: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    """Gaussian bump of height 1."""
    return np.exp(-(((x - at[0]) / size[0]) ** 2) - ((y - at[1]) / size[1]) ** 2)


def _station_values(t: np.ndarray) -> np.ndarray:
    """Catmull-Rom through the stations; t (N,) in [0, 15] to (N, 7)."""
    i = np.clip(t.astype(int), 0, len(_STATIONS) - 2)
    f = (t - i)[:, None]
    padded = np.vstack([2 * _STATIONS[0] - _STATIONS[1], _STATIONS, 2 * _STATIONS[-1] - _STATIONS[-2]])
    a, b, c, d = padded[i], padded[i + 1], padded[i + 2], padded[i + 3]
    return 0.5 * (2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3)


def loft(t: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Smooth head without features: rows t (N,), columns phi (M,) in radians (0 is front) to (N, M, 3)."""
    fy, fz, sy, w, sz, by, bz = (column[:, None] for column in _station_values(np.asarray(t, float)).T)
    cosine, sine = np.cos(phi)[None], np.sin(phi)[None]
    front = cosine > 0
    y = sy + (np.where(front, fy, by) - sy) * cosine**2
    z = sz + (np.where(front, fz, bz) - sz) * np.abs(cosine)
    return np.stack([np.maximum(w, 0.0) * sine + 0 * y, y, z], -1)


def _rows() -> tuple[np.ndarray, int, int]:
    """Station parameters of the mesh rows, and the row numbers of the eye and the mouth line."""
    dense_t = np.linspace(3.0, 11.0, 4001)
    front_y = _station_values(dense_t)[:, 0]
    near_eye = np.array([0.012, 0.028, 0.046, 0.066, 0.088, 0.112, 0.14, 0.17, 0.20])
    near_mouth = np.array([0.01, 0.024, 0.040, 0.058, 0.078, 0.10, 0.125])
    y = np.concatenate(
        [
            np.linspace(-0.40, -0.225, 6),
            -near_eye[::-1],
            [0.0],
            near_eye,
            np.linspace(0.225, 0.475, 12),
            MOUTH_Y - near_mouth[::-1],
            [MOUTH_Y],
            MOUTH_Y + near_mouth,
            np.linspace(0.775, 0.99, 8),
        ]
    )
    t = np.concatenate([np.linspace(0.0, 2.95, 14), np.interp(y, front_y, dense_t), np.linspace(11.2, 15.0, 14)])
    eye = 14 + int(np.flatnonzero(y == 0.0)[0])
    mouth = 14 + int(np.flatnonzero(y == MOUTH_Y)[0])
    return t, eye, mouth


def _columns() -> np.ndarray:
    """Column angles, symmetric, dense over the face; one full turn without the last point."""
    x = np.concatenate([np.linspace(0.0, 0.50, 29), np.linspace(0.53, 0.70, 7)])
    front = np.arcsin(x / 0.72)
    right = np.concatenate([front, np.linspace(front[-1], np.pi, 13)[1:]])
    return np.concatenate([right, -right[1:-1][::-1]])


def _features(p: np.ndarray) -> np.ndarray:
    """Add nose, sockets, cheekbones, lips and chin to the loft; p (..., 3)."""
    x, y = np.abs(p[..., 0]), p[..., 1]
    face = smoothstep(-0.15, -0.45, p[..., 2])
    height = 0.205 * smoothstep(-0.16, 0.36, y) ** 1.25 * smoothstep(0.475, 0.385, y)
    width = 0.062 + 0.04 * smoothstep(0.05, 0.36, y)
    out = height * np.exp(-((x / width) ** 2))
    out += 0.050 * bump(x, y, (0.0, 0.345), (0.085, 0.075))
    out += 0.075 * bump(x, y, (0.115, 0.395), (0.048, 0.05))
    out += 0.03 * bump(x, y, (0.26, -0.17), (0.22, 0.07)) + 0.035 * bump(x, y, (0.44, 0.22), (0.16, 0.13))
    out -= 0.075 * bump(x, y, (EYE_X, 0.0), (0.19, 0.11)) + 0.03 * bump(x, y, (0.13, 0.0), (0.06, 0.09))
    lip = np.sqrt(np.clip(1.0 - (x / 0.25) ** 2, 0.0, 1.0))
    out += lip * (0.055 * bump(0 * x, y, (0, 0.583), (1, 0.034)) + 0.062 * bump(0 * x, y, (0, 0.668), (1, 0.042)))
    out += 0.022 * bump(x, y, (0.0, 0.60), (0.24, 0.12)) - 0.03 * bump(x, y, (0.0, 0.765), (0.16, 0.045))
    out += 0.045 * bump(x, y, (0.0, 0.91), (0.15, 0.09)) - 0.02 * bump(x, y, (0.27, 0.62), (0.05, 0.07))
    q = p.copy()
    q[..., 2] -= out * face
    q[..., 1] += face * 0.03 * bump(x, y, (0.0, 0.41), (0.10, 0.05))
    return q


@dataclass(frozen=True, eq=False)
class Template:
    """The average head.

    Attributes:
        rest: (V, 3) float64 template coordinates.
        triangles: (T, 3) int32.
        side: (V,) +1 on or below the slit of its row, -1 on the upper edge of a slit, 0 elsewhere; only
            slit edges are non-zero.
        weld: (W, 2) int32 vertex pairs that coincide outside the slits and share a normal.
        columns: number of columns (vertex = row * columns + column).
    """

    rest: np.ndarray
    triangles: np.ndarray
    side: np.ndarray
    weld: np.ndarray
    columns: int


@lru_cache(maxsize=1)
def template() -> Template:
    """Build the average head (once)."""
    t, eye, mouth = _rows()
    phi = _columns()
    t = np.insert(t, [eye, mouth], [t[eye], t[mouth]])
    eye_rows, mouth_rows = (eye, eye + 1), (mouth + 1, mouth + 2)
    rest = _features(loft(t, phi)).reshape(-1, 3)
    n, m = len(t), len(phi)
    index = np.arange(n * m).reshape(n, m)
    skip = {eye_rows[0], mouth_rows[0]}
    quads = [(index[r], index[r + 1]) for r in range(n - 1) if r not in skip]
    triangles = []
    for upper, lower in quads:
        right_u, right_l = np.roll(upper, -1), np.roll(lower, -1)
        triangles += [np.stack([upper, right_u, lower], 1), np.stack([right_u, right_l, lower], 1)]
    side = np.zeros((n, m))
    weld = []
    for upper, lower in (eye_rows, mouth_rows):
        side[upper], side[lower] = -1.0, 1.0
        weld.append(np.stack([index[upper], index[lower]], 1))
    return Template(
        rest=rest,
        triangles=np.concatenate(triangles).astype(np.int32),
        side=side.reshape(-1),
        weld=np.concatenate(weld).astype(np.int32),
        columns=m,
    )
