"""A portrait with everything that moving it needs and that is computed once."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.errors import InputError
from personalive.vision.face_fit import Fit
from personalive.vision.face_model import SIDES, SKIN, face_model
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
from personalive.vision.face_surround import Surround, build_surround

_ACROSS_BLUR = 1.5  # of ``_FILL_SIDE``
_FILL_SIDE = 128  # at which the background behind the person is made up
_TOP_ROWS = 1 / 32  # of the side: rows at the top in which the outline's slope is measured
_PERSON = 127  # of a mask, above it is more person than background
_TOP_DOUBT = 0.01  # of the side: masks are wider than heads, which shows at a flat top
_LEAST_SLOPE_DEG = 20.0  # of an outline that goes on beyond the top
_TEXTURE = 2.0  # of the texture's median, most of it that is mirrored
# Of the side: finest blur that is no detail, how far detail is mirrored, and blur of the outline it is mirrored at.
_DETAIL, _DETAIL_REACH, _OUTLINE = 0.02, 0.12, 0.03
_MASK_EDGE = (0.15, 0.65)  # of a person mask: below it is background, above it is person


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
        above: (S,) rows by which the person goes on beyond the portrait's top in each column.
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
    above: np.ndarray


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
        above=_above_top(person_mask, side),
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
    known = (cv2.dilate(mask, np.ones((3, 3)), iterations=max(side // 120, 1)) < 0.02).astype(np.float32)
    known = cv2.erode(known, np.ones((3, 3)))
    edge = cv2.GaussianBlur(known, (0, 0), 1.5)[..., None] * known[..., None]
    made_up = np.clip(_continued(image, known) + _mirrored_detail(image, known), 0, 255)
    return mask, image * edge + made_up * (1 - edge)


def _above_top(person_mask: np.ndarray | None, side: int) -> np.ndarray:
    """Rows (S,) by which a head that the portrait's top cuts off goes on: the arc that its outline begins."""
    if person_mask is None:
        return np.zeros(side, np.float32)
    rows = max(int(_TOP_ROWS * side), 1)
    person = cv2.resize(person_mask, (side, side), interpolation=cv2.INTER_LINEAR)[[0, rows]] > _PERSON
    above = np.zeros(side, np.float32)
    for first, last in _runs(person[0]):
        below = [run for run in _runs(person[1]) if run[0] < last and run[1] > first]
        inward = sum(first - run[0] + run[1] - last for run in below[:1]) / (2 * rows)
        slope = max(np.arctan2(1, inward), np.radians(_LEAST_SLOPE_DEG))
        half = (last - first) / 2
        radius = half / np.sin(slope)
        across = np.arange(first, last) + 0.5 - (first + last) / 2
        above[first:last] = np.sqrt(np.maximum(radius**2 - across**2, 0)) - radius * np.cos(slope)
    return np.maximum(above - _TOP_DOUBT * side, 0)


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    """First column and the one after the last of each run of true ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _mirrored_detail(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Texture (S, S, 3) of the known pixels mirrored at their edge, fading with the distance: else a halo of blur."""
    side = image.shape[0]
    unknown = (known < 0.5).astype(np.uint8)
    if not known.any() or not unknown.any():
        return np.zeros_like(image)
    beyond = cv2.distanceTransform(unknown, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - unknown, cv2.DIST_L2, 5)
    away = cv2.GaussianBlur(beyond, (0, 0), _OUTLINE * side)  # smooth, so that the mirror is: outlines are jagged
    down, right = np.gradient(away)
    slope = 2 * away / np.maximum(down**2 + right**2, 0.25)
    row, column = np.mgrid[:side, :side].astype(np.float32)
    y, x = row - slope * down, column - slope * right
    inside = (y >= 0) & (y <= side - 1) & (x >= 0) & (x <= side - 1)
    sigma = _DETAIL * side
    weight = cv2.GaussianBlur(known, (0, 0), sigma)
    smooth = cv2.GaussianBlur(image * known[..., None], (0, 0), sigma) / np.maximum(weight, 1e-3)[..., None]
    detail = (image - smooth) * known[..., None]
    near = (known > 0.5) & (away > -_DETAIL_REACH * side)
    usual = np.median(np.abs(detail[near]), axis=0) if near.any() else np.zeros(3)
    detail = np.clip(detail, -_TEXTURE * usual, _TEXTURE * usual)  # outlines of things are no texture
    mirrored = cv2.remap(np.dstack([detail, known]), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    share = inside * unknown * mirrored[..., 3] * np.exp(-((away / (_DETAIL_REACH * side)) ** 2))
    return (mirrored[..., :3] * share[..., None]).astype(np.float32)


def _continued(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Known pixels (mask (S, S)) carried on into the others, coarser with the distance: (S, S, 3)."""
    side = image.shape[0]
    small = min(side, _FILL_SIDE)
    weight = cv2.resize(known, (small, small), interpolation=cv2.INTER_AREA)
    colour = cv2.resize(image * known[..., None], (small, small), interpolation=cv2.INTER_AREA)
    colour, weight = _carried_across(colour, weight)
    total, share, sigma = np.zeros_like(colour), np.zeros_like(weight), 1.0
    while sigma < small:  # the finest that knows anything counts
        near = cv2.GaussianBlur(weight, (0, 0), sigma)
        gain = (1 - share) * np.clip(near * 8, 0, 1)
        total += (gain / np.maximum(near, 1e-6))[..., None] * cv2.GaussianBlur(colour, (0, 0), sigma)
        share += gain
        sigma *= 2
    filled_in = total / np.maximum(share, 1e-6)[..., None]
    return cv2.resize(filled_in, (side, side), interpolation=cv2.INTER_LINEAR)


def _carried_across(colour: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted colours (S, S, 3) and weights (S, S) with what lies between known pixels of a row made up from those.

    What is behind people goes on across rather than downwards: walls, furniture, the horizon.
    """
    side = colour.shape[0]
    known = weight > 0.5
    column = np.broadcast_to(np.arange(side), known.shape)
    left = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, column, side)[:, ::-1], axis=1)[:, ::-1]
    between = ~known & (left >= 0) & (right < side)
    row, here = np.nonzero(between)
    first, last = left[between], right[between]
    share = ((here - first) / (last - first))[:, None].astype(np.float32)
    made = _blurred(colour, weight)
    made[between] = (1 - share) * made[row, first] + share * made[row, last]
    found = np.where(between, np.float32(1), weight)
    made = _blurred(made * found[..., None], found)
    return np.where(between[..., None], made, colour), found


def _blurred(colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted colours (S, S, 3) blurred, and divided by their weights (S, S)."""
    near = cv2.GaussianBlur(weight, (0, 0), _ACROSS_BLUR)
    return cv2.GaussianBlur(colour, (0, 0), _ACROSS_BLUR) / np.maximum(near, 1e-6)[..., None]
