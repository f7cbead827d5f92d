"""Expression values of a driver, as ARKit or a network names them, to a motion of someone else's portrait (ours).

Driver and portrait differ at rest: what moves the portrait is the driver's way from the driver's own neutral face.
Lids shut by how far the driver's are shut, whatever the portrait's opening.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from personalive.errors import InputError
from personalive.vision.face_model import face_model
from personalive.vision.face_move import FaceMotion

_NEUTRAL_QUANTILE = 0.3  # of each value over a clip; the first frame where that is lower
_OPEN_QUANTILE = 0.25
_SHUT = 0.62  # eyeBlink at which readers see a shut eye
_WIDEST = -0.3
_SMILE_LET_GO = 1.4  # times the portrait's own smile as fitted, which is about half of what is seen
TURN_LIMIT_DEG = (32.0, 20.0)  # to a side, up and down: beyond, images tear
_JAW_SLOPE, _JAW_MOST = 1.7, 1.1  # readers see too little of a jaw that is slightly open
JAW_TRIED = (0.0, 0.25, 0.5, _JAW_MOST)  # of the model's value, at which a portrait's mouth is read
_JAW_RANGE = (0.5, 1.6)  # of the usual opening, within which a portrait's own is held: mouths of one's own tear


def face_values(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Values (F, B) by ARKit's names, as ``mouthSmileLeft``, in the order of the model's expressions: (F, E) float32.

    Raises:
        InputError: as many names as values are needed, and ``jawOpen`` among them.
    """
    at = {name: k for k, name in enumerate(names)}
    if values.ndim != 2 or values.shape[1] != len(names) or "jawOpen" not in at:
        raise InputError(f"expression values of shape {values.shape} with {len(names)} names: give ARKit's, one each")
    model = face_model()
    found = np.zeros((len(values), len(model.expression_names)), np.float32)
    for k, name in enumerate(model.expression_names):
        long = name.replace("_L", "Left").replace("_R", "Right")
        source = next((n for n in (name, long, name[:-2]) if n in at), None)
        if source is not None:
            found[:, k] = values[:, at[source]]
    return found


def driver_neutral(values: np.ndarray) -> np.ndarray:
    """Neutral face of a driver, (E,), from some frames (F, E): robust against a clip that begins in the middle."""
    low = np.minimum(values[0], np.quantile(values, _NEUTRAL_QUANTILE, axis=0))
    model = face_model()
    for name in ("eyeBlink_R", "eyeBlink_L"):
        low[model.index(name)] = np.quantile(values[:, model.index(name)], _OPEN_QUANTILE)
    gaze = [k for k, name in enumerate(model.expression_names) if name.startswith("eyeLook")]
    low[gaze] = np.median(values[:, gaze], axis=0)
    return low


def transferred(
    values: np.ndarray,
    neutral: np.ndarray,
    *,
    rest: np.ndarray | None = None,
    jaw_read: np.ndarray | None = None,
    rotation: np.ndarray | None = None,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> FaceMotion:
    """Motion of a portrait from one frame of a driver.

    Args:
        values: (E,) of the frame.
        neutral: (E,) of the same driver.
        rest: (E,) of the portrait (``Fit.expression``); a smile in it is let go, else the driver's would not be
            seen on it.
        jaw_read: values of ``jawOpen`` that are read off the portrait at ``JAW_TRIED``, so that its mouth opens until
            as much is read as off the driver; None: as far as usual.
        rotation, scale, shift: as in ``FaceMotion``.
    """
    model = face_model()
    change = np.asarray(values - neutral, np.float32).copy()
    blinks = [model.index("eyeBlink_R"), model.index("eyeBlink_L")]
    shut = np.clip(change[blinks] / np.maximum(_SHUT - neutral[blinks], 0.15), _WIDEST, 1.0)
    gaze = _gaze(change)
    change[blinks] = 0.0
    jaw = model.index("jawOpen")
    if change[jaw] > 0:
        change[jaw] = _opened(float(change[jaw]), jaw_read)
    if rest is not None:
        smiles = [model.index("mouthSmile_R"), model.index("mouthSmile_L")]
        change[smiles] -= _SMILE_LET_GO * np.maximum(rest[smiles], 0).astype(np.float32)
    return FaceMotion(change, (float(shut[0]), float(shut[1])), gaze, rotation, scale, shift)


def _opened(jaw: float, jaw_read: np.ndarray | None) -> float:
    """Value of the model's jaw for a driver's, both beyond their rest."""
    usual = _JAW_MOST * (1 - np.exp(-_JAW_SLOPE * jaw))
    if jaw_read is None:
        return usual
    rising = np.maximum.accumulate(jaw_read - jaw_read[0]) + 1e-4 * np.arange(len(jaw_read))
    own = np.interp(jaw, rising, JAW_TRIED)
    return min(float(np.clip(own, _JAW_RANGE[0] * usual, _JAW_RANGE[1] * usual)), _JAW_MOST)


def limited_turn(rotation: np.ndarray, most_deg: tuple[float, float] = TURN_LIMIT_DEG) -> np.ndarray:
    """Rotation (3, 3) with nod and turn held below limits, softly: a photograph does not know what lies behind.

    Args:
        rotation: turn after the portrait's own, as in ``FaceMotion``.
        most_deg: limits of the turn to a side and of the nod; rolling is free.
    """
    vector = cv2.Rodrigues(rotation.astype(np.float64))[0][:, 0]
    for axis, most in ((1, most_deg[0]), (0, most_deg[1])):
        free = 0.6 * np.radians(most)
        rest = np.radians(most) - free
        over = abs(vector[axis]) - free
        if over > 0:
            vector[axis] = np.sign(vector[axis]) * (free + rest * np.tanh(over / rest))
    return cv2.Rodrigues(vector)[0]


def _gaze(change: np.ndarray) -> tuple[float, float]:
    """Turn of the eyes to image right and down."""
    names = face_model().expression_names
    at = {name: float(change[k]) for k, name in enumerate(names) if name.startswith("eyeLook")}
    right = at["eyeLookIn_R"] - at["eyeLookOut_R"] + at["eyeLookOut_L"] - at["eyeLookIn_L"]
    down = at["eyeLookDown_R"] - at["eyeLookUp_R"] + at["eyeLookDown_L"] - at["eyeLookUp_L"]
    return 0.5 * right, 0.5 * down
