"""A photograph moved by geometry: a portrait, its fitted face and a motion to an image (ours).

Pixels are borrowed from the portrait by a sampling field; what it does not show (the mouth's inside, the eye behind
the lids, the background behind the head) is painted. No learning, no torch. Letters as in face_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.vision.face_fit import Fit
from personalive.vision.face_model import EYE, GUM, MOUTH, PIVOT, SIDES, SKIN, TOOTH, face_model
from personalive.vision.face_paint import closed_gaps, rim_outline
from personalive.vision.face_portrait import MovablePortrait
from personalive.vision.face_surround import surround_field
from personalive.vision.mesh_raster import Raster, rasterise, towards_camera

# Added to depth by part: skin that looks at the camera is before all, the mouth's wall behind all.
_LAYER_LIFT = np.array([1e5, -1e5, 0.0, 0.0, 0.0], np.float32)
_TOP_EDGE_PX, _TOP_STRETCH = 3.0, 0.5  # blur of the outline beyond the portrait's top; rows mirrored for each there
_DISTANCE = 45.0  # model units from the head to the camera, as to a laptop's
_HARDLY = 0.999  # of a person mask, above which nothing behind it shows
_GAP = 0.5  # model units, widest gap between teeth that is filled
_GAZE_DEG = 28.0  # turn of an eyeball at full strength of eyeLook


@dataclass(frozen=True, eq=False)
class FaceMotion:
    """Motion of one frame relative to a portrait.

    Attributes:
        expression: (E,) added to the portrait's values.
        closing: share by which the right and the left eye shut: 0 as in the portrait, 1 wholly, below 0 wider.
        gaze: turn of the eyes to image right and down, -1 to 1.
        rotation: (3, 3) turn of the head after the portrait's own, for column vectors, y up, z to the camera.
        scale: size of the head, relative.
        shift: x (right) and y (down) in sides of the image.
    """

    expression: np.ndarray
    closing: tuple[float, float] = (0.0, 0.0)
    gaze: tuple[float, float] = (0.0, 0.0)
    rotation: np.ndarray | None = None
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Moved:
    """A moved portrait as its ingredients; S is the side of the result.

    Attributes:
        field: (S, S, 2) float32, where to look in the portrait, x and y from -1 to 1 as in warps.py.
        paint: (S, S, 3) float32, 0 to 255.
        paint_share: (S, S) float32, 0 the portrait's pixel, 1 the paint.
        part: (S, S) uint8 ``SKIN`` to ``EYE`` of the face, 255 elsewhere.
        places_px: (V, 3) vertices in pixels of the result.
    """

    field: np.ndarray
    paint: np.ndarray
    paint_share: np.ndarray
    part: np.ndarray
    places_px: np.ndarray


# --- motion ---------------------------------------------------------------------------------------------------------


def moved_places(fit: Fit, motion: FaceMotion, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) in pixels of a portrait of that side, and what the expression adds to them, (V, 3)."""
    model = face_model()
    change = np.maximum(fit.expression + motion.expression, np.minimum(fit.expression, -0.3)) - fit.expression
    used = np.flatnonzero(np.abs(change) > 1e-4)
    strain = np.tensordot(change[used].astype(np.float32), model.expressions[used], 1)
    for share, field in zip(motion.closing, fit.closing, strict=True):
        strain += np.float32(min(share, 1.0)) * field
    eyes = np.flatnonzero(model.part == EYE)
    strain[eyes] = _gaze(fit.shape[eyes], motion.gaze)
    turned = strain @ (_turn(motion) @ fit.pose.rotation).T.astype(np.float32)
    turned *= np.float32(motion.scale * fit.pose.scale_px) * np.array([1, -1, 1], np.float32)
    return _rigid(fit, motion, fit.pose.place(fit.shape), size_px) + turned, turned


def _turn(motion: FaceMotion) -> np.ndarray:
    return np.eye(3) if motion.rotation is None else motion.rotation


def _gaze(points: np.ndarray, gaze: tuple[float, float]) -> np.ndarray:
    """Displacement (N, 3) of both domes turned about their eyeballs."""
    x, y = np.radians(_GAZE_DEG) * np.clip(gaze, -1, 1)
    turn_y = np.array([[np.cos(x), 0, np.sin(x)], [0, 1, 0], [-np.sin(x), 0, np.cos(x)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(y), -np.sin(y)], [0, np.sin(y), np.cos(y)]])
    moved = np.zeros_like(points)
    for side, ball in zip((points[:, 0] < 0, points[:, 0] >= 0), face_model().eyeballs, strict=True):
        front = points[side].mean(0)
        centre = front - [0, 0, 0.62 * ball[3]]
        moved[side] = (points[side] - centre) @ (turn_y @ turn_x).T + centre - points[side]
    return moved


def _rigid(fit: Fit, motion: FaceMotion, places: np.ndarray, size_px: int) -> np.ndarray:
    """Points (N, 3) in pixels and depth of the portrait, as the head moves.

    What comes nearer grows as under a camera at ``_DISTANCE``; what stays where it is does not change.
    """
    centre = fit.pose.place(PIVOT[None])[0]
    flip = np.diag([1.0, -1.0, 1.0])
    turn = (motion.scale * flip @ _turn(motion) @ flip).astype(np.float32)
    before = places - centre
    moved = before @ turn.T
    far = np.float32(_DISTANCE * fit.pose.scale_px)
    moved[:, :2] *= ((far - before[:, 2]) / np.maximum(far - moved[:, 2], 0.2 * far))[:, None]
    moved += centre
    moved[:, :2] += np.asarray(motion.shift, np.float32) * size_px
    return moved


def move(portrait: MovablePortrait, motion: FaceMotion, size_px: int) -> Moved:
    """Move a portrait.

    Args:
        size_px: side of the result; the framing is the portrait's.
    """
    model, side = face_model(), portrait.image.shape[0]
    places, strain = moved_places(portrait.fit, motion, side)
    rigid = _rigid(portrait.fit, motion, portrait.surround.places, side)
    nodes = portrait.surround.moved(rigid, strain, np.asarray(motion.shift, np.float32) * side)
    field = surround_field(portrait.surround, nodes, size_px, side)
    scaled = places * np.float32(size_px / side)
    drawn = _drawn_triangles(scaled, own_teeth=bool(portrait.mouth.any()))
    parts = model.triangle_part[drawn]
    corners = model.triangles[drawn]
    raster = rasterise(scaled, corners, size_px, size_px, _LAYER_LIFT[parts])
    raster = _between_lips(raster, parts, scaled, size_px)
    kinds = parts[raster.triangles]
    part = np.full(size_px * size_px, 255, np.uint8)
    part[raster.pixels] = kinds
    found = raster.interpolate(corners, np.column_stack([portrait.texture_px, model.oval]).astype(np.float32))
    at, oval = found[:, :2], found[:, 2:]
    inside = np.flatnonzero((kinds != SKIN) & (kinds != EYE))
    at[inside] = _behind_lips(portrait.fit, motion, raster.pixels[inside], size_px, side)
    oval[kinds != SKIN] = 1.0
    flat = field.reshape(-1, 2)
    flat[raster.pixels] += oval * oval * (3 - 2 * oval) * (at - flat[raster.pixels])
    paint, share = _paint_mouth(portrait, raster, corners, kinds, at, size_px)
    _paint_eyes(portrait, raster, corners, kinds, at, paint, share)
    _paint_lids(portrait, raster, kinds, at, motion.closing, paint, share)
    part = part.reshape(size_px, size_px)
    _paint_behind(portrait, field, part, paint, share)
    return Moved(field * np.float32(2 / side) - 1, paint, share, part, scaled)


def _drawn_triangles(places: np.ndarray, *, own_teeth: bool) -> np.ndarray:
    """Numbers of the triangles to draw: skin of the face that looks at the camera, eyes, the inside of the mouth.

    Upper teeth are left out where the portrait shows its own.
    """
    model = face_model()
    part = model.triangle_part
    face = (part == SKIN) & (model.oval[model.triangles] > 0).any(axis=1)
    teeth = (part == TOOTH) | (part == GUM)
    if own_teeth:
        teeth &= (part == GUM) | ~np.isin(model.triangles[:, 0], model.upper_jaw)
    return np.flatnonzero(
        ((face | (part == EYE) | teeth) & towards_camera(places, model.triangles)) | (part == MOUTH)
    )


def _between_lips(raster: Raster, parts: np.ndarray, places: np.ndarray, size_px: int) -> Raster:
    """The raster without what shows of the mouth's inside elsewhere: below a raised chin no skin hides it."""
    model = face_model()
    kinds = parts[raster.triangles]
    inside = np.flatnonzero((kinds != SKIN) & (kinds != EYE))
    outlines = [rim_outline(model, places, f"lip_inner_upper_{s}", f"lip_inner_lower_{s}") for s in SIDES]
    lips = np.zeros((size_px, size_px), np.uint8)
    for outline in outlines:
        cv2.fillPoly(lips, [np.round(outline - 0.5).astype(np.int32)], 1)
    pixels = raster.pixels[inside]
    nostrils = (kinds[inside] == MOUTH) & (pixels // size_px < outlines[0][:, 1].min())  # are as dark
    elsewhere = inside[~nostrils & (cv2.dilate(lips, np.ones((3, 3))).reshape(-1)[pixels] == 0)]
    if not len(elsewhere):
        return raster
    kept = np.ones(len(kinds), bool)
    kept[elsewhere] = False
    return Raster(raster.pixels[kept], raster.triangles[kept], raster.weights[kept])


def _behind_lips(fit: Fit, motion: FaceMotion, pixels: np.ndarray, size_px: int, portrait_px: int) -> np.ndarray:
    """Places in the portrait (N, 2) of what is seen between the lips, were it as far behind as the upper teeth."""
    model = face_model()
    teeth = model.upper_jaw[model.part[model.upper_jaw] == TOOTH]
    front = teeth[fit.shape[teeth, 2] > np.quantile(fit.shape[teeth, 2], 0.7)]
    plane = fit.pose.place(fit.shape[front]).mean(0) + np.array([[0, 0, 0], [20, 0, 0], [0, 20, 0]], np.float32)
    moved = _rigid(fit, motion, plane, portrait_px)[:, :2] * np.float32(size_px / portrait_px)
    back = cv2.getAffineTransform(moved.astype(np.float32), plane[:, :2].astype(np.float32)).astype(np.float32)
    row, column = np.divmod(pixels, size_px)
    centres = np.stack([column, row], 1).astype(np.float32) + np.float32(0.5)
    return centres @ back[:, :2].T + back[:, 2]


def _paint_mouth(
    portrait: MovablePortrait,
    raster: Raster,
    corners: np.ndarray,
    kinds: np.ndarray,
    at: np.ndarray,
    size_px: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint (S, S, 3) and share (S, S) with the mouth's inside where the portrait does not show it."""
    paint = np.zeros((size_px * size_px, 3), np.float32)
    share = np.zeros(size_px * size_px, np.float32)
    inside = np.flatnonzero((kinds != SKIN) & (kinds != EYE))
    at = at[inside]
    if len(inside):
        chosen = Raster(raster.pixels[inside], raster.triangles[inside], raster.weights[inside])
        paint[chosen.pixels] = chosen.interpolate(corners, portrait.colours)
        share[chosen.pixels] = 1 - _look_up(portrait.mouth, at)
        teeth = np.zeros(size_px * size_px, bool)
        teeth[chosen.pixels[kinds[inside] == TOOTH]] = True
        unit_px = portrait.fit.pose.scale_px * size_px / portrait.image.shape[0]
        closed_gaps(paint.reshape(size_px, size_px, 3), teeth.reshape(size_px, size_px), _GAP * unit_px)
    return _softened(paint.reshape(size_px, size_px, 3), share.reshape(size_px, size_px), 0.6 * size_px / 256)


def _paint_eyes(
    portrait: MovablePortrait,
    raster: Raster,
    corners: np.ndarray,
    kinds: np.ndarray,
    at: np.ndarray,
    paint: np.ndarray,
    share: np.ndarray,
) -> None:
    """Put the eyes on the paint, in place."""
    eyes = np.flatnonzero(kinds == EYE)
    right = portrait.fit.shape[corners[raster.triangles[eyes], 0], 0] < 0
    for chosen, (patch, first) in zip((eyes[right], eyes[~right]), portrait.eyes, strict=True):
        if len(chosen):
            paint.reshape(-1, 3)[raster.pixels[chosen]] = _look_up(patch, at[chosen] - first)
            share.reshape(-1)[raster.pixels[chosen]] = 1.0


def _paint_lids(
    portrait: MovablePortrait,
    raster: Raster,
    kinds: np.ndarray,
    at: np.ndarray,
    closing: tuple[float, float],
    paint: np.ndarray,
    share: np.ndarray,
) -> None:
    """Put the shut lids' skin on the paint as far as they shut, in place."""
    skin = kinds == SKIN
    for lid, shut in zip(portrait.lids, closing, strict=True):
        if shut <= 0.02:
            continue
        local = at - np.array(lid.first, np.float32)
        inside = (local >= 1).all(1) & (local < np.array(lid.share.shape[::-1], np.float32) - 1).all(1) & skin
        chosen = np.flatnonzero(inside)
        if not len(chosen):
            continue
        amount = _look_up(lid.share, local[chosen]) * np.float32(min(1.4 * shut, 1.0))
        flat, flat_paint = share.reshape(-1), paint.reshape(-1, 3)
        pixels, old = raster.pixels[chosen], share.reshape(-1)[raster.pixels[chosen]]
        total = old + (1 - old) * amount
        colour = (
            flat_paint[pixels] * old[:, None] + _look_up(lid.colours, local[chosen]) * ((1 - old) * amount)[:, None]
        )
        flat_paint[pixels], flat[pixels] = colour / np.maximum(total, 1e-4)[:, None], total


def _look_up(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Image bilinearly at pixel places (N, 2), the first pixel's centre at 0.5."""
    at = np.asarray(at, np.float32) - np.float32(0.5)
    found = [
        cv2.remap(
            image, part[None, :, 0].copy(), part[None, :, 1].copy(), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )[0]
        for part in np.array_split(at, len(at) // 30000 + 1)
    ]
    return np.concatenate(found)


def _softened(paint: np.ndarray, share: np.ndarray, sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """The same with soft edges, and darker there."""
    rows, columns = np.flatnonzero(share.any(1)), np.flatnonzero(share.any(0))
    if not len(rows):
        return paint, share
    grow = int(np.ceil(4 * sigma_px)) + 1
    box = (slice(max(rows[0] - grow, 0), rows[-1] + grow), slice(max(columns[0] - grow, 0), columns[-1] + grow))
    inner, weight = paint[box] * share[box][..., None], share[box]
    soft = cv2.GaussianBlur(weight, (0, 0), sigma_px)
    colour = cv2.GaussianBlur(inner, (0, 0), sigma_px) / np.maximum(soft, 1e-4)[..., None]
    keep = np.where(weight[..., None] > 0, paint[box], colour)
    paint, share = paint.copy(), share.copy()
    paint[box], share[box] = keep, np.where(weight > 0, weight, soft)
    return paint, share


def _paint_behind(
    portrait: MovablePortrait, field: np.ndarray, part: np.ndarray, paint: np.ndarray, share: np.ndarray
) -> None:
    """Put the background on the paint where the person is not, in place."""
    if portrait.mask is None or portrait.background is None:
        return
    person = _sampled(portrait.mask, field)
    beyond = field[..., 1] < 0
    height = portrait.above[np.clip(field[beyond, 0], 0, portrait.image.shape[0] - 1).astype(int)]
    person[beyond] *= np.clip((height + field[beyond, 1]) / _TOP_EDGE_PX, 0, 1)
    person[part != 255] = 1.0
    back = cv2.resize(portrait.background, part.shape, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    flat, flat_paint = share.reshape(-1), paint.reshape(-1, 3)
    chosen = np.flatnonzero(person < _HARDLY)
    old = flat.take(chosen)
    added = (1 - old) * (1 - np.clip(person.take(chosen), 0, 1))
    total = np.maximum(old + added, 1e-4)
    ahead, behind = (old / total)[:, None], (added / total)[:, None]
    flat_paint[chosen] = flat_paint.take(chosen, axis=0) * ahead + back.take(chosen, axis=0) * behind
    flat[chosen] = total


def _sampled(image: np.ndarray, field_px: np.ndarray) -> np.ndarray:
    x, y = field_px[..., 0] - np.float32(0.5), field_px[..., 1] - np.float32(0.5)
    return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _mirrored(field_px: np.ndarray, side: int) -> np.ndarray:
    """Places with those beyond the portrait mirrored, at the top stretched: what is repeated there is streaks."""
    x, y = field_px[..., 0], field_px[..., 1]
    y = np.maximum(y, -_TOP_STRETCH * y)
    return np.stack([side - np.abs(side - np.abs(x)), side - np.abs(side - y)], axis=-1)


def compose(portrait: MovablePortrait, moved: Moved) -> np.ndarray:
    """Picture of a moved portrait, (S, S, 3) uint8 RGB."""
    side = portrait.image.shape[0]
    found = _sampled(portrait.image, _mirrored((moved.field + 1) * np.float32(side / 2), side))
    painted = np.flatnonzero(moved.paint_share)
    flat, share = found.reshape(-1, 3), moved.paint_share.reshape(-1).take(painted)[:, None]
    own = flat.take(painted, axis=0)
    flat[painted] = own + share * (moved.paint.reshape(-1, 3).take(painted, axis=0) - own)
    return cv2.convertScaleAbs(np.maximum(found, 0, out=found))


def moved_image(portrait: MovablePortrait, motion: FaceMotion, size_px: int, supersample: int = 1) -> np.ndarray:
    """Move and compose: image of a portrait in motion, (S, S, 3) uint8 RGB.

    Args:
        supersample: samples per pixel and axis; 2 smooths the edges of lids, lips and cheeks.
    """
    fine = compose(portrait, move(portrait, motion, size_px * supersample))
    return fine if supersample == 1 else cv2.resize(fine, (size_px, size_px), interpolation=cv2.INTER_AREA)
