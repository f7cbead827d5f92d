"""One person's head as arrays ready for rendering (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from personalive.synthetic import parts
from personalive.synthetic.fields import expression_fields, identity_offset, jaw_rotation
from personalive.synthetic.hair import LONG_STYLES, hair_edge, hair_parts
from personalive.synthetic.identity import Identity
from personalive.synthetic.palette import build_palette
from personalive.synthetic.parts import Part, make_part
from personalive.synthetic.template import (
    EYE_R,
    EYE_X,
    EYE_Z,
    HEAD_UNIT,
    MOUTH_Y,
    SLIT_MOUTH,
    Template,
    bump,
    smoothstep,
    template,
)

KEYPOINT_NAMES: tuple[str, ...] = (
    "crown",
    "eye_right",
    "eye_left",
    "brow_right",
    "brow_left",
    "eye_corner_right_outer",
    "eye_corner_right_inner",
    "eye_corner_left_inner",
    "eye_corner_left_outer",
    "cheek_right",
    "cheek_left",
    "nose_base",
    "nose_tip",
    "mouth_corner_right",
    "mouth_corner_left",
    "mouth_centre",
    "ear_right",
    "ear_left",
    "jaw_right",
    "jaw_left",
    "chin",
)
"""The 21 canonical keypoints; right is the character's own and lies left in a frontal image. All are points
of the neutral face's surface (``brow_*`` lie on the forehead above the brows, ``ear_*`` at the ears).
``eye_*`` are the fronts of the eyeballs. The seven drawn points lie on the surface. The corners of the mouth
leave out the slight resting smile (1 pixel of 256), the outer corners of the eyes the lid's bulge over the
eyeball (at most 4 pixels)."""

_KEYPOINT_PLACES = np.array(  # template x, y; z < 0 unless the third value says otherwise
    [
        [0.0, -0.97, 0],
        [-EYE_X, 0.0, 0],
        [EYE_X, 0.0, 0],
        [-0.27, -0.45, 0],
        [0.27, -0.45, 0],
        [-0.463, 0.0, 0],
        [-0.147, 0.0, 0],
        [0.147, 0.0, 0],
        [0.463, 0.0, 0],
        [-0.45, 0.36, 0],
        [0.45, 0.36, 0],
        [0.0, 0.47, 0],
        [0.0, 0.355, 0],
        [-SLIT_MOUTH, MOUTH_Y - 0.017, 0],
        [SLIT_MOUTH, MOUTH_Y - 0.017, 0],
        [0.0, MOUTH_Y, 0],
        [-0.71, 0.1, 0.05],
        [0.71, 0.1, 0.05],
        [-0.55, 0.66, 0.05],
        [0.55, 0.66, 0.05],
        [0.0, 0.99, 0],
    ]
)


@dataclass(frozen=True, eq=False)
class HeadModel:
    """Arrays of one person; V vertices, T triangles, F displacement fields over the first H vertices.

    All floats are float32. ``neutral`` has closed lids: the lids open by fields. ``eyes`` (2, 4) are the
    eyeballs' centres and radii, ``keypoints`` (21, 3) float32 is in canonical units, the rest in head units.
    """

    neutral: np.ndarray
    fields: np.ndarray
    field_names: tuple[str, ...]
    triangles: np.ndarray
    kinds: np.ndarray
    rest: np.ndarray
    occlusion: np.ndarray
    cut: np.ndarray
    body: np.ndarray
    weld: np.ndarray
    lids: np.ndarray
    lid_share: np.ndarray
    eyes: np.ndarray
    palette: np.ndarray
    keypoints: np.ndarray


def _head_part(t: Template, who: Identity) -> Part:
    p = t.rest
    x, y, z = p.T
    a = np.abs(x)
    phi = np.arctan2(x, -(z - 0.05))
    shade = (
        1.0
        - 0.30 * bump(a, y, (0.22, -0.03), (0.16, 0.085)) * (z < -0.3)
        - 0.10 * bump(a, y, (0.16, 0.02), (0.07, 0.07)) * (z < -0.3)
    )
    shade -= 0.25 * bump(a, y, (0.155, 0.42), (0.05, 0.07)) * (z < -0.3) + 0.30 * bump(
        a, y, (0.0, 0.475), (0.12, 0.03)
    ) * (z < -0.3)
    shade -= 0.28 * bump(a, y, (0.0, 0.755), (0.15, 0.035)) * (z < -0.3)
    under = smoothstep(0.97, 1.08, y) + smoothstep(-0.62, -0.45, z) * smoothstep(0.90, 0.98, y)
    shade *= 1.0 - 0.60 * np.clip(under, 0, 1)
    below = y - hair_edge(who, phi)
    if who.hair_style not in {"bald", "buzz"}:
        shade *= 1.0 - 0.45 * smoothstep(0.20, -0.03, below) * smoothstep(1.0, 0.7, y)
    if who.hair_style in LONG_STYLES:
        shade *= 1.0 - 0.5 * smoothstep(-0.45, 0.1, z) * smoothstep(-0.3, 0.2, y)
    shade *= 1.0 - 0.35 * bump(z, y, (0.22, 0.12), (0.14, 0.22)) * (a > 0.5)
    body = smoothstep(0.95, 1.32, y) * smoothstep(-0.52, -0.25, z)
    points = p + identity_offset(p, who)
    return make_part(parts.HEAD, points, p, t.triangles, np.clip(shade, 0.12, 1), 1.0, body)


def _eyes(who: Identity) -> np.ndarray:
    at = np.array([[EYE_X, 0.0, -0.66], [-EYE_X, 0.0, -0.66]])
    centres = np.array([[EYE_X, 0.0, EYE_Z], [-EYE_X, 0.0, EYE_Z]]) + identity_offset(at, who)
    return np.hstack([centres, np.full((2, 1), EYE_R * (1.0 + 0.085 * who.eye_size))])


def _all_parts(t: Template, who: Identity, eyes: np.ndarray) -> list[Part]:
    half_width = 0.72 * (1.0 + 0.075 * who.head_width)
    everything = [_head_part(t, who)]
    everything += [parts.eyeball(eye[:3], eye[3]) for eye in eyes]
    everything += [*parts.teeth(1.0 + 0.10 * who.mouth_width), parts.tongue()]
    if who.hair_style not in LONG_STYLES:
        everything += parts.ears(who, half_width)
    everything += hair_parts(who)
    everything.append(parts.torso(who))
    if who.glasses > 0.5:
        everything += parts.glasses(who, eyes[0], half_width)
    return everything


def _keypoints(t: Template, points: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    side = np.abs(t.rest[:, 2] - 0.05) < 0.06
    front = t.rest[:, 2] < -0.05
    chosen = []
    for x, y, z in _KEYPOINT_PLACES:
        distance = np.hypot(t.rest[:, 0] - x, t.rest[:, 1] - y)
        distance = np.where(side if z else front | (y < -0.9), distance, 9.0)
        chosen.append(int(np.argmin(distance)))
    keypoints = points[chosen].copy()
    keypoints[1] = eyes[1, :3] - [0, 0, eyes[1, 3]]
    keypoints[2] = eyes[0, :3] - [0, 0, eyes[0, 3]]
    return (HEAD_UNIT * keypoints).astype(np.float32)


def _fields(t: Template, everything: list[Part]) -> tuple[tuple[str, ...], np.ndarray]:
    head = expression_fields(t.rest, t.side)
    count = sum(len(part.points) for part in everything)
    last = max(i for i, part in enumerate(everything) if part.jaw.any())
    used = sum(len(part.points) for part in everything[: last + 1])
    table = np.zeros((len(head), count, 3), np.float32)
    table[:, : len(t.rest)] = np.stack(list(head.values()))
    names = tuple(head)
    start = 0
    for part in everything:
        stop = start + len(part.points)
        if part.jaw.any():
            table[names.index("jawOpen"), start:stop] = jaw_rotation(part.points, part.jaw)
            table[names.index("jawLeft"), start:stop, 0] = 0.10 * part.jaw
            table[names.index("jawRight"), start:stop, 0] = -0.10 * part.jaw
        start = stop
    return names, np.ascontiguousarray(table[:, :used])


@lru_cache(maxsize=16)
def head_model(who: Identity) -> HeadModel:
    """Build (and keep) the arrays of one person; tens of milliseconds."""
    t = template()
    eyes = _eyes(who)
    everything = _all_parts(t, who, eyes)
    starts = np.cumsum([0] + [len(part.points) for part in everything[:-1]])
    names, fields = _fields(t, everything)
    x, y, z = t.rest.T
    share = smoothstep(1.30, 0.95, np.hypot((np.abs(x) - EYE_X) / 0.21, y / 0.20)) * (z < -0.3)
    lids = np.flatnonzero(share > 0.0)

    def gather(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in everything]).astype(np.float32)

    return HeadModel(
        neutral=gather("points"),
        fields=fields,
        field_names=names,
        triangles=np.concatenate([p.triangles + s for p, s in zip(everything, starts, strict=True)]).astype(np.int32),
        kinds=np.concatenate([np.full(len(p.triangles), p.kind, np.int32) for p in everything]),
        rest=gather("rest"),
        occlusion=gather("occlusion"),
        cut=gather("cut"),
        body=gather("body"),
        weld=t.weld,
        lids=lids.astype(np.int32),
        lid_share=share[lids].astype(np.float32),
        eyes=eyes.astype(np.float32),
        palette=build_palette(who),
        keypoints=_keypoints(t, everything[0].points, eyes),
    )
