"""Compiled painting: procedural colours of every part, and light (ours).

Each ``*_colour`` returns linear red, green, blue, gloss (strength of the highlight) and its exponent.
``u`` is the packed array of ``palette``; rest coordinates are those of the part.
"""

# ruff: noqa: PLW3301 -- compiled functions take flat arguments
from __future__ import annotations

import numpy as np

from personalive.synthetic import palette as pal
from personalive.synthetic.compiled import compiled
from personalive.synthetic.raster import strands

SKIN, LIPS, IRIS, HAIR, BROW, FRAME, CLOTH, CLOTH2 = (
    pal.SKIN,
    pal.LIPS,
    pal.IRIS,
    pal.HAIR,
    pal.BROW,
    pal.FRAME,
    pal.CLOTH,
    pal.CLOTH2,
)
BLUSH, FRECKLES, BEARD, LASHES = pal.BLUSH, pal.FRECKLES, pal.BEARD, pal.LASHES
BROW_THICK, BROW_ARCH, BUZZ, CURL = pal.BROW_THICK, pal.BROW_ARCH, pal.BUZZ, pal.CURL
PATTERN, NECKLINE, GAZE_X, GAZE_Y = pal.PATTERN, pal.NECKLINE, pal.GAZE_X, pal.GAZE_Y
ROW_BEND, MOUTH, EYE_X = np.float32(0.2816), np.float32(0.62), np.float32(0.310)


@compiled
def _step(low, high, v):
    t = (v - low) / (high - low)
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled
def _spot(x, y, cx, cy, rx, ry):
    dx = (x - cx) / rx
    dy = (y - cy) / ry
    q = dx * dx + dy * dy
    return np.exp(-q) if q < 9.0 else 0.0


@compiled
def _hash(i, j):
    h = np.uint32(i * 374761393 + j * 668265263)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    h = h ^ (h >> np.uint32(16))
    return np.float32(h & np.uint32(0xFFFF)) / np.float32(65535.0)


@compiled
def _freckle(x, y):
    gx, gy = np.floor(x * 38.0), np.floor(y * 38.0)
    i, j = int(gx) + 100, int(gy) + 100
    if _hash(i, j) < 0.55:
        return 0.0
    px = gx + 0.3 + 0.4 * _hash(i + 500, j)
    py = gy + 0.3 + 0.4 * _hash(i, j + 500)
    d = np.hypot(x * 38.0 - px, y * 38.0 - py)
    return _step(0.32, 0.1, d)


@compiled
def lip_share(x, ym):
    """Share of the lips at a point (x, height along the mouth row), 0..1."""
    a = abs(x)
    if a > 0.27 or ym < 0.5 or ym > 0.76:
        return 0.0
    t = a / 0.242
    body = max(1.0 - t * t, 0.0)
    bow = 0.012 * np.exp(-((a / 0.028) ** 2)) - 0.010 * np.exp(-(((a - 0.065) / 0.04) ** 2))
    top = MOUTH - 0.006 - 0.062 * body**0.8 + bow
    bottom = MOUTH + 0.006 + 0.080 * body**0.75
    return _step(top - 0.006, top + 0.010, ym) * _step(bottom + 0.010, bottom - 0.010, ym) * _step(0.262, 0.235, a)


@compiled
def _brow_share(x, y, u):
    a = abs(x)
    if a < 0.08 or a > 0.56 or y < -0.36 or y > -0.08:
        return 0.0
    t = (a - 0.10) / 0.42
    line = -0.165 - (0.035 + 0.055 * u[BROW_ARCH]) * np.sin(min(max(t, 0.0), 1.0) * 2.3) + 0.02 * t
    half = (0.027 + 0.022 * u[BROW_THICK]) * (1.0 - 0.70 * max(t, 0.0) ** 1.5)
    d = (y - line) / half
    hairs = 0.5 + 0.5 * np.sin(120.0 * a + 45.0 * (y - line))
    edge = _step(1.25, 0.55, abs(d) + 0.22 * hairs)
    return edge * _step(0.085, 0.125, a) * _step(0.55, 0.47, a) * (0.80 + 0.2 * hairs)


@compiled
def _beard_share(x, y, z, ym, u):
    if u[BEARD] <= 0.0 or y < 0.16 or z > 0.15:
        return 0.0
    a = abs(x)
    line = 0.70 - 0.42 * _step(0.25, 0.62, a)
    jaw = _step(line - 0.05, line + 0.07, y) * _step(0.12, -0.02, z)
    moustache = _step(0.475, 0.52, y + 0.12 * a) * _step(0.60, 0.575, ym) * _step(0.27, 0.20, a)
    sides = _step(0.30, 0.25, abs(a - 0.30) * 2.2 + 0.12) * _step(0.50, 0.58, y) * _step(0.8, 0.7, y)
    chin = _step(0.735, 0.76, y) * _step(0.3, 0.2, a)
    under = _step(1.06, 0.98, y) if z > -0.35 else 1.0
    share = max(max(jaw, moustache), max(0.8 * sides, chin)) * under * _step(0.18, 0.40, y)
    grain = _hash(int((x - z) * 50.0) + 200, int((y + 0.3 * x) * 32.0) + 200)
    return share * (1.0 - lip_share(x, ym)) * (0.80 + 0.20 * grain)


@compiled
def head_colour(x, y, z, u):
    """Skin with its drawing; template coordinates."""
    r, g, b = u[SKIN], u[SKIN + 1], u[SKIN + 2]
    gloss, power = 0.10, 14.0
    front = z < -0.2
    if not front and z > 0.4:
        return r, g, b, gloss, power
    a = abs(x)
    ym = y + ROW_BEND * x * x
    if front:
        red = 0.55 * u[BLUSH] * _spot(a, y, 0.42, 0.34, 0.19, 0.15) + 0.30 * _spot(a, y, 0.0, 0.37, 0.12, 0.10)
        r *= 1.0 + 0.04 * red
        g *= 1.0 - 0.30 * red
        b *= 1.0 - 0.24 * red
        if u[FRECKLES] > 0.0:
            f = u[FRECKLES] * _freckle(x, y) * _spot(a, y, 0.26, 0.26, 0.3, 0.2) * 0.4
            r, g, b = r * (1 - 0.6 * f), g * (1 - f), b * (1 - f)
        lid = _spot(a, y, EYE_X, -0.055, 0.16, 0.07)
        r, g, b = r * (1 - 0.12 * lid), g * (1 - 0.24 * lid), b * (1 - 0.22 * lid)
        lips = lip_share(x, ym)
        if lips > 0.0:
            k = 0.90 * lips
            line = 1.0 - 0.45 * np.exp(-(((ym - MOUTH) / 0.012) ** 2))
            r, g, b = (
                r + (u[LIPS] * line - r) * k,
                g + (u[LIPS + 1] * line - g) * k,
                b + (u[LIPS + 2] * line - b) * k,
            )
            gloss, power = gloss + 0.22 * k, power + 20.0 * k
        brow = 0.92 * _brow_share(x, y, u)
        if brow > 0.0:
            r, g, b = r + (u[BROW] - r) * brow, g + (u[BROW + 1] - g) * brow, b + (u[BROW + 2] - b) * brow
            gloss *= 1.0 - brow
        t = (a - EYE_X) / 0.180
        if abs(t) < 1.15 and abs(y) < 0.05:
            wide = 0.017 + 0.010 * u[LASHES] + 0.006 * t
            upper = _step(-wide - 0.012, -wide + 0.004, y) if y < 0.0 else _step(0.016, 0.004, y) * 0.55
            k = 0.93 * upper * _step(1.13, 0.98, abs(t))
            r, g, b = r + (0.012 - r) * k, g + (0.008 - g) * k, b + (0.008 - b) * k
            gloss *= 1.0 - k
        hole = _spot(a, y, 0.066, 0.452, 0.034, 0.017)
        r, g, b = r * (1 - 0.80 * hole), g * (1 - 0.88 * hole), b * (1 - 0.88 * hole)
    beard = _beard_share(x, y, z, ym, u)
    if beard > 0.0:
        k = beard * min(0.95, u[BEARD])
        r, g, b = r + (u[BROW] - r) * k, g + (u[BROW + 1] - g) * k, b + (u[BROW + 2] - b) * k
        gloss *= 1.0 - 0.8 * k
    return r, g, b, gloss, power


@compiled
def eye_colour(dx, dy, dz, u):
    """Sclera, iris and pupil from the unit direction on the eyeball; gaze turns it."""
    gx, gy = 0.50 * u[GAZE_X], 0.36 * u[GAZE_Y]
    gz = -np.sqrt(max(1.0 - gx * gx - gy * gy, 0.0))
    ex, ey, ez = dx - gx, dy - gy, dz - gz
    d = np.sqrt(ex * ex + ey * ey + ez * ez)
    r, g, b = 0.86, 0.845, 0.83
    vein = _step(0.55, 1.0, abs(dx))
    g, b = g * (1 - 0.16 * vein), b * (1 - 0.18 * vein)
    iris = _step(0.575, 0.535, d)
    if iris > 0.0:
        ring = 1.0 - 0.75 * _step(0.44, 0.55, d)
        glow = 0.75 + 0.9 * _step(-0.25, 0.35, ey) * _step(0.20, 0.38, d)
        ray = 1.0 + 0.12 * np.sin(23.0 * np.arctan2(ey, ex))
        k = ring * glow * ray * 1.1
        pupil = _step(0.205, 0.235, d)
        k *= 0.03 + 0.97 * pupil
        r, g, b = (
            r + (u[IRIS] * k - r) * iris,
            g + (u[IRIS + 1] * k - g) * iris,
            b + (u[IRIS + 2] * k - b) * iris,
        )
    # soft shadow of the upper lid, and two fixed lights mirrored in the cornea
    shade = 0.52 + 0.48 * _step(-0.66, -0.10, dy)
    side = u[pal.KEY_DIR]
    hx, hy = gx * 0.6 + 0.17 * np.sign(side), gy * 0.6 - 0.20
    h1 = _step(0.115, 0.075, np.hypot(dx - hx, dy - hy))
    h2 = 0.30 * _step(0.09, 0.04, np.hypot(dx - gx * 0.6 + 0.16 * np.sign(side), dy - gy * 0.6 - 0.17))
    light = h1 + h2
    return r * shade, g * shade, b * shade, light, 0.0


@compiled
def teeth_colour(across, down, lower):
    """Warm white with gaps."""
    warped = across * (4.4 + 0.8 * abs(across))
    gap = abs(warped - np.floor(warped) - 0.5)
    k = 1.0 - 0.28 * _step(0.42, 0.5, gap)
    k *= 0.72 + 0.28 * _step(1.05, 0.55, abs(across))
    gum = _step(0.22, 0.12, down) if lower < 0.5 else _step(0.80, 0.92, down)
    r, g, b = 0.86 * k, 0.82 * k, 0.74 * k
    return r + (0.45 - r) * gum, g + (0.14 - g) * gum, b + (0.14 - b) * gum, 0.15, 30.0


@compiled
def hair_colour(phi, y, inside, u):
    """Strands; returns the strand value in place of gloss's power so that light can use it."""
    s = strands(phi, y, u[CURL])
    k = 0.80 + 0.30 * s
    if u[BUZZ] > 0.5:
        grain = _hash(int(phi * 60.0) + 400, int(y * 60.0) + 400)
        cover = (0.62 + 0.25 * grain) * _step(0.0, 0.09, inside)
        r = u[SKIN] + (u[HAIR] * 0.8 - u[SKIN]) * cover
        g = u[SKIN + 1] + (u[HAIR + 1] * 0.8 - u[SKIN + 1]) * cover
        return r, g, u[SKIN + 2] + (u[HAIR + 2] * 0.8 - u[SKIN + 2]) * cover, 0.02, s
    tip = 1.0 + 0.22 * _step(0.3, 1.4, y)
    root = 0.72 + 0.28 * _step(0.02, 0.22, inside)
    k *= tip * root
    return u[HAIR] * k, u[HAIR + 1] * k, u[HAIR + 2] * k, 0.26, s


@compiled
def torso_colour(x, y, z, u):
    """Cloth with a pattern, or skin inside the neckline."""
    r, g, b = u[SKIN], u[SKIN + 1], u[SKIN + 2]
    n = u[NECKLINE]
    kind = int(u[PATTERN])
    e = np.hypot(x / (0.46 + 0.10 * n), (y - 1.10) / (0.23 + 0.27 * n))
    if kind == 3:
        e = min(e, 0.0) + abs(x) / 0.44 + max(y - 1.12, 0.0) / (0.62 + 0.3 * n)
    if z > 0.2:
        e = 2.0
    cover = _step(0.985, 1.0, e)
    if cover <= 0.0:
        return r, g, b, 0.08, 14.0
    cr, cg, cb = u[CLOTH], u[CLOTH + 1], u[CLOTH + 2]
    second = 0.0
    if kind == 1:
        second = _step(-0.15, 0.15, np.sin(34.0 * y + 0.2 * np.sin(3.0 * x)))
    elif kind == 2:
        second = _step(1.66, 1.68, y + 0.05 * x)
    elif kind == 3:
        second = _step(1.36, 1.33, e)
    cr, cg, cb = (
        cr + (u[CLOTH2] - cr) * second,
        cg + (u[CLOTH2 + 1] - cg) * second,
        cb + (u[CLOTH2 + 2] - cb) * second,
    )
    weave = 1.0 + 0.05 * np.sin(150.0 * x) * np.sin(150.0 * y) + 0.08 * np.sin(7.0 * x + 4.0 * np.sin(3.0 * y))
    hem = 1.0 - 0.32 * _step(1.12, 1.06, e) * _step(1.03, 1.05, e)
    k = weave * hem
    return r + (cr * k - r) * cover, g + (cg * k - g) * cover, b + (cb * k - b) * cover, 0.03, 10.0
