"""Numbers that the compiled painter needs about one person, packed into one array (ours)."""

from __future__ import annotations

import numpy as np

from personalive.synthetic.identity import HAIR_STYLES, Colour, Identity

# places in the packed array; colours take three
SKIN, LIPS, IRIS, HAIR, BROW, FRAME, CLOTH, CLOTH2 = range(0, 24, 3)
KEY, FILL = 24, 27  # light colours
KEY_DIR, FILL_DIR, RIM_DIR, HALF_DIR = 30, 33, 36, 39
(
    BLUSH,
    FRECKLES,
    BEARD,
    LASHES,
    BROW_THICK,
    BROW_ARCH,
    BUZZ,
    CURL,
    PATTERN,
    NECKLINE,
    GAZE_X,
    GAZE_Y,
    LIP_FULL,
) = range(42, 55)
DOWN, RIGHT = 55, 58  # the head's axes in the image, per frame
SIZE = 64


def linear(colour: Colour | np.ndarray) -> np.ndarray:
    """sRGB to linear light with a gamma of 2."""
    return np.asarray(colour, np.float64) ** 2


def _unit(x: float, y: float, z: float) -> np.ndarray:
    v = np.array([x, y, z])
    return v / np.linalg.norm(v)


def build_palette(who: Identity) -> np.ndarray:
    """(SIZE,) float32."""
    u = np.zeros(SIZE)
    hair = linear(who.hair)
    dark_hair = hair * 0.55 + 0.25 * np.array([0.03, 0.02, 0.015])
    colours = {
        SKIN: linear(who.skin),
        LIPS: linear(who.lips),
        IRIS: linear(who.eye_colour),
        HAIR: hair,
        BROW: dark_hair,
        FRAME: linear(who.glasses_colour),
        CLOTH: linear(who.clothes),
        CLOTH2: linear(who.clothes_second),
    }
    for place, value in colours.items():
        u[place : place + 3] = value
    warm = who.light_warmth
    u[KEY : KEY + 3] = 0.88 * np.array([1.0 + 0.06 * warm, 1.0, 1.0 - 0.08 * warm])
    u[FILL : FILL + 3] = 0.20 * np.array([1.0 - 0.10 * warm, 1.0, 1.0 + 0.14 * warm])
    az, el = who.light_azimuth, who.light_elevation
    key = _unit(np.sin(az) * np.cos(el), -np.sin(el), -np.cos(az) * np.cos(el))
    u[KEY_DIR : KEY_DIR + 3] = key
    u[FILL_DIR : FILL_DIR + 3] = _unit(-np.sign(az) * 0.8, 0.05, -0.6)
    u[RIM_DIR : RIM_DIR + 3] = _unit(-np.sign(az) * 0.85, -0.5, 0.35)
    u[HALF_DIR : HALF_DIR + 3] = _unit(key[0], key[1], key[2] - 1.0)
    u[BLUSH], u[FRECKLES], u[BEARD], u[LASHES] = who.blush, who.freckles, who.beard, who.lashes
    u[BROW_THICK], u[BROW_ARCH] = who.brow_thickness, who.brow_arch
    u[BUZZ], u[CURL] = who.hair_style == "buzz", who.hair_style == "curly"
    u[PATTERN], u[NECKLINE] = who.clothes_pattern, who.neckline
    return u.astype(np.float32)


def background(who: Identity, size_px: int) -> np.ndarray:
    """(S, S, 3) float32 linear light: a soft gradient with out-of-focus discs."""
    rng = np.random.default_rng([who.seed, 7002, HAIR_STYLES.index(who.hair_style)])
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    angle = rng.uniform(0, 2 * np.pi)
    t = np.clip(0.5 + 0.75 * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)), 0, 1)[..., None]
    image = linear(who.background) * (1 - t) + linear(who.background_second) * t
    glow = np.exp(-(((x - 0.5) / 0.45) ** 2) - ((y - 0.42) / 0.45) ** 2)[..., None]
    image = image * (0.72 + 0.5 * glow)
    for _ in range(9):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 0.9), rng.uniform(0.05, 0.14)
        tint = linear(rng.uniform(0.6, 1.0, 3)) * rng.uniform(0.05, 0.22) * who.bokeh
        disc = 1.0 / (1.0 + np.exp((np.hypot(x - cx, y - cy) - r) / 0.008))
        image = image + disc[..., None] * tint
    return np.clip(image, 0, 1).astype(np.float32)
