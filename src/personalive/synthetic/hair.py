"""Hair: a shell over the skull, shaped by a style (ours, head units)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personalive.synthetic.fields import identity_offset
from personalive.synthetic.identity import Identity
from personalive.synthetic.parts import HAIR, Part, grid_triangles, make_part
from personalive.synthetic.template import loft, smoothstep

_ANGLES = np.array([0.0, 0.30, 0.55, 0.80, 1.00, 1.20, 1.38, 1.50, 1.75, 1.95, 2.30, np.pi])
_SHORT_EDGE = np.array([-0.66, -0.65, -0.63, -0.56, -0.38, -0.12, 0.10, -0.04, -0.06, 0.28, 0.46, 0.50])


@dataclass(frozen=True)
class _Style:
    top: float  # thickness over the crown
    side: float
    back: float
    quiff: float = 0.0  # extra height over the forehead
    fringe: float = 0.0  # how far the front edge comes down
    fall: float = 0.0  # lower end of long hair, 0 for hair that follows the skull
    opening: float = 0.0  # angle from the front where long hair begins
    wave: float = 0.0
    curl: float = 0.0
    bun: float = 0.0


_STYLES = {
    "buzz": _Style(0.016, 0.014, 0.016),
    "short": _Style(0.11, 0.055, 0.08, quiff=0.03, fringe=0.04),
    "quiff": _Style(0.13, 0.03, 0.06, quiff=0.20),
    "bob": _Style(0.11, 0.13, 0.12, fringe=0.34, fall=0.85, opening=0.88),
    "long": _Style(0.10, 0.11, 0.12, fall=1.60, opening=0.90),
    "wavy": _Style(0.13, 0.16, 0.16, fall=1.40, opening=0.90, wave=1.0),
    "curly": _Style(0.24, 0.19, 0.22, fringe=0.02, curl=1.0),
    "bun": _Style(0.055, 0.04, 0.06, bun=1.0),
}
LONG_STYLES = frozenset(name for name, style in _STYLES.items() if style.fall)
_ROWS, _SKULL_ROWS = 34, 20


def hair_edge(who: Identity, phi: np.ndarray) -> np.ndarray:
    """Height y of the hair's lower edge at angle ``phi`` (0 front, radians), head units."""
    if who.hair_style == "bald":
        return np.full(np.shape(phi), -2.0)
    style = _STYLES[who.hair_style]
    a = np.abs(phi)
    front = smoothstep(1.25, 0.7, a)
    edge = np.interp(a, _ANGLES, _SHORT_EDGE) - 0.06 * who.hairline * front
    if style.fall:
        swoop = (
            -0.62
            + style.fringe
            + 0.38 * smoothstep(0.25, 0.80, a + 0.18 * who.hair_part * np.sign(phi)) * (style.fringe == 0)
        )
        fall = style.fall + 0.22 * (who.hair_length - 0.5)
        edge = swoop + (fall - swoop) * smoothstep(style.opening - 0.10, style.opening + 0.10, a)
    else:
        sweep = 0.05 * np.sin(3.0 * phi + 2.0 * who.hair_part)
        edge = edge + (style.fringe + sweep * min(1.0, 8 * style.fringe)) * front
    return edge


def _skull_path(style: _Style, phi: np.ndarray, fall: float) -> np.ndarray:
    if not style.fall:
        return loft(np.linspace(0.05, 8.6, _ROWS), phi)
    skull = loft(np.linspace(0.05, 5.0, _SKULL_ROWS), phi)
    down = np.linspace(0.0, 1.0, _ROWS - _SKULL_ROWS + 1)[1:, None]
    curtain = np.repeat(skull[-1:], len(down), 0)
    shape = 1.0 + 0.06 * np.sin(np.pi * down) - 0.10 * down**2
    curtain[..., 0] *= shape
    curtain[..., 2] = 0.05 + (curtain[..., 2] - 0.05) * shape
    curtain[..., 1] += (fall + 0.04) * down
    return np.concatenate([skull, curtain])


def _thickness(style: _Style, who: Identity, p: np.ndarray, phi: np.ndarray, below: np.ndarray) -> np.ndarray:
    y = p[..., 1]
    volume = 0.7 + 0.7 * who.hair_volume
    a = np.abs(phi)[None]
    around = style.side + (style.back - style.side) * smoothstep(1.5, 2.6, a)
    crown = smoothstep(-0.35, -0.85, y)
    thick = (around + (style.top - around) * crown) * volume
    taper = 0.2 + 0.8 * smoothstep(0.0, 0.28, below)
    if style.fall:
        taper = 0.45 + 0.55 * smoothstep(0.0, 0.2, below)
    if style.curl:
        lumps = np.sin(7 * phi)[None] * np.sin(9 * y) + 0.6 * np.sin(13 * phi + 1.0)[None] * np.sin(15 * y + 2.0)
        thick = thick * (1.0 + 0.13 * lumps)
        taper = 0.35 + 0.65 * smoothstep(0.0, 0.12, below)
    part = (
        np.exp(-(((phi[None] - 0.45 * who.hair_part) / 0.10) ** 2))
        * smoothstep(-1.0, -0.9, y)
        * (style.quiff == 0)
        * (1 - style.curl)
    )
    return thick * taper * (1.0 - 0.35 * part) if who.hair_style != "buzz" else thick


def _shell(style: _Style, who: Identity) -> Part:
    phi = np.linspace(-np.pi, np.pi, 73)
    fall = style.fall + 0.22 * (who.hair_length - 0.5)
    p = _skull_path(style, phi, fall)
    edge = hair_edge(who, phi)[None]
    below = edge - p[..., 1]
    thick = _thickness(style, who, p, phi, below)
    flat = p.reshape(-1, 3)
    out = np.stack([flat[:, 0], 0.9 * np.minimum(flat[:, 1] + 0.25, 0.0), flat[:, 2] - 0.05], 1)
    out /= np.linalg.norm(out, axis=1, keepdims=True) + 1e-6
    moved = flat + identity_offset(np.stack([flat[:, 0], np.minimum(flat[:, 1], 0.1), flat[:, 2]], 1), who)
    points = moved + out * thick.reshape(-1, 1)
    front = np.exp(-((p[..., 0] / 0.50) ** 2)) * smoothstep(0.15, -0.40, p[..., 2]) * smoothstep(0.0, 0.14, below)
    lift = (style.quiff * (0.6 + 0.8 * who.hair_volume) * front).reshape(-1)
    points += np.stack([0 * lift, -0.95 * lift, -0.30 * lift], 1)
    if style.wave:
        low = smoothstep(-0.3, 0.3, flat[:, 1])
        swing = np.sin(7.5 * flat[:, 1] + 2.0 * np.repeat(np.abs(phi)[None], _ROWS, 0).reshape(-1))
        points += 0.045 * (low * swing)[:, None] * np.stack([np.sign(flat[:, 0]), 0 * low, out[:, 2]], 1)
    shade = 0.72 + 0.28 * smoothstep(0.0, 0.25, below) * np.ones_like(thick)
    shade *= 1.0 - 0.45 * smoothstep(0.1, 0.9, p[..., 1]) * smoothstep(1.3, 2.2, np.abs(phi))[None]
    rest = np.stack([phi[None] + 0 * p[..., 0], p[..., 1], below], -1)
    body = 0.55 * smoothstep(0.75, 1.6, p[..., 1])
    return make_part(
        HAIR, points, rest, grid_triangles(_ROWS, 73), shade.reshape(-1), below.reshape(-1), body.reshape(-1)
    )


def _bun(who: Identity) -> Part:
    polar = np.linspace(0.0, np.pi, 14)[:, None]
    turn = np.linspace(-np.pi, np.pi, 25)[None]
    unit = np.stack([np.sin(polar) * np.sin(turn), -np.cos(polar) + 0 * turn, -np.sin(polar) * np.cos(turn)], -1)
    radius = 0.22 + 0.10 * who.hair_volume
    centre = np.array([0.0, -1.10 - 0.10 * who.cranium_height - 0.3 * radius, 0.28])
    swirl = turn + 1.2 * polar
    rest = np.stack([swirl, -1.0 + polar / np.pi + 0 * turn, 0 * swirl + 1.0], -1)
    points = centre + radius * unit * np.array([1.08, 0.9, 1.0])
    return make_part(
        HAIR,
        points,
        rest,
        grid_triangles(14, 25),
        occlusion=(0.75 + 0.25 * np.cos(polar / 2) + 0 * turn).reshape(-1),
    )


def hair_parts(who: Identity) -> list[Part]:
    """The hair's meshes, none for a bald head; rest is (angle, height, distance inside the edge)."""
    if who.hair_style == "bald":
        return []
    style = _STYLES[who.hair_style]
    return [_shell(style, who)] + ([_bun(who)] if style.bun else [])
