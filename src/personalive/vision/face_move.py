"""A photograph moved by geometry: a portrait, its fitted face and a motion to a picture (ours).

Pixels are borrowed from the portrait by a sampling field; what it does not show (the mouth's inside, the eye behind
the lids, the background behind the head) is painted. No learning, no torch. Letters as in face_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.errors import InputError
from personalive.vision.face_fit import Fit
from personalive.vision.face_model import EYE, GUM, MOUTH, PIVOT, SIDES, SKIN, TOOTH, face_model
from personalive.vision.face_paint import (
    LidPatch,
    completed_eye,
    filled,
    image_level,
    mouth_colours,
    open_mouth,
    rim_outline,
    shut_lid,
    teeth_colour,
)
from personalive.vision.face_surround import Surround, build_surround, surround_field
from personalive.vision.mesh_raster import Raster, rasterise, towards_camera

# Added to depth by part: skin that looks at the camera is before all, the mouth's wall behind all.
_LAYER_LIFT = np.array([1e5, -1e5, 0.0, 0.0, 0.0], np.float32)
_DISTANCE = 45.0  # model units from the head to the camera, as to a laptop's
_GAZE_DEG = 28.0  # turn of an eyeball at full strength of eyeLook
_MASK_EDGE = (0.15, 0.65)  # of a person mask: below it is background, above it is person
_LINE_SHADE = 0.5  # darkness of the mouth beside the lips


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
class MovablePortrait:
    """A portrait with everything that is computed once; S is its side.

    Attributes:
        image: (S, S, 3) float32, 0 to 255, RGB.
        fit: of its face, in its pixels.
        texture_px: (V, 2) where in the portrait each vertex takes its pixels.
        colours: (V, 3) of the mouth's inside.
        mouth: (S, S) soft mask of the open mouth, whose pixels serve as they are.
        lids: the right and the left upper lid as shut.
        eyes: for each side a patch of the whole eye and the place of its first pixel.
        surround: hair, ears, neck and shoulders.
        mask: (S, S) float32 of the person, or None; with ``background`` (S, S, 3) behind it.
    """

    image: np.ndarray
    fit: Fit
    texture_px: np.ndarray
    colours: np.ndarray
    mouth: np.ndarray
    lids: tuple[LidPatch, ...]
    eyes: tuple[tuple[np.ndarray, tuple[int, int]], ...]
    surround: Surround
    mask: np.ndarray | None
    background: np.ndarray | None


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


def movable_portrait(image: np.ndarray, fit: Fit, person_mask: np.ndarray | None = None) -> MovablePortrait:
    """Prepare a portrait; tens of milliseconds at 512 px.

    Args:
        image: (S, S, 3) uint8 RGB.
        fit: of its face, in its pixels.
        person_mask: (h, w) of any size over the whole portrait, uint8 with the person at 255.

    Raises:
        InputError: an image that is not square.
    """
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3:
        raise InputError(f"portrait of shape {image.shape}: give a square RGB image")
    model, side = face_model(), image.shape[0]
    pixels = image.astype(np.float32)
    placed = fit.pose.place(fit.shape)
    mouth = open_mouth(model, fit, placed, side)
    face = filled(cv2.convexHull(placed[model.oval > 0.3, :2].astype(np.float32))[:, 0], (side, side), 0)
    level = image_level(pixels[face > 0.5]) if (face > 0.5).any() else 128.0
    outlines = [rim_outline(model, placed, f"lid_upper_{s}", f"lid_lower_{s}") for s in SIDES]
    mask, background = _layers(pixels, person_mask)
    return MovablePortrait(
        image=pixels,
        fit=fit,
        texture_px=_texture_places(placed),
        colours=mouth_colours(model, fit, level, teeth_colour(pixels, mouth, level)),
        mouth=mouth,
        lids=tuple(
            shut_lid(pixels, o, placed[model.rims[f"lid_upper_{s}"], :2], fit.pose.scale_px)
            for o, s in zip(outlines, SIDES, strict=True)
        ),
        eyes=tuple(completed_eye(pixels, o, iris) for o, iris in zip(outlines, fit.irises, strict=True)),
        surround=build_surround(model, fit, side, layered=mask is not None),
        mask=mask,
        background=background,
    )


def _texture_places(placed: np.ndarray) -> np.ndarray:
    model = face_model()
    chosen = np.where(model.part == SKIN, model.source, np.arange(len(model.source)))
    return np.ascontiguousarray(placed[chosen, :2])


def _layers(image: np.ndarray, person_mask: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Person's soft mask at the portrait's size, and the background with the person taken out."""
    if person_mask is None:
        return None, None
    side = image.shape[0]
    soft = cv2.resize(person_mask.astype(np.float32) / 255, (side, side), interpolation=cv2.INTER_LINEAR)
    soft = cv2.dilate(soft, np.ones((3, 3)), iterations=max(side // 170, 1))
    mask = np.clip((soft - _MASK_EDGE[0]) / (_MASK_EDGE[1] - _MASK_EDGE[0]), 0, 1)
    known = (cv2.dilate(mask, np.ones((3, 3)), iterations=max(side // 85, 1)) < 0.02).astype(np.float32)
    known = cv2.erode(known, np.ones((3, 3)))
    filling, weight = image * known[..., None], known
    sigma = side / 64
    total, share = np.zeros_like(image), np.zeros_like(known)
    for _ in range(5):  # coarser and coarser, the finest that knows anything counts
        small = cv2.GaussianBlur(filling, (0, 0), sigma)
        near = cv2.GaussianBlur(weight, (0, 0), sigma)
        gain = (1 - share) * np.clip(near * 8, 0, 1)
        total += gain[..., None] * small / np.maximum(near, 1e-6)[..., None]
        share += gain
        sigma *= 2
    filled_in = total / np.maximum(share, 1e-6)[..., None]
    edge = cv2.GaussianBlur(known, (0, 0), 1.5)[..., None]
    return mask, np.where(known[..., None] > 0, image * edge + filled_in * (1 - edge), filled_in)


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
    drawn = _drawn_triangles(scaled)
    parts = model.triangle_part[drawn]
    raster = rasterise(scaled, model.triangles[drawn], size_px, size_px, _LAYER_LIFT[parts])
    part = np.full(size_px * size_px, 255, np.uint8)
    part[raster.pixels] = parts[raster.triangles]
    part = part.reshape(size_px, size_px)
    corners = model.triangles[drawn]
    found = raster.interpolate(corners, np.column_stack([portrait.texture_px, model.oval]).astype(np.float32))
    blend = np.where(parts[raster.triangles] == SKIN, found[:, 2] * found[:, 2] * (3 - 2 * found[:, 2]), 1.0)
    flat = field.reshape(-1, 2)
    flat[raster.pixels] += blend[:, None].astype(np.float32) * (found[:, :2] - flat[raster.pixels])
    paint, share = _painted(portrait, raster, corners, parts, found[:, :2], size_px)
    _paint_lids(portrait, raster, parts, found[:, :2], motion.closing, paint, share)
    paint, share = _behind(portrait, field, part, paint, share)
    return Moved(field * np.float32(2 / side) - 1, paint, share, part, scaled)


def _drawn_triangles(places: np.ndarray) -> np.ndarray:
    """Numbers of the triangles to draw: skin of the face that looks at the camera, eyes and all of the mouth."""
    model = face_model()
    part = model.triangle_part
    face = (part == SKIN) & (model.oval[model.triangles] > 0).any(axis=1)
    outside = face | (part == EYE) | (part == TOOTH) | (part == GUM)
    return np.flatnonzero((outside & towards_camera(places, model.triangles)) | (part == MOUTH))


def _painted(
    portrait: MovablePortrait, raster: Raster, corners: np.ndarray, parts: np.ndarray, at: np.ndarray, size_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Paint and its share for eyes and mouth."""
    paint = np.zeros((size_px * size_px, 3), np.float32)
    share = np.zeros(size_px * size_px, np.float32)
    part = parts[raster.triangles]
    inside = np.flatnonzero((part != SKIN) & (part != EYE))
    if len(inside):
        chosen = Raster(raster.pixels[inside], raster.triangles[inside], raster.weights[inside])
        seen = _look_up(portrait.mouth, at[inside])
        paint[chosen.pixels] = chosen.interpolate(corners, portrait.colours)
        share[chosen.pixels] = 1 - seen
    paint, share = paint.reshape(size_px, size_px, 3), share.reshape(size_px, size_px)
    paint, share = _softened(paint, share, 0.6 * size_px / 256)
    flat, flat_share, middle = paint.reshape(-1, 3), share.reshape(-1), corners[raster.triangles, 0]
    for number, (patch, (x, y)) in enumerate(portrait.eyes):
        right = portrait.fit.shape[middle, 0] < 0
        eye = np.flatnonzero((part == EYE) & (right if number == 0 else ~right))
        if len(eye):
            flat[raster.pixels[eye]] = _look_up(patch, at[eye] - [x, y])
            flat_share[raster.pixels[eye]] = 1.0
    return paint, share


def _paint_lids(
    portrait: MovablePortrait,
    raster: Raster,
    parts: np.ndarray,
    at: np.ndarray,
    closing: tuple[float, float],
    paint: np.ndarray,
    share: np.ndarray,
) -> None:
    """Put the shut lids' skin on the paint as far as they shut, in place."""
    skin = parts[raster.triangles] == SKIN
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


def _behind(
    portrait: MovablePortrait, field: np.ndarray, part: np.ndarray, paint: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paint with the background where the person is not."""
    if portrait.mask is None or portrait.background is None:
        return paint, share
    size_px = field.shape[0]
    person = np.where(part != 255, 1.0, np.clip(_sampled(portrait.mask, field), 0, 1)).astype(np.float32)
    back = cv2.resize(portrait.background, (size_px, size_px), interpolation=cv2.INTER_AREA)
    total = share + (1 - share) * (1 - person)
    colour = (paint * share[..., None] + back * ((1 - share) * (1 - person))[..., None]) / np.maximum(total, 1e-4)[
        ..., None
    ]
    return colour, total


def _sampled(image: np.ndarray, field_px: np.ndarray) -> np.ndarray:
    x, y = field_px[..., 0] - np.float32(0.5), field_px[..., 1] - np.float32(0.5)
    return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def compose(portrait: MovablePortrait, moved: Moved) -> np.ndarray:
    """Picture of a moved portrait, (S, S, 3) uint8 RGB."""
    side = portrait.image.shape[0]
    found = _sampled(portrait.image, (moved.field + 1) * np.float32(side / 2))
    found += moved.paint_share[..., None] * (moved.paint - found)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)
