"""Fit of the morphable face to landmarks: identity, expression, weak-perspective pose and a residual.

The residual moves the skin so that every pin lies on its landmark in the image; it is what makes lids and lips open
and shut where the person's own are. Letters as in face_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from personalive.errors import InputError
from personalive.vision.face_model import (
    EYE,
    IRIS_LEFT,
    IRIS_RIGHT,
    LANDMARKS,
    SIDES,
    SKIN,
    FaceModel,
    face_model,
)

_ROUNDS = 6
_SIGMA = 0.2  # model units: trust in a landmark
_EXPRESSION_SPREAD = 0.3  # standard deviation of an expression value in portraits
_DEPTH_WEIGHT = 0.2  # of a landmark's z, beside 1 of x and y
_OUTLINE_WEIGHT = 0.1  # landmarks of the face's outline slide when the head turns
_RIM_WEIGHT = 0.35  # rims have many pins
_OPEN_JAW = 0.5  # lips stand apart in the space in which the residual is smooth
_LID_REACH = 0.5  # model units over which the rim's movement is averaged for the lid above it
_LIPS_UPPER = [191, 80, 81, 82, 13, 312, 311, 310, 415]  # landmarks of the inner lips, from right to left
_LIPS_LOWER = [95, 88, 178, 87, 14, 317, 402, 318, 324]
_FOREHEAD, _CHIN = 10, 152
_LIPS_OPEN = 0.03  # gap in heights of the face from which a mouth counts as open
_NEAR_PIN, _RESIDUAL_REACH = 2.0, 4.0  # model units from a pin at which the residual begins to fade, and how fast
_TEETH_DROP = 0.3  # model units: the upper teeth show below the lip when the mouth opens
_OVERLAP = 0.06  # share of the eye's opening that the upper lid goes beyond the lower


@dataclass(frozen=True, eq=False)
class FacePose:
    """Weak perspective: pixel = shift + scale · (x, -y) of the rotated point.

    Attributes:
        rotation: (3, 3) for column vectors, y up, z to the camera.
        scale_px: pixels per model unit.
        shift_px: (2,) place of the model's origin.
    """

    rotation: np.ndarray
    scale_px: float
    shift_px: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """Model points (N, 3) in the image: x and y in pixels, z in pixels towards the camera, (N, 3) float32."""
        turned = points @ self.rotation.T.astype(np.float32)
        turned *= np.array([self.scale_px, -self.scale_px, self.scale_px], np.float32)
        turned[:, :2] += self.shift_px
        return turned


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted face.

    Attributes:
        identity: (I,) standard deviations.
        expression: (E,) values at which the portrait shows the face.
        pose: of the portrait.
        shape: (V, 3) float32, the face as it is in the portrait, residual and expression included.
        closing: (2, V, 3) float32, displacement that shuts the right and the left eye wholly, from ``shape``.
        irises: (2, 3) float32, centre and radius in pixels of the right and the left iris.
        error_px: root mean square distance of pins from their landmarks before the residual.
    """

    identity: np.ndarray
    expression: np.ndarray
    pose: FacePose
    shape: np.ndarray
    closing: np.ndarray
    irises: np.ndarray
    error_px: float


def fit_face(landmarks_px: np.ndarray) -> Fit:
    """Fit the face to the landmarks of one image; 60 ms.

    Args:
        landmarks_px: (478, 2) or (478, 3) in pixels, in MediaPipe's order; z as there, towards the camera negative.

    Raises:
        InputError: another shape, or landmarks that are not finite or all in one place.
    """
    landmarks = _checked(landmarks_px)
    model = face_model()
    places = model.pin_places(_shut_lips(landmarks)) * [1, -1, -1]  # y up, z to the camera
    identity, expression, pose, error = _solve(model, places, _axis_weights(landmarks_px.shape[1]))
    shape = _base(model, identity, expression)
    shape = shape + _residual(model, shape, places, pose)
    shape[model.upper_jaw] -= [0.0, _TEETH_DROP, 0.0]
    return Fit(
        identity=identity,
        expression=expression,
        pose=replace(pose, shift_px=pose.shift_px[:2] * [1, -1]),
        shape=shape.astype(np.float32),
        closing=np.stack([_closing(model, shape, side) for side in SIDES]).astype(np.float32),
        irises=np.stack([_iris(landmarks, first) for first in (IRIS_RIGHT, IRIS_LEFT)]),
        error_px=error,
    )


def fit_pose(landmarks_px: np.ndarray, fit: Fit | None = None) -> FacePose:
    """Pose of a person in another image, by the places that expressions move least; 0.2 ms.

    Args:
        landmarks_px: (478, 2) or (478, 3), as for ``fit_face``.
        fit: of the same person; None takes the average face.
    """
    landmarks = _checked(landmarks_px)
    model = face_model()
    pins, weights = _stable_pins()
    places = model.pin_places(landmarks)[pins] * [1, -1, -1]
    shape = model.neutral if fit is None else fit.shape
    scale, rotation, shift = _procrustes(shape[model.pins[pins]].astype(np.float64), places, weights)
    return FacePose(rotation, scale, shift[:2] * [1, -1])


_FLIP = np.diag([1.0, -1.0, -1.0])  # y up and z to the camera, to y down and z away


def angles_deg(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll (3,) in degrees, as of ``HeadPose``, of a rotation (3, 3) for column vectors with y up."""
    c = _FLIP @ rotation @ _FLIP
    yaw = np.arcsin(np.clip(-c[2, 0], -1, 1))
    return np.degrees([yaw, np.arctan2(c[2, 1], c[2, 2]), np.arctan2(c[1, 0], c[0, 0])])


def rotation_of(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """The rotation (3, 3) for column vectors with y up, whose ``angles_deg`` these are."""
    y, p, r = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return _FLIP @ about_z @ about_y @ about_x @ _FLIP


def _checked(landmarks_px: np.ndarray) -> np.ndarray:
    if landmarks_px.ndim != 2 or landmarks_px.shape[0] != LANDMARKS or landmarks_px.shape[1] not in (2, 3):
        raise InputError(f"landmarks of shape {landmarks_px.shape}: give ({LANDMARKS}, 2) or ({LANDMARKS}, 3) pixels")
    if not np.isfinite(landmarks_px).all() or np.ptp(landmarks_px[:, :2], axis=0).min() < 4:
        raise InputError("landmarks that are not finite or lie in one place: is there a face in the image?")
    flat = np.zeros((LANDMARKS, 3))
    flat[:, : landmarks_px.shape[1]] = landmarks_px
    return flat


def _shut_lips(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks whose lips meet where they nearly do: detectors leave a line between them, which would show teeth."""
    upper, lower = landmarks[_LIPS_UPPER], landmarks[_LIPS_LOWER]
    height = np.linalg.norm(landmarks[_FOREHEAD, :2] - landmarks[_CHIN, :2])
    gap = np.linalg.norm((upper - lower)[:, :2], axis=1).max()
    shut = np.clip((_LIPS_OPEN * height - gap) / (0.5 * _LIPS_OPEN * height), 0, 1)
    moved = landmarks.copy()
    moved[_LIPS_UPPER] += 0.5 * shut * (lower - upper)
    moved[_LIPS_LOWER] += 0.5 * shut * (upper - lower)
    return moved


def _iris(landmarks: np.ndarray, first: int) -> np.ndarray:
    centre, rim = landmarks[first, :2], landmarks[first + 1 : first + 5, :2]
    return np.array([*centre, np.linalg.norm(rim - centre, axis=1).mean()], np.float32)


def _axis_weights(columns: int) -> np.ndarray:
    return np.array([1.0, 1.0, _DEPTH_WEIGHT if columns == 3 else 0.0])


@lru_cache(maxsize=1)
def _pin_weights() -> np.ndarray:
    """Trust in each pin, (P,)."""
    model = face_model()
    weights = np.where(model.oval[model.pins] < 0.05, _OUTLINE_WEIGHT, 1.0)
    weights[np.isin(model.pins, np.concatenate(list(model.rims.values())))] = _RIM_WEIGHT
    return weights


@lru_cache(maxsize=1)
def _stable_pins() -> tuple[np.ndarray, np.ndarray]:
    """Numbers of pins that jaw, lips, lids and brows hardly move, and their weights."""
    model = face_model()
    moved = np.linalg.norm(model.expressions[:, model.pins], axis=2)
    lids = np.isin(model.pins, np.concatenate([rim for name, rim in model.rims.items() if "lid" in name]))
    eyes = [model.index(n) for n in model.expression_names if n.startswith(("eyeLook", "eyeBlink", "eyeWide"))]
    moved[np.array(eyes)] *= 0.3
    pins = np.flatnonzero((np.sort(moved, axis=0)[-3:].sum(axis=0) < 1.2) & ~lids)
    corners = [
        int(np.flatnonzero(model.pins == model.rims[f"lid_upper_{s}"][end])[0]) for s in SIDES for end in (0, -1)
    ]
    pins = np.union1d(pins, corners)
    return pins, np.where(model.oval[model.pins[pins]] < 0.05, 0.3, 1.0)


def _procrustes(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and shift that take points ``a`` (N, 3) nearest to ``b``."""
    w = weights[:, None] / weights.sum()
    mean_a, mean_b = (w * a).sum(0), (w * b).sum(0)
    a, b = a - mean_a, b - mean_b
    u, sizes, vt = np.linalg.svd((w * b).T @ a)
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * flip) @ vt
    scale = float((sizes * flip).sum() / (w * a * a).sum())
    return scale, rotation, mean_b - scale * rotation @ mean_a


def _base(model: FaceModel, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """(V, 3) without residual, float64."""
    shape = model.neutral + np.tensordot(identity, model.identities, 1)
    return shape + np.tensordot(expression, model.expressions, 1)


def _solve(model: FaceModel, places: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray, FacePose, float]:
    """Alternate pose (closed form) and coefficients (ridge)."""
    weights = _pin_weights()
    neutral = model.neutral[model.pins].astype(np.float64)
    fields = np.concatenate([model.identities[:, model.pins], model.expressions[:, model.pins]]).astype(np.float64)
    split = len(model.identities)
    prior = np.concatenate([np.ones(split), np.full(len(fields) - split, _EXPRESSION_SPREAD**-2)])
    values = np.zeros(len(fields))
    trust = np.sqrt(weights)[:, None] * axes / _SIGMA
    flat = places.copy()
    if axes[2] == 0:  # no depth given: that of a frontal average face, then of the shape so far
        spread = np.ptp(places[:, 0]) / np.ptp(neutral[:, 0])
        flat[:, 2] = spread * (neutral[:, 2] - neutral[:, 2].mean())
    for _ in range(_ROUNDS):
        shape = neutral + np.tensordot(values, fields, 1)
        scale, rotation, shift = _procrustes(shape, flat, weights)
        if axes[2] == 0:
            flat[:, 2] = scale * (shape @ rotation.T)[:, 2] + shift[2]
        goal = ((flat - shift) / scale - neutral @ rotation.T) * trust
        columns = (fields @ rotation.T * trust).reshape(len(fields), -1)
        values = np.linalg.solve(columns @ columns.T + np.diag(prior), columns @ goal.ravel())
        values[split:] = np.clip(values[split:], -0.1, 1.2)
    off = (scale * (neutral + np.tensordot(values, fields, 1)) @ rotation.T + shift - places)[:, :2]
    error = float(np.sqrt((off**2).sum(1).mean()))
    return values[:split], values[split:], FacePose(rotation, scale, shift), error


# --- residual -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _residual_basis() -> np.ndarray:
    """(V, P) displacement of every vertex per displacement of a pin, smooth in the face with its mouth open."""
    model = face_model()
    space = (model.neutral + _OPEN_JAW * model.expressions[model.index("jawOpen")]).astype(np.float64)
    centres = space[model.pins]
    loose = np.where(model.oval[model.pins] < 0.05, 1.0, 0.01)
    count = len(centres)
    poly = np.hstack([np.ones((count, 1)), centres])
    kernel = -np.linalg.norm(centres[:, None] - centres[None], axis=2) + np.diag(loose)
    system = np.block([[kernel, poly], [poly.T, np.zeros((4, 4))]])
    inverse = np.linalg.inv(system)[:, :count]
    far = -np.linalg.norm(space[:, None] - centres[None], axis=2)
    basis = np.hstack([far, np.ones((len(space), 1)), space]) @ inverse
    away = np.linalg.norm(space[:, None] - centres[None], axis=2).min(1)
    basis *= np.exp(-((np.maximum(away - _NEAR_PIN, 0) / _RESIDUAL_REACH) ** 2))[:, None]  # no guess at the back
    for side in (model.neutral[:, 0] < 0, model.neutral[:, 0] >= 0):  # eyes and teeth are stiff
        eye = side & (model.part == EYE)
        basis[eye] = basis[eye].mean(0)
    inside = (model.part != SKIN) & (model.part != EYE)
    stiff = inside & (model.source == np.arange(len(space)))
    basis[stiff] = basis[stiff].mean(0)
    return basis


def _residual(model: FaceModel, shape: np.ndarray, places: np.ndarray, pose: FacePose) -> np.ndarray:
    """(V, 3) displacement, parallel to the image, that takes the pins onto their places."""
    placed = pose.scale_px * (shape[model.pins] @ pose.rotation.T) + pose.shift_px
    off = (places - placed) / pose.scale_px
    off[:, 2] = 0.0
    return (_residual_basis() @ off) @ pose.rotation


# --- lids -----------------------------------------------------------------------------------------------------------


def _closing(model: FaceModel, shape: np.ndarray, side: str) -> np.ndarray:
    """(V, 3) displacement that brings the lids of one eye together, just above where the lower one is.

    The model's own blink gives reach and direction; it is corrected so that this person's rims meet.
    """
    blink = model.expressions[model.index(f"eyeBlink_{side[0].upper()}")].astype(np.float64)
    upper, lower = model.rims[f"lid_upper_{side}"], model.rims[f"lid_lower_{side}"]
    line = shape[lower] + blink[lower]
    x, at = shape[upper, 0], np.argsort(line[:, 0])
    meet = np.stack([np.interp(x, line[at, 0], line[at, k]) for k in range(3)], axis=1)
    gap = np.maximum(shape[upper, 1] - meet[:, 1], 0.0)
    goal = meet - shape[upper]
    goal[:, 1] -= _OVERLAP * gap
    goal[:, 2] += 0.25 * gap  # before the lower lid
    distance = np.linalg.norm(shape[:, None] - shape[None, upper], axis=2)
    near = np.exp(-((distance / _LID_REACH) ** 2)) + 1e-9 / (distance**2 + 1e-6)
    near /= near.sum(1, keepdims=True)
    size = np.linalg.norm(blink, axis=1)
    share = np.minimum(size / np.maximum(near @ size[upper], 0.25), 1.0)
    above = shape[:, 1] > np.interp(shape[:, 0], line[at, 0], line[at, 1]) - 1e-6
    field = np.where(above[:, None], (near @ goal) * share[:, None], blink)
    field[upper], field[lower] = goal, blink[lower]
    return np.where((model.part == SKIN)[:, None], field, 0.0)
