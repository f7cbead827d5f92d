"""Compiled lighting: samples of the z-buffer to an image and masks (ours).

numba's cache looks at this file alone: after a change in ``paint`` or ``palette``, touch this file.
"""

# ruff: noqa: SIM109, PLR1714 -- compiled functions take flat arguments
from __future__ import annotations

import numpy as np

from personalive.synthetic import paint, parts
from personalive.synthetic import palette as pal
from personalive.synthetic.compiled import compiled

HEAD, EAR, EYE, TEETH, TONGUE, HAIR, TORSO = (
    parts.HEAD,
    parts.EAR,
    parts.EYE,
    parts.TEETH,
    parts.TONGUE,
    parts.HAIR,
    parts.TORSO,
)
KEY, FILL, KEY_DIR, FILL_DIR, RIM_DIR, HALF_DIR = (
    pal.KEY,
    pal.FILL,
    pal.KEY_DIR,
    pal.FILL_DIR,
    pal.RIM_DIR,
    pal.HALF_DIR,
)
SKIN, FRAME, DOWN, BUZZ = pal.SKIN, pal.FRAME, pal.DOWN, pal.BUZZ
FACE_BIT, EYES_BIT, MOUTH_BIT = 1, 2, 4

head_colour, eye_colour, teeth_colour = paint.head_colour, paint.eye_colour, paint.teeth_colour
hair_colour, torso_colour, lip_share = paint.hair_colour, paint.torso_colour, paint.lip_share


@compiled
def _dot(n, u, place):
    return n[0] * u[place] + n[1] * u[place + 1] + n[2] * u[place + 2]


@compiled
def _hair_light(n, u, strand, gloss):
    """Highlight across the strands (Kajiya-Kay with the strand running down the head)."""
    along = _dot(n, u, DOWN)
    tx, ty, tz = u[DOWN] - n[0] * along, u[DOWN + 1] - n[1] * along, u[DOWN + 2] - n[2] * along
    length = np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-4
    th = (tx * u[HALF_DIR] + ty * u[HALF_DIR + 1] + tz * u[HALF_DIR + 2]) / length + 0.10 * strand
    sine = max(1.0 - th * th, 0.0)
    s4 = sine * sine
    s4 *= s4
    s16 = s4 * s4 * s4
    return gloss * (s16 * s4 * (0.7 + 0.5 * strand))


@compiled
def _surface(kind, q, u):
    """Colour, gloss, its exponent (hair: the strand value), glow, wrap of red, green and blue light."""
    if kind == HEAD:
        r, g, b, gloss, power = head_colour(q[0], q[1], q[2], u)
        return r, g, b, gloss, power, 0.0, 0.42, 0.27, 0.22
    if kind == EYE:
        r, g, b, glow, power = eye_colour(q[0], q[1], q[2], u)
        return r, g, b, 0.0, power, glow, 0.20, 0.20, 0.20
    if kind == EAR:
        return u[SKIN] * 1.02, u[SKIN + 1] * 0.90, u[SKIN + 2] * 0.88, 0.08, 14.0, 0.0, 0.5, 0.3, 0.25
    if kind == HAIR:
        r, g, b, gloss, power = hair_colour(q[0], q[1], q[2], u)
    elif kind == TORSO:
        r, g, b, gloss, power = torso_colour(q[0], q[1], q[2], u)
    elif kind == TEETH:
        r, g, b, gloss, power = teeth_colour(q[0], q[1], q[2])
    elif kind == TONGUE:
        r, g, b, gloss, power = 0.42, 0.11, 0.12, 0.12, 20.0
    else:
        r, g, b, gloss, power = u[FRAME], u[FRAME + 1], u[FRAME + 2], 0.5, 30.0
    return r, g, b, gloss, power, 0.0, 0.20, 0.20, 0.20


@compiled
def _mask_bits(kind, q):
    if kind == EYE:
        return FACE_BIT | EYES_BIT
    if kind in (TEETH, TONGUE):
        return FACE_BIT | MOUTH_BIT
    if kind != HEAD or q[2] >= -0.1 or q[1] >= 1.02:
        return 0
    if lip_share(q[0], q[1] + 0.2816 * q[0] * q[0]) > 0.5:
        return FACE_BIT | MOUTH_BIT
    return FACE_BIT


@compiled
def _sample(kind, n, q, occlusion, facing, u, out):
    """Linear colour of one sample into ``out``; returns mask bits."""
    if n[2] > 0.0 and kind != HEAD:
        n[0], n[1], n[2] = -n[0], -n[1], -n[2]
    if kind == HEAD and not facing:
        if q[1] > 0.25:
            out[0], out[1], out[2] = 0.060, 0.014, 0.014
            return FACE_BIT | MOUTH_BIT
        out[0], out[1], out[2] = 0.36, 0.27, 0.25  # the corner of the eye, behind the eyeball's edge
        return FACE_BIT | EYES_BIT
    r, g, b, gloss, power, glow, wrap_r, wrap_g, wrap_b = _surface(kind, q, u)
    key = _dot(n, u, KEY_DIR)
    fill = max(_dot(n, u, FILL_DIR), 0.0)
    sky = 0.5 - 0.5 * n[1]
    ambient = (0.15 + 0.13 * sky) * occlusion
    away = 1.0 - min(abs(n[2]), 1.0)
    rim = max(_dot(n, u, RIM_DIR), 0.0) * away * away * 0.9
    shadow = 0.45 + 0.55 * occlusion
    kr = max((key + wrap_r) / (1.0 + wrap_r), 0.0) * shadow
    kg = max((key + wrap_g) / (1.0 + wrap_g), 0.0) * shadow
    kb = max((key + wrap_b) / (1.0 + wrap_b), 0.0) * shadow
    if kind == HAIR:
        spec = _hair_light(n, u, power, gloss) * max(key + 0.3, 0.0) * occlusion
        tint = 0.35
    else:
        half = max(_dot(n, u, HALF_DIR), 0.0)
        spec = gloss * half**power * max(kr, 0.0) * occlusion
        tint = 0.8
    rim = rim * (0.25 + 0.6 * occlusion) * 0.35
    lr = u[KEY + 0] * kr + u[FILL] * fill * occlusion + ambient + rim
    lg = u[KEY + 1] * kg + u[FILL + 1] * fill * occlusion + ambient + rim
    lb = u[KEY + 2] * kb + u[FILL + 2] * fill * occlusion + ambient * 1.06 + rim
    lift = 0.04 * rim
    own = 1.0 - tint
    out[0] = r * lr + spec * (tint + own * 4.0 * r) + glow + lift
    out[1] = g * lg + spec * (tint + own * 4.0 * g) + glow + lift
    out[2] = b * lb + spec * (tint + own * 4.0 * b) + glow + lift
    return _mask_bits(kind, q)


@compiled
def _plain(ids, kinds, px, py):
    """True where the four samples hit one smooth part: then the two on the diagonal are enough."""
    a, b = ids[2 * py, 2 * px], ids[2 * py, 2 * px + 1]
    c, d = ids[2 * py + 1, 2 * px], ids[2 * py + 1, 2 * px + 1]
    if a < 0 or b < 0 or c < 0 or d < 0:
        return False
    k = kinds[a]
    return kinds[b] == k and kinds[c] == k and kinds[d] == k and (k == HEAD or k == TORSO or k == EAR or k == HAIR)


@compiled
def shade(ids, triangles, kinds, pixels, normals, rest, occlusion, u, back, step, image, masks):
    """Average ``step`` x ``step`` samples per pixel into image (S, S, 3) uint8 and masks (S, S) uint8."""
    size = image.shape[0]
    n = np.zeros(3, np.float32)
    q = np.zeros(3, np.float32)
    colour = np.zeros(3, np.float32)
    total = step * step
    for py in range(size):
        for px in range(size):
            r = g = b = 0.0
            face = eyes = mouth = 0
            used = total
            if step == 2 and _plain(ids, kinds, px, py):
                used = 2
            for m in range(used):
                k = m * 3 if used == 2 and step == 2 else m
                sy, sx = py * step + k // step, px * step + k % step
                t = ids[sy, sx]
                if t < 0:
                    r += back[py, px, 0]
                    g += back[py, px, 1]
                    b += back[py, px, 2]
                    continue
                i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                ax, ay = pixels[i0, 0], pixels[i0, 1]
                bx, by = pixels[i1, 0] - ax, pixels[i1, 1] - ay
                cx, cy = pixels[i2, 0] - ax, pixels[i2, 1] - ay
                area = bx * cy - by * cx
                dx, dy = sx - ax, sy - ay
                w1 = (dx * cy - dy * cx) / area
                w2 = (bx * dy - by * dx) / area
                w0 = 1.0 - w1 - w2
                for c in range(3):
                    n[c] = w0 * normals[i0, c] + w1 * normals[i1, c] + w2 * normals[i2, c]
                    q[c] = w0 * rest[i0, c] + w1 * rest[i1, c] + w2 * rest[i2, c]
                inv = 1.0 / (np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]) + 1e-9)
                n[0], n[1], n[2] = n[0] * inv, n[1] * inv, n[2] * inv
                ao = w0 * occlusion[i0] + w1 * occlusion[i1] + w2 * occlusion[i2]
                bits = _sample(kinds[t], n, q, ao, area > 0.0, u, colour)
                r += colour[0]
                g += colour[1]
                b += colour[2]
                face += bits & 1
                eyes += (bits >> 1) & 1
                mouth += (bits >> 2) & 1
            image[py, px, 0] = _byte(r / used)
            image[py, px, 1] = _byte(g / used)
            image[py, px, 2] = _byte(b / used)
            masks[py, px] = (2 * face >= used) * 1 + (2 * eyes >= used) * 2 + (2 * mouth >= used) * 4


@compiled
def _byte(v):
    """Linear light to 8 bits: a soft shoulder above 0.75, then gamma 2."""
    v = max(v, 0.0)
    if v > 0.75:
        v = 0.75 + 0.25 * (1.0 - np.exp(-(v - 0.75) / 0.25))
    return np.uint8(min(255.0 * np.sqrt(v) + 0.5, 255.0))
