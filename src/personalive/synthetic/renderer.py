"""A person and a motion to an image with ground truth (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from personalive.errors import InputError
from personalive.synthetic import palette as pal
from personalive.synthetic.identity import Identity
from personalive.synthetic.model import HeadModel, head_model
from personalive.synthetic.motion import Motion, project, rotation
from personalive.synthetic.palette import background
from personalive.synthetic.raster import deform, hug_eyeballs, rasterise, vertex_normals
from personalive.synthetic.shade import shade
from personalive.synthetic.template import HEAD_UNIT

_NECK = np.array([0.0, 0.95, 0.22])  # joint between head and shoulders, head units
_BODY_SHARE = (0.30, 0.10, 0.15)  # share of yaw, pitch and roll that the shoulders take
_REST_SMILE = 0.22
_BODY_FOLLOW = 0.75  # how far the shoulders follow the neck joint sideways


@dataclass(frozen=True, eq=False, slots=True)
class Render:
    """One frame with its ground truth; S is the image's side in pixels.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        canonical_keypoints: (21, 3) float32, ``KEYPOINT_NAMES``; they depend on the person alone.
        keypoints: (21, 3) float32, ``scale * (canonical @ R) + (tx, ty, 0)``; pixel = (p * 0.5 + 0.5) * S.
        motion: the motion rendered.
        face_mask: (S, S) bool, visible face: skin in front of the ears, eyes, lips and mouth; without hair.
        eyes_mask: (S, S) bool, visible eyeballs.
        mouth_mask: (S, S) bool, visible lips, teeth, tongue and mouth cavity.
    """

    image: np.ndarray
    canonical_keypoints: np.ndarray
    keypoints: np.ndarray
    motion: Motion
    face_mask: np.ndarray
    eyes_mask: np.ndarray
    mouth_mask: np.ndarray


@lru_cache(maxsize=16)
def _background(who: Identity, size_px: int) -> np.ndarray:
    return background(who, size_px)


def field_weights(who: Identity, motion: Motion) -> dict[str, float]:
    """Weights of the displacement fields: expressions, blink, width and gaze as lid openings."""
    weights = {name: motion[name] for name in _PLAIN_FIELDS}
    jaw = motion["jawOpen"]
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        weights[name] += _REST_SMILE * (1.0 - jaw)  # level corners: the template's droop a little
    weights["mouthUpperUp"] += 0.22 * jaw
    weights["mouthLowerDown"] += 0.10 * jaw
    open_eye = 1.0 + 0.16 * who.eye_openness
    for side in ("Left", "Right"):
        blink = float(np.clip(motion[f"eyeBlink{side}"], 0.0, 1.0))
        squint, wide = motion[f"eyeSquint{side}"], motion[f"eyeWide{side}"]
        smile = motion[f"mouthSmile{side}"]
        upper = open_eye * (1.0 + 0.35 * wide - 0.22 * squint) - 0.25 * motion["eyeLookY"]
        lower = open_eye * (1.0 + 0.15 * wide - 0.75 * squint - 0.35 * smile) + 0.15 * motion["eyeLookY"]
        weights[f"lidLine{side}"] = blink
        weights[f"upperLid{side}"] = max(upper, 0.0) * (1.0 - blink)
        weights[f"lowerLid{side}"] = max(lower, 0.0) * (1.0 - blink)
    return weights


_PLAIN_FIELDS = (
    *(
        "jawOpen",
        "jawLeft",
        "jawRight",
        "mouthSmileLeft",
        "mouthSmileRight",
        "mouthFrownLeft",
        "mouthFrownRight",
    ),
    *(
        "mouthPucker",
        "mouthFunnel",
        "mouthStretchLeft",
        "mouthStretchRight",
        "mouthUpperUp",
        "mouthLowerDown",
    ),
    *("mouthPress", "browInnerUp", "browDownLeft", "browDownRight", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "noseSneerLeft", "noseSneerRight"),
)


def posed_vertices(who: Identity, motion: Motion) -> np.ndarray:
    """Deformed vertices (V, 3) float32 in canonical units, before the head's rotation."""
    model = head_model(who)
    weights = field_weights(who, motion)
    active = [i for i, name in enumerate(model.field_names) if abs(weights[name]) > 1e-4]
    values = np.array([weights[model.field_names[i]] for i in active], np.float32)
    points = np.empty_like(model.neutral)
    deform(model.neutral, model.fields, np.array(active, np.int64), values, points)
    hug_eyeballs(points, model.lids, model.lid_share, model.eyes)
    return points * np.float32(HEAD_UNIT)


def _place(points: np.ndarray, model: HeadModel, motion: Motion) -> np.ndarray:
    """Vertices in image space: the head by ``project``, shoulders by a calmer pose, the neck between."""
    R = rotation(motion.yaw_deg, motion.pitch_deg, motion.roll_deg).astype(np.float32)
    shares = np.multiply((motion.yaw_deg, motion.pitch_deg, motion.roll_deg), _BODY_SHARE)
    R_body = rotation(*shares).astype(np.float32)
    neck = (HEAD_UNIT * _NECK).astype(np.float32)
    shift = np.array([motion.tx, motion.ty, 0.0], np.float32)
    head = motion.scale * (points @ R) + shift
    follow = np.array([_BODY_FOLLOW, _BODY_FOLLOW, 1.0], np.float32)
    offset = shift + np.float32(motion.scale) * follow * (neck @ R - neck @ R_body)
    moved = np.flatnonzero(model.body > 0)
    body = np.float32(motion.scale) * (points[moved] @ R_body) + offset
    w = model.body[moved, None]
    head[moved] = (1 - w) * head[moved] + w * body
    return head.astype(np.float32)


def render(who: Identity, motion: Motion, size_px: int = 256, supersample: int = 2) -> Render:
    """Render one frame.

    Args:
        who: the person.
        motion: head pose and expression.
        size_px: side of the square image, 16..4096.
        supersample: samples per pixel and axis, 1..4.

    Raises:
        InputError: a size or a sample count out of range.
    """
    if not 16 <= size_px <= 4096 or not 1 <= supersample <= 4:
        raise InputError(f"render: size_px {size_px} x{supersample} is out of range; use 16..4096 and 1..4 samples")
    model = head_model(who)
    placed = _place(posed_vertices(who, motion), model, motion)
    normals = np.empty_like(placed)
    vertex_normals(placed, model.triangles, model.weld, normals)
    side = size_px * supersample
    pixels = (placed[:, :2] * 0.5 + 0.5) * np.float32(side) - np.float32(0.5)
    u = _frame_palette(model, motion)
    zbuffer, ids = np.empty((side, side), np.float32), np.empty((side, side), np.int32)
    depth = np.ascontiguousarray(placed[:, 2])
    rasterise(pixels, depth, model.triangles, model.kinds, model.cut, model.rest, float(u[pal.CURL]), zbuffer, ids)
    image, masks = np.empty((size_px, size_px, 3), np.uint8), np.empty((size_px, size_px), np.uint8)
    back = _background(who, size_px)
    shade(
        *(ids, model.triangles, model.kinds, pixels, normals, model.rest, model.occlusion),
        *(u, back, supersample, image, masks),
    )
    keypoints = project(model.keypoints, motion).astype(np.float32)
    bits = [(masks & bit) > 0 for bit in (1, 2, 4)]
    return Render(image, model.keypoints.copy(), keypoints, motion, *bits)


def _frame_palette(model: HeadModel, motion: Motion) -> np.ndarray:
    u = model.palette.copy()
    R = rotation(motion.yaw_deg, motion.pitch_deg, motion.roll_deg)
    u[pal.DOWN : pal.DOWN + 3] = R[1]
    u[pal.GAZE_X], u[pal.GAZE_Y] = motion["eyeLookX"], motion["eyeLookY"]
    return u
