"""Heads made from photographs, with the ground truth of the rendered ones: same motion in, same ``Render`` out.

A photograph is fitted once and moved by geometry (``vision/face_move``). Its face at rest counts as neutral, as it
does for whoever uses a photograph as a portrait.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from personalive.errors import InputError
from personalive.synthetic.motion import EXPRESSION_INDEX, Motion, project, rotation
from personalive.synthetic.renderer import Render
from personalive.synthetic.template import HEAD_UNIT
from personalive.vision.face_fit import Fit, fit_face
from personalive.vision.face_model import EYE, GUM, MOUTH, SIDES, TOOTH, face_model
from personalive.vision.face_move import FaceMotion, move, moved_image, moved_places
from personalive.vision.face_portrait import MovablePortrait, movable_portrait

MODEL_UNIT = HEAD_UNIT / 11.1  # canonical units per unit of the morphable face: from the eyes to the chin it has 11.1
ORIGIN = np.array([0.0, 3.5, 2.2])  # of canonical space, in units of the morphable face
_FLIP = np.diag([1.0, -1.0, -1.0])  # y up and z to the camera, to y down and z away

# Places of KEYPOINT_NAMES on the average face, in its units; None: a landmark or a rim of the model says where.
_PLACES = {
    0: (0.0, 14.4, 2.0), 3: (-3.0, 8.5, 9.0), 4: (3.0, 8.5, 9.0), 9: (-5.0, -0.5, 9.0), 10: (5.0, -0.5, 9.0),
    11: (0.0, -1.0, 11.7), 12: (0.0, -0.2, 13.0), 16: (-7.9, 2.4, 1.6), 17: (7.9, 2.4, 1.6), 18: (-6.1, -3.8, 1.6),
    19: (6.1, -3.8, 1.6), 20: (0.0, -7.6, 10.4),
}  # fmt: skip
_SIDED = ("mouthSmile", "mouthFrown", "mouthStretch", "eyeWide", "eyeSquint", "browDown", "browOuterUp", "noseSneer")
_BOTH = {"mouthUpperUp", "mouthLowerDown", "mouthPress", "browInnerUp", "cheekPuff"}
_PLAIN = ("jawOpen", "jawLeft", "jawRight", "mouthPucker", "mouthFunnel")


@lru_cache(maxsize=1)
def _expression_map() -> np.ndarray:
    """(E, rendered heads' expressions) values of the morphable face from theirs."""
    model = face_model()
    table = np.zeros((len(model.expression_names), len(EXPRESSION_INDEX)), np.float32)
    for name in _PLAIN:
        table[model.index(name), EXPRESSION_INDEX[name]] = 1
    for name in (*_SIDED, *_BOTH):
        for side in ("Left", "Right"):
            source = name if name in _BOTH else name + side
            table[model.index(f"{name}_{side[0]}"), EXPRESSION_INDEX[source]] = 1
    return table


@lru_cache(maxsize=1)
def _keypoint_vertices() -> np.ndarray:
    """(21,) vertices; those of the eyes are the fronts of the eyeballs."""
    model = face_model()
    found = np.zeros(21, np.int64)
    for k, place in _PLACES.items():
        found[k] = np.linalg.norm(model.neutral - np.array(place, np.float32), axis=1).argmin()
    right, left = (model.rims[f"lid_upper_{side}"] for side in SIDES)
    found[[5, 6, 7, 8]] = right[0], right[-1], left[-1], left[0]
    found[[13, 14]] = [model.rims[f"lip_outer_upper_{side}"][0] for side in SIDES]
    found[15] = model.rims["lip_inner_upper_right"][-1]
    balls = np.flatnonzero(model.part == EYE)
    found[[1, 2]] = balls[0], balls[len(balls) // 2]
    return found


def face_motion(motion: Motion, fit: Fit, size_px: int) -> FaceMotion:
    """Motion of a synthetic head on a fitted portrait of side ``size_px``: pose absolute, expression from rest."""
    eyes = (motion["eyeLookX"], motion["eyeLookY"])
    expression = _expression_map() @ motion.expression
    model = face_model()
    for side in "RL":
        expression[model.index(f"eyeLookDown_{side}")] = max(eyes[1], 0.0)
        expression[model.index(f"eyeLookUp_{side}")] = max(-eyes[1], 0.0)
    turn = _FLIP @ rotation(motion.yaw_deg, motion.pitch_deg, motion.roll_deg).T @ _FLIP @ fit.pose.rotation.T
    scale = motion.scale * MODEL_UNIT * size_px / 2 / fit.pose.scale_px
    closing = (float(motion["eyeBlinkRight"]), float(motion["eyeBlinkLeft"]))
    return FaceMotion(expression, closing, eyes, turn, float(scale))


@dataclass(frozen=True, eq=False)
class PhotoHead:
    """One head from a photograph.

    Attributes:
        portrait: prepared for moving.
        canonical_keypoints: (21, 3) float32, as of a rendered head; they depend on the person alone.
    """

    portrait: MovablePortrait
    canonical_keypoints: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, landmarks_px: np.ndarray, person_mask: np.ndarray | None = None) -> PhotoHead:
        """Head of a square photograph.

        Args:
            image: (S, S, 3) uint8 RGB.
            landmarks_px: (478, 2 or 3) in its pixels.
            person_mask: (h, w) uint8 over the whole image, person 255.
        """
        fit = fit_face(landmarks_px)
        rest = fit.shape - np.tensordot(fit.expression.astype(np.float32), face_model().expressions, 1)
        canonical = MODEL_UNIT * (rest[_keypoint_vertices()] - ORIGIN) @ _FLIP
        return cls(movable_portrait(image, fit, person_mask), canonical.astype(np.float32))

    def render(self, motion: Motion, size_px: int = 256, supersample: int = 2) -> Render:
        """Render one frame, like ``synthetic.render``; 40 ms at 256 px, a third with one sample.

        Raises:
            InputError: a size out of range.
        """
        if not 16 <= size_px <= 4096 or not 1 <= supersample <= 4:
            raise InputError(
                f"render: size_px {size_px} x{supersample} is out of range; use 16..4096 and 1..4 samples"
            )
        placed = self._placed(motion)
        moved = move(self.portrait, placed, size_px)
        inside = (moved.part == MOUTH) | (moved.part == GUM) | (moved.part == TOOTH)
        face = moved.part != 255
        return Render(
            image=moved_image(self.portrait, placed, size_px, supersample),
            canonical_keypoints=self.canonical_keypoints.copy(),
            keypoints=project(self.canonical_keypoints, motion).astype(np.float32),
            motion=motion,
            face_mask=face,
            eyes_mask=moved.part == EYE,
            mouth_mask=face & (inside | _lips(moved.places_px, size_px)),
        )

    def _placed(self, motion: Motion) -> FaceMotion:
        """Motion with the shift that takes the origin of canonical space to where the motion says."""
        fit, side = self.portrait.fit, self.portrait.image.shape[0]
        centred = face_motion(motion, fit, side)
        chosen = _keypoint_vertices()[[1, 2, 5, 8, 16, 17]]  # eyes and ears: no expression moves them
        found = moved_places(
            fit, dataclasses.replace(centred, expression=0 * centred.expression, closing=(0, 0)), side
        )
        wanted = project(self.canonical_keypoints[[1, 2, 5, 8, 16, 17]], motion)[:, :2] * 0.5 + 0.5
        shift = (wanted - found[0][chosen, :2] / side).mean(0)
        return dataclasses.replace(centred, shift=(float(shift[0]), float(shift[1])))


def _lips(places_px: np.ndarray, size_px: int) -> np.ndarray:
    """(S, S) bool, inside the lips' outer rims."""
    model = face_model()
    mask = np.zeros((size_px, size_px), np.uint8)
    for side in SIDES:
        rims = [model.rims[f"lip_outer_{row}_{side}"] for row in ("upper", "lower")]
        outline = np.concatenate([places_px[rims[0], :2], places_px[rims[1], :2][::-1]]) - 0.5
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    return mask > 0
