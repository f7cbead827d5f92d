"""Meshes that complete the head: eyeballs, teeth, tongue, ears, glasses and torso (ours, head units)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personalive.synthetic.identity import Identity
from personalive.synthetic.template import smoothstep

HEAD, EAR, EYE, TEETH, TONGUE, HAIR, TORSO, GLASSES = range(1, 9)


@dataclass(frozen=True, eq=False)
class Part:
    """One mesh.

    Attributes:
        kind: part number, one of the constants of this module.
        points: (V, 3) neutral position in head units.
        rest: (V, 3) coordinates for painting; their meaning depends on the kind.
        triangles: (T, 3) int.
        occlusion: (V,) share of light that reaches the point, 0..1.
        cut: (V,) the surface exists where this is positive.
        body: (V,) 0 moves with the head, 1 with the shoulders.
        jaw: (V,) share of the jaw's rotation.
    """

    kind: int
    points: np.ndarray
    rest: np.ndarray
    triangles: np.ndarray
    occlusion: np.ndarray
    cut: np.ndarray
    body: np.ndarray
    jaw: np.ndarray


def make_part(
    kind: int,
    points: np.ndarray,
    rest: np.ndarray,
    triangles: np.ndarray,
    occlusion: np.ndarray | float = 1.0,
    cut: np.ndarray | float = 1.0,
    body: np.ndarray | float = 0.0,
    jaw: np.ndarray | float = 0.0,
) -> Part:
    """A part with per-vertex scalars broadcast to all its points."""
    one = np.ones(points.size // 3)
    return Part(
        kind,
        points.reshape(-1, 3),
        rest.reshape(-1, 3),
        triangles,
        one * occlusion,
        one * cut,
        one * body,
        one * jaw,
    )


def grid_triangles(rows: int, columns: int, wrap: bool = False) -> np.ndarray:
    """Triangles (T, 3) of a row-major grid; ``wrap`` joins the last column to the first."""
    index = np.arange(rows * columns).reshape(rows, columns)
    if wrap:
        index = np.concatenate([index, index[:, :1]], 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    upper = np.stack([a, b, c], -1).reshape(-1, 3)
    return np.concatenate([upper, np.stack([b, d, c], -1).reshape(-1, 3)]).astype(np.int32)


def eyeball(centre: np.ndarray, radius: float) -> Part:
    """Front of an eyeball; rest is the unit direction from its centre."""
    polar = np.linspace(0.0, 1.45, 12)[:, None]
    turn = np.linspace(0, 2 * np.pi, 25)[None, :-1]
    unit = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), -np.cos(polar) + 0 * turn], -1)
    return make_part(EYE, centre + radius * unit, unit, grid_triangles(12, 24, wrap=True))


def teeth(width: float) -> list[Part]:
    """Upper and lower row; rest is (across in -1..1, down in 0..1, 0 upper or 1 lower)."""
    across = np.linspace(-1, 1, 21)[None]
    parts = []
    for lower, (top, bottom, half, z0) in enumerate([(0.555, 0.668, 0.225, -0.775), (0.625, 0.715, 0.20, -0.755)]):
        down = np.linspace(0, 1, 4)[:, None]
        x = width * half * across + 0 * down
        y = top + (bottom - top) * down - (0.012 if lower == 0 else -0.004) * across**2
        z = z0 + 0.10 * across**2 + 0.05 * across**4 + 0 * down
        rest = np.stack([across + 0 * down, down + 0 * across, 0 * x + lower], -1)
        parts.append(make_part(TEETH, np.stack([x, y, z], -1), rest, grid_triangles(4, 21), jaw=float(lower)))
    return parts


def tongue() -> Part:
    """A flat ellipsoid that moves with the jaw."""
    polar = np.linspace(0.0, np.pi, 9)[:, None]
    turn = np.linspace(0, 2 * np.pi, 17)[None, :-1]
    unit = np.stack([np.sin(polar) * np.sin(turn), np.cos(polar) + 0 * turn, -np.sin(polar) * np.cos(turn)], -1)
    points = np.array([0.0, 0.725, -0.54]) + np.array([0.145, 0.045, 0.175]) * unit
    return make_part(TONGUE, points, unit, grid_triangles(9, 16, wrap=True), jaw=0.92)


def ears(who: Identity, half_width: float) -> list[Part]:
    """Both ears; rest is (backward in -1..1, down in -1..1, profile radius)."""
    radius = np.array([0.0, 0.3, 0.52, 0.70, 0.85, 0.96, 1.0, 0.97, 0.80, 0.5])[:, None]
    out = np.array([-0.035, -0.035, -0.02, 0.0, 0.022, 0.028, 0.012, -0.02, -0.06, -0.09])[:, None]
    profile = np.array([0.0, 0.3, 0.52, 0.70, 0.85, 0.96, 1.0, 1.05, 1.1, 1.2])[:, None]
    turn = np.linspace(0, 2 * np.pi, 23)[None, :-1]
    back, down = radius * np.cos(turn), radius * np.sin(turn)
    size = 1.0 + 0.18 * who.ear_size
    lift = (0.10 + 0.045 * who.ear_flare) * (0.5 + 0.5 * back) + out
    narrow = 1.0 - 0.28 * np.clip(down, 0, 1) + 0.06 * np.clip(-down, 0, 1)
    z = 0.11 + 0.12 * size * back * narrow + 0.02 * down
    y = 0.12 + 0.215 * size * down
    rest = np.stack([back, down, profile + 0 * turn], -1)
    shade = 0.60 + 0.40 * smoothstep(0.25, 0.75, radius) * np.ones_like(turn)
    parts = []
    for sign in (1.0, -1.0):
        points = np.stack([sign * (half_width - 0.035 + lift), y, z], -1)
        parts.append(make_part(EAR, points, rest, grid_triangles(10, 22, wrap=True), occlusion=shade.reshape(-1)))
    return parts


def _tube(path: np.ndarray, radius: float, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        ahead[0], ahead[-1] = path[1] - path[0], path[-1] - path[-2]
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    first = np.cross(ahead, np.array([0.13, 0.21, 0.97]))
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(ahead, first)
    turn = np.linspace(0, 2 * np.pi, 7)[:-1]
    ring = np.cos(turn)[None, :, None] * first[:, None] + np.sin(turn)[None, :, None] * second[:, None]
    points = path[:, None] + radius * ring
    triangles = grid_triangles(len(path), 6, wrap=True)
    if closed:
        joined = grid_triangles(len(path) + 1, 6, wrap=True)
        triangles = joined % (len(path) * 6)
    return points.reshape(-1, 3), triangles


def glasses(who: Identity, eye: np.ndarray, half_width: float) -> list[Part]:
    """Two rims, a bridge and two temples; ``eye`` is the centre of the left eyeball."""
    turn = np.linspace(0, 2 * np.pi, 41)[:-1]
    power = 0.55 + 0.45 * who.glasses_round
    cx, z = float(eye[0]) + 0.012, -0.885 - 0.04 * max(who.nose_bridge, 0.0)
    rim_x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power * 0.235
    rim_y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power * 0.185 + 0.025
    paths: list[tuple[np.ndarray, bool]] = []
    for sign in (1.0, -1.0):
        paths.append(
            (
                np.stack([sign * (cx + rim_x), rim_y, z + 0.45 * np.maximum(cx + rim_x - 0.25, 0) ** 2], -1),
                True,
            )
        )
        hinge = np.array([sign * (cx + 0.222), -0.05, z + 0.05])
        ear = np.array([sign * (half_width + 0.015), -0.04, 0.12])
        along = np.linspace(0.0, 1.0, 7)[:, None]
        bulge = np.array([sign * 0.03, 0.0, 0.0]) * np.sin(np.pi * along)
        paths.append((hinge + (ear - hinge) * along + bulge, False))
    gap = max(cx - 0.235, 0.03)
    s = np.linspace(-1, 1, 9)
    paths.append((np.stack([s * gap, -0.02 - 0.03 * (1 - s**2), z - 0.03 * (1 - s**2)], -1), False))
    parts = []
    for path, closed in paths:
        points, triangles = _tube(path, 0.016, closed)
        parts.append(make_part(GLASSES, points, points, triangles))
    return parts


_TORSO = np.array(  # y, half width, front z, back z, extra y in front
    [
        [1.08, 0.31, -0.08, 0.44, 0.00],
        [1.16, 0.39, -0.16, 0.50, 0.03],
        [1.22, 0.47, -0.22, 0.54, 0.08],
        [1.28, 0.60, -0.26, 0.57, 0.14],
        [1.34, 0.78, -0.30, 0.58, 0.18],
        [1.41, 0.97, -0.33, 0.58, 0.20],
        [1.51, 1.14, -0.36, 0.57, 0.20],
        [1.66, 1.27, -0.40, 0.56, 0.18],
        [1.90, 1.35, -0.45, 0.56, 0.14],
        [2.30, 1.40, -0.50, 0.58, 0.05],
        [2.90, 1.42, -0.52, 0.60, 0.00],
    ]
)


def torso(who: Identity) -> Part:
    """Neck base, shoulders and chest; rest is the average torso's position."""
    fine = np.linspace(0, len(_TORSO) - 1, 26)
    y, w, front, back, drop = (np.interp(fine, np.arange(len(_TORSO)), column)[:, None] for column in _TORSO.T)
    phi = np.linspace(-np.pi, np.pi, 57)[None, :-1]
    c, s = np.cos(phi), np.sin(phi)
    z = 0.15 + (np.where(c > 0, front, back) - 0.15) * np.abs(c) ** 0.8
    rest = np.stack([w * np.sign(s) * np.abs(s) ** 0.85, y + drop * np.maximum(c, 0), z], -1)
    scale = np.array([1.0 + 0.09 * who.shoulders, 1.0, 1.0])
    near_neck = smoothstep(0.30, 0.62, np.hypot(rest[..., 0], 0.8 * (rest[..., 1] - 1.08)))
    occlusion = 0.55 + 0.45 * near_neck
    return make_part(
        TORSO,
        rest * scale,
        rest,
        grid_triangles(26, 56, wrap=True),
        occlusion=occlusion.reshape(-1),
        body=1.0,
    )
