"""Displacement fields: how identity and expression move the template (all ours, head units)."""

from __future__ import annotations

import numpy as np

from personalive.synthetic.identity import Identity
from personalive.synthetic.template import EYE_X, MOUTH_Y, SLIT_EYE, SLIT_MOUTH, bump, smoothstep

UPPER_LID, LOWER_LID = 0.110, 0.056  # opening of the lids from the closed line, head units
JAW_HINGE = (0.22, 0.06)  # y, z
ROW_BEND = 0.2816  # the mouth row lies at MOUTH_Y - ROW_BEND x^2
JAW_ANGLE = 0.30  # radians at jawOpen 1


def _vec(x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray | float, like: np.ndarray) -> np.ndarray:
    zero = np.zeros(like.shape[0])
    return np.stack([zero + x, zero + y, zero + z], 1)


def identity_offset(p: np.ndarray, who: Identity) -> np.ndarray:
    """Shift (V, 3) of template points p (V, 3) for one person's face and skull."""
    x, y, z = p.T
    a, sign = np.abs(x), np.sign(x)
    face = smoothstep(-0.1, -0.4, z)
    above = smoothstep(1.35, 0.75, y)
    d = _vec(0.075 * who.head_width * x * above, 0, 0, p)
    d += _vec(0, -0.10 * who.cranium_height * smoothstep(-0.2, -1.0, y), 0, p)
    jaw = smoothstep(0.1, 0.7, y) * smoothstep(1.15, 0.9, y)
    d += _vec(0.17 * who.jaw_width * x * jaw, 0, 0, p)
    d += _vec(0, 0.085 * who.jaw_length * smoothstep(0.6, 1.0, y) * smoothstep(1.4, 1.0, y) * face, 0, p)
    d += _vec(0, 0, -0.07 * who.chin * bump(a, y, (0, 0.9), (0.22, 0.13)) * face, p)
    cheek = bump(a, y, (0.45, 0.42), (0.17, 0.22)) * smoothstep(0.1, -0.3, z)
    d += _vec(0.055 * who.cheeks * sign * cheek, 0, -0.04 * who.cheeks * cheek, p)
    bone = bump(a, y, (0.5, 0.18), (0.15, 0.12)) * smoothstep(0.1, -0.3, z)
    d += _vec(0.035 * who.cheekbones * sign * bone, 0, -0.03 * who.cheekbones * bone, p)
    d += _vec(0, 0, -0.05 * who.forehead * bump(a, y, (0, -0.45), (0.6, 0.25)) * face, p)
    d += _nose(p, who) * face[:, None]
    eye = bump(a, y, (EYE_X, 0), (0.21, 0.16)) * face
    d += _vec(0.028 * who.eye_spacing * sign * eye, 0, 0.025 * who.eye_depth * eye, p)
    d += _vec(
        0.10 * who.eye_size * (a - EYE_X) * sign * eye,
        0.10 * who.eye_size * y * eye - 0.16 * who.eye_slant * (a - EYE_X) * eye,
        0,
        p,
    )
    brow = bump(a, y, (0.3, -0.2), (0.3, 0.10)) * face
    d += _vec(0, -0.035 * who.brow_height * brow, 0, p)
    mouth = bump(a, y, (0, MOUTH_Y), (0.36, 0.14)) * face
    d += _vec(0.16 * who.mouth_width * x * mouth, -0.025 * who.mouth_height * mouth, 0, p)
    d += _lips(p, who) * face[:, None]
    neck = smoothstep(0.98, 1.15, y) * smoothstep(-0.45, -0.25, z)
    return d + _vec(0.16 * who.neck_width * x * neck, 0, 0.10 * who.neck_width * (z - 0.15) * neck, p)


def _nose(p: np.ndarray, who: Identity) -> np.ndarray:
    x, y, _ = p.T
    a = np.abs(x)
    tip = bump(a, y, (0, 0.36), (0.14, 0.15))
    nose = bump(a, y, (0, 0.28), (0.11, 0.2))
    d = _vec(0, 0.045 * who.nose_length * tip, -0.075 * who.nose_projection * nose, p)
    d += _vec(0.38 * who.nose_width * x * bump(a, y, (0, 0.38), (0.17, 0.12)), 0, 0, p)
    d += _vec(0, 0, -0.035 * who.nose_bridge * bump(a, y, (0, 0.12), (0.06, 0.1)), p)
    return d + _vec(0, -0.045 * who.nose_tip * bump(a, y, (0, 0.37), (0.08, 0.08)), -0.01 * who.nose_tip * tip, p)


def _lips(p: np.ndarray, who: Identity) -> np.ndarray:
    x, y, _ = p.T
    lip = np.sqrt(np.clip(1.0 - (x / 0.25) ** 2, 0.0, 1.0))
    upper = lip * bump(0 * x, y, (0, 0.575), (1, 0.035))
    lower = lip * bump(0 * x, y, (0, 0.68), (1, 0.042))
    d = _vec(0, -0.016 * who.lip_upper * upper, -0.028 * who.lip_upper * upper, p)
    return d + _vec(0, 0.022 * who.lip_lower * lower, -0.030 * who.lip_lower * lower, p)


def _lower_side(p: np.ndarray, side: np.ndarray) -> np.ndarray:
    """1 for points that belong to the lower lip or below, 0 above; slit edges by their flag.

    The mouth row bends up towards the cheeks, so the line is that of the row.
    """
    line = MOUTH_Y - ROW_BEND * p[:, 0] ** 2
    below = (p[:, 1] > line + 1e-3).astype(float)
    at_slit = (np.abs(p[:, 1] - line) < 0.03) & (side != 0)
    return np.where(at_slit, (side > 0).astype(float), below)


def jaw_weight(p: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Share of the jaw's rotation that each point takes, (V,)."""
    x, y, z = p.T
    a = np.abs(x)
    lower = _lower_side(p, side)
    inside = np.clip(1.0 - (a / SLIT_MOUTH) ** 2, 0.0, 1.0)
    corner = 0.40
    edge = np.where(lower > 0, corner + (1 - corner) * inside**0.55, corner * (1 - inside) ** 1.5)
    chin = smoothstep(0.0, 0.20, y - MOUTH_Y + ROW_BEND * x**2)
    fade_up = smoothstep(0.26, 0.0, MOUTH_Y - ROW_BEND * x**2 - y)
    value = np.where(lower > 0, edge + (1 - edge) * chin, edge * fade_up)
    side_fade = smoothstep(0.12, -0.32, z) * smoothstep(0.25, 0.55, y + 0.2 * a)
    under = smoothstep(-0.12, -0.5, z)
    return value * side_fade * np.where(y > 0.96, under, 1.0)


def jaw_rotation(p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Linear part of the jaw's rotation at jawOpen 1, (V, 3)."""
    y0, z0 = JAW_HINGE
    return _vec(0, -JAW_ANGLE * (p[:, 2] - z0) * weight, JAW_ANGLE * 0.8 * (p[:, 1] - y0) * weight, p)


def expression_fields(p: np.ndarray, side: np.ndarray) -> dict[str, np.ndarray]:
    """Basis displacements (V, 3) by name: expressions, and the openings of the four lids."""
    fields = {**_mouth_fields(p, side), **_brow_and_cheek_fields(p), **_lid_fields(p, side)}
    return {name: value * smoothstep(0.1, -0.2, p[:, 2])[:, None] for name, value in fields.items()}


def _mouth_fields(p: np.ndarray, side: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = p.T
    a = np.abs(x)
    lower = _lower_side(p, side)
    jaw = jaw_weight(p, side)
    mouth = bump(a, y, (0, MOUTH_Y), (0.33, 0.15)) * smoothstep(-0.3, -0.5, z)
    inside = np.sqrt(np.clip(1.0 - (a / SLIT_MOUTH) ** 2, 0.0, 1.0))
    lip_row = np.exp(-(((y - MOUTH_Y) / 0.11) ** 2)) * inside * smoothstep(-0.3, -0.5, z)
    thin = bump(a, y, (0, MOUTH_Y), (0.30, 0.13)) * smoothstep(-0.3, -0.5, z)
    out = {
        "jawOpen": jaw_rotation(p, jaw),
        "jawLeft": _vec(0.10 * jaw, 0, 0, p),
        "jawRight": _vec(-0.10 * jaw, 0, 0, p),
        "mouthPucker": _vec(-0.48 * x * mouth, 0, -0.085 * mouth, p),
        "mouthFunnel": _vec(-0.33 * x * mouth, 0, -0.06 * mouth, p)
        + _vec(0, np.where(lower > 0, 0.055, -0.045) * lip_row, 0, p),
        "mouthUpperUp": _vec(0, -0.075 * lip_row * (1 - lower), -0.01 * lip_row * (1 - lower), p),
        "mouthLowerDown": _vec(0, 0.085 * lip_row * lower, 0, p),
        "mouthPress": _vec(0, -0.42 * (y + ROW_BEND * x**2 - MOUTH_Y) * thin, 0.022 * mouth, p),
    }
    for name, s in (("Left", 1.0), ("Right", -1.0)):
        half = smoothstep(-0.06, 0.20, s * x) * smoothstep(-0.2, -0.45, z)
        corner = bump(s * x, y, (0.235, MOUTH_Y - 0.01), (0.15, 0.15)) * half
        cheek = bump(s * x, y, (0.38, 0.34), (0.16, 0.16)) * half
        out[f"mouthSmile{name}"] = _vec(
            0.085 * s * corner, -0.105 * corner - 0.03 * cheek, 0.035 * corner - 0.045 * cheek, p
        )
        out[f"mouthFrown{name}"] = _vec(0.02 * s * corner, 0.085 * corner, 0, p)
        out[f"mouthStretch{name}"] = _vec(0.10 * s * corner, 0.02 * corner, 0.03 * corner, p)
    return out


def _brow_and_cheek_fields(p: np.ndarray) -> dict[str, np.ndarray]:
    x, y, _ = p.T
    a = np.abs(x)
    inner = bump(a, y, (0.10, -0.22), (0.16, 0.15))
    puff = bump(a, y, (0.40, 0.56), (0.17, 0.17))
    out = {
        "browInnerUp": _vec(0, -0.10 * inner, 0, p),
        "cheekPuff": _vec(0.10 * np.sign(x) * puff, 0, -0.085 * puff, p),
    }
    for name, s in (("Left", 1.0), ("Right", -1.0)):
        half = smoothstep(-0.04, 0.08, s * x)
        brow = bump(s * x, y, (0.22, -0.20), (0.22, 0.11)) * half
        outer = bump(s * x, y, (0.42, -0.22), (0.20, 0.15)) * half
        nose = bump(s * x, y, (0.12, 0.33), (0.09, 0.15)) * half
        out[f"browDown{name}"] = _vec(-0.025 * s * brow, 0.075 * brow * (1.3 - s * x), -0.015 * brow, p)
        out[f"browOuterUp{name}"] = _vec(0, -0.09 * outer, 0, p)
        out[f"noseSneer{name}"] = _vec(0.015 * s * nose, -0.06 * nose, -0.015 * nose, p)
    return out


def _lid_fields(p: np.ndarray, side: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = p.T
    out = {}
    front = smoothstep(-0.3, -0.45, z)
    for name, s in (("Left", 1.0), ("Right", -1.0)):
        t = (s * x - EYE_X) / SLIT_EYE
        arch = np.clip(1.0 - np.abs(t + 0.10 * (1 - t * t)) ** 2.2, 0.0, 1.0) ** 0.75 * (np.abs(t) < 1.0)
        under = np.clip(1.0 - np.abs(t - 0.10 * (1 - t * t)) ** 2.2, 0.0, 1.0) ** 0.75 * (np.abs(t) < 1.0)
        is_upper = (y < -1e-3) | ((np.abs(y) < 0.02) & (side < 0))
        is_lower = (y > 1e-3) | ((np.abs(y) < 0.02) & (side > 0))
        up = arch * smoothstep(-0.23, 0.0, y) * is_upper * front
        low = under * smoothstep(0.16, 0.0, y) * is_lower * front
        out[f"upperLid{name}"] = _vec(0, -UPPER_LID * up, 0, p)
        line = arch * bump(0 * x, y, (0, 0), (1, 0.09)) * front
        out[f"lidLine{name}"] = _vec(0, 0.035 * line, 0, p)
        out[f"lowerLid{name}"] = _vec(0, LOWER_LID * low, 0, p)
    return out
