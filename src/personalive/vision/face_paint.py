"""Parts of a face that its photograph does not show: the whole eye behind the lids, and the inside of the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.vision.face_fit import Fit
from personalive.vision.face_model import GUM, MOUTH, SIDES, SKIN, TOOTH, FaceModel

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_IRIS_BINS = 12
_LIP_INSIDE = (105.0, 42.0, 44.0)
_COLOURS = {MOUTH: (52.0, 17.0, 20.0), GUM: (150.0, 74.0, 78.0), TOOTH: (228.0, 219.0, 203.0)}  # in daylight
_FRONT_TEETH, _GAP_SHADE = 0.4, 0.8  # front teeth are this deep; shade of the gaps between teeth
_MOUTH_DEPTH, _TOOTH_DEPTH = 4.5, 2.6  # model units behind the front teeth at which tongue and teeth are dark
_MOUTH_OPEN = (0.12, 0.3)  # gap of the lips, model units, from which the portrait shows its mouth's inside
_BRIGHT_SKIN = 165.0  # luminance of a face under which the colours above hold


@dataclass(frozen=True, eq=False)
class LidPatch:
    """Part of a portrait painted anew: colours (h, w, 3), their share (h, w), place of the first pixel (x, y)."""

    colours: np.ndarray
    share: np.ndarray
    first: tuple[int, int]


def filled(outline_px: np.ndarray, shape: tuple[int, int], blur_px: float) -> np.ndarray:
    """Polygon (N, 2), pixel centres at halves, as a soft mask of ``shape``, float32 0..1."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round((outline_px - 0.5) * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(mask, (0, 0), blur_px) if blur_px > 0 else mask
    return soft.astype(np.float32) / 255


def rim_outline(model: FaceModel, places: np.ndarray, upper: str, lower: str) -> np.ndarray:
    """Closed outline (N, 2) of two rims that share their ends."""
    return np.concatenate([places[model.rims[upper], :2], places[model.rims[lower], :2][::-1]])


def completed_eye(image: np.ndarray, outline_px: np.ndarray, iris: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Eye as if there were no lids: what is seen of it, white and iris continued behind them.

    Args:
        image: (S, S, 3) float32.
        outline_px: (N, 2) the lids' rims.
        iris: centre and radius in pixels.

    Returns:
        A square patch (n, n, 3) float32 and the x and y of its first pixel.
    """
    middle, reach = outline_px.mean(0), np.ptp(outline_px[:, 0])
    low = np.floor(middle - 1.1 * reach).astype(int)
    side = int(np.ceil(2.2 * reach)) + 1
    rows, columns = (np.clip(first + np.arange(side), 0, len(image) - 1) for first in (low[1], low[0]))
    patch = image[rows[:, None], columns]
    across = (low[0] + 0.5 + np.arange(side))[None]
    down = (low[1] + 0.5 + np.arange(side))[:, None]
    inner = middle + (outline_px - middle) * [0.96, 0.86]
    seen = filled(inner - low, (side, side), max(reach * 0.02, 0.4))
    radius = max(float(iris[2]), 1.0)
    distance = np.hypot(across - iris[0], down - iris[1]) / radius
    white = _continued(patch, seen * (distance > 1.2), reach, image_level(patch))
    ball = np.hypot(across - middle[0], down - middle[1]) / reach
    white *= (1 - 0.35 * np.clip(ball - 0.3, 0, 1))[..., None]
    rings = np.minimum((distance * _IRIS_BINS / 1.1).astype(int), _IRIS_BINS)
    colours = _ring_colours(patch, rings, seen * (distance < 1.1))
    disc = np.clip((1.06 - distance) * radius * 0.7 + 0.5, 0, 1)[..., None]
    whole = white + disc * (colours[np.minimum(rings, _IRIS_BINS - 1)] - white)
    whole = (whole + seen[..., None] * (patch - whole)).astype(np.float32)
    return whole, (int(low[0]), int(low[1]))


def _continued(patch: np.ndarray, known: np.ndarray, reach: float, level: float) -> np.ndarray:
    """Colours of the known pixels carried on smoothly; a plain white where almost none are known."""
    plain = np.array([0.93, 0.9, 0.88], np.float32) * min(level * 1.15, 235.0)
    total = cv2.GaussianBlur(patch * known[..., None], (0, 0), reach * 0.22)
    weight = cv2.GaussianBlur(known, (0, 0), reach * 0.22)[..., None]
    return (total + 0.02 * plain) / (weight + 0.02)


def _ring_colours(patch: np.ndarray, rings: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean colour by distance from the iris's centre, (bins, 3); rings that are not seen take the next one's."""
    weight = np.bincount(rings.ravel(), known.ravel(), _IRIS_BINS + 1)[:_IRIS_BINS]
    sums = [
        np.bincount(rings.ravel(), (known * patch[..., k]).ravel(), _IRIS_BINS + 1)[:_IRIS_BINS] for k in range(3)
    ]
    colours = np.stack(sums, 1) / np.maximum(weight, 1e-6)[:, None]
    good = np.flatnonzero(weight > 0.5)
    if not len(good):
        return np.full((_IRIS_BINS, 3), 40.0, np.float32)
    nearest = good[np.abs(np.arange(_IRIS_BINS)[:, None] - good).argmin(1)]
    return colours[nearest].astype(np.float32)


def shut_lid(image: np.ndarray, outline_px: np.ndarray, upper_px: np.ndarray, unit_px: float) -> LidPatch:
    """Upper lid as it looks when shut: plain skin with a line of lashes (lashes stretched with it are streaks).

    Args:
        image: (S, S, 3) float32.
        outline_px: (N, 2) both rims of the eye.
        upper_px: (M, 2) its upper rim, from the outer corner.
        unit_px: pixels per model unit.
    """
    low = np.floor(outline_px.min(0) - 1.3 * unit_px).astype(int)
    width, height = np.ceil(np.ptp(outline_px, axis=0) + 2.6 * unit_px).astype(int)
    rows, columns = (
        np.clip(first + np.arange(n), 0, len(image) - 1) for first, n in ((low[1], height), (low[0], width))
    )
    patch = image[rows[:, None], columns]
    opening = (filled(outline_px - low, (height, width), 0) > 0.5).astype(np.uint8)
    away = cv2.distanceTransform(1 - opening, cv2.DIST_L2, 5) / unit_px
    skin = (np.clip((away - 0.12) / 0.1, 0, 1) * np.clip((0.8 - away) / 0.2, 0, 1)).astype(np.float32)
    light = patch @ _LUMINANCE
    usual = np.median(light[skin > 0.5]) if (skin > 0.5).any() else 128.0
    skin *= np.exp(-(((light / max(usual, 1.0) - 1) / 0.25) ** 2))  # neither lashes nor what shines
    plain, weight = np.zeros_like(patch), np.full((height, width), 1e-6, np.float32)
    for sigma, share in ((max(0.22 * unit_px, 0.8), 1.0), (max(0.9 * unit_px, 3.2), 0.02)):  # also far from all skin
        plain += share * cv2.GaussianBlur(patch * skin[..., None], (0, 0), sigma)
        weight += share * cv2.GaussianBlur(skin, (0, 0), sigma)
    plain /= weight[..., None]
    around = (away > 0.6) & (np.abs(light / max(usual, 1.0) - 1) < 0.25)
    if around.any():  # a lid alone is a patch of another colour
        plain += 0.5 * (np.median(patch[around], axis=0) - plain)
    line = np.ones((height, width), np.uint8)
    cv2.polylines(line, [np.round(upper_px - low - 0.5).astype(np.int32)], isClosed=False, color=0)
    near = cv2.distanceTransform(line, cv2.DIST_L2, 5) / unit_px
    plain *= (1 - 0.8 * np.exp(-((near / 0.1) ** 2)))[..., None]
    band = np.clip((0.8 - near) / 0.4, 0, 1).astype(np.float32)
    ends = np.abs((columns + 0.5 - outline_px[:, 0].mean()) / (0.55 * np.ptp(outline_px[:, 0])))
    band *= np.clip((1.05 - ends) / 0.15, 0, 1).astype(np.float32)
    return LidPatch(plain.astype(np.float32), cv2.GaussianBlur(band, (0, 0), 0.6), (int(low[0]), int(low[1])))


def image_level(image: np.ndarray) -> float:
    """Median luminance of an image (…, 3)."""
    return float(np.median(image @ _LUMINANCE))


def mouth_colours(model: FaceModel, fit: Fit, level: float, teeth: np.ndarray | None) -> np.ndarray:
    """Colour of every vertex of the mouth's inside, (V, 3) float32, shaded by depth and by the teeth's roundness.

    Args:
        level: median luminance of the face.
        teeth: (3,) colour of teeth seen in the photograph, if any.
    """
    light = np.clip(level / _BRIGHT_SKIN, 0.4, 1.15) ** 0.6
    colours = np.zeros((len(model.part), 3), np.float32)
    for part, colour in _COLOURS.items():
        colours[model.part == part] = np.array(colour) * light
    lips = np.concatenate([rim for name, rim in model.rims.items() if name.startswith("lip_inner")])
    colours[(model.part == SKIN) & (model.source != np.arange(len(model.part)))] = np.array(_LIP_INSIDE) * light
    colours[lips] = np.array(_LIP_INSIDE) * light
    if teeth is not None:
        colours[model.part == TOOTH] = teeth
    tooth = model.part == TOOTH
    behind = fit.shape[tooth, 2].max() - fit.shape[:, 2]
    behind = np.where(tooth, np.maximum(behind - _FRONT_TEETH, 0), behind)
    shade = np.clip(1 - behind / np.where(tooth, _TOOTH_DEPTH, _MOUTH_DEPTH), 0.1, 1)
    shade[tooth] *= 1 - 0.03 * fit.shape[tooth, 0] ** 2
    return colours * np.clip(shade, 0.08, 1)[:, None].astype(np.float32)


def closed_gaps(paint: np.ndarray, teeth: np.ndarray, reach_px: float) -> None:
    """Fill the dark gaps between neighbouring teeth with a shade of their colour, in place.

    Args:
        paint: (h, w, 3) float32.
        teeth: (h, w) bool.
        reach_px: widest gap.
    """
    rows, columns = np.flatnonzero(teeth.any(1)), np.flatnonzero(teeth.any(0))
    if not len(rows):
        return
    grow = int(np.ceil(reach_px)) + 1
    box = (slice(max(rows[0] - grow, 0), rows[-1] + grow), slice(max(columns[0] - grow, 0), columns[-1] + grow))
    shown = teeth[box].astype(np.uint8)
    wide = 2 * int(np.ceil(reach_px / 2)) + 1
    gap = (cv2.morphologyEx(shown, cv2.MORPH_CLOSE, np.ones((1, wide), np.uint8)) > 0) & (shown == 0)
    weight = shown.astype(np.float32)
    near = cv2.GaussianBlur(paint[box] * weight[..., None], (0, 0), reach_px)
    near /= cv2.GaussianBlur(weight, (0, 0), reach_px)[..., None] + 1e-4
    paint[box][gap] = _GAP_SHADE * near[gap]


def open_mouth(model: FaceModel, fit: Fit, placed: np.ndarray, size_px: int) -> np.ndarray:
    """Soft mask (S, S) of the mouth's inside as far as the portrait shows it; zero where the lips meet."""
    upper, lower = (fit.shape[model.rims[f"lip_inner_{row}_right"][-1], 1] for row in ("upper", "lower"))
    degree = np.clip((upper - lower - _MOUTH_OPEN[0]) / (_MOUTH_OPEN[1] - _MOUTH_OPEN[0]), 0, 1)
    if degree == 0:
        return np.zeros((size_px, size_px), np.float32)
    outlines = [rim_outline(model, placed, f"lip_inner_upper_{s}", f"lip_inner_lower_{s}") for s in SIDES]
    mask = np.maximum(*(filled(outline, (size_px, size_px), 0) for outline in outlines))
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.03 * fit.pose.scale_px, 0.3))
    return (soft * np.float32(degree)).astype(np.float32)


def teeth_colour(image: np.ndarray, mouth: np.ndarray, level: float) -> np.ndarray | None:
    """Colour of the teeth that an open mouth shows, or None: (3,) of the brightest third of the mouth."""
    pixels = image[mouth > 0.8]
    if len(pixels) < 30:
        return None
    light = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    bright = pixels[light >= np.quantile(light, 0.67)].mean(0)
    return bright if bright @ [0.299, 0.587, 0.114] > 0.75 * level and np.ptp(bright) < 0.35 * bright.max() else None
