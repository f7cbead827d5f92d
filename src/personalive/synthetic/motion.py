"""Motion of a synthetic head: pose and expression, which change from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personalive.errors import InputError

EXPRESSION_NAMES: tuple[str, ...] = (
    "jawOpen",
    "jawLeft",
    "jawRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthPucker",
    "mouthFunnel",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUp",
    "mouthLowerDown",
    "mouthPress",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeWideLeft",
    "eyeWideRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeLookX",
    "eyeLookY",
    "browInnerUp",
    "browDownLeft",
    "browDownRight",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "noseSneerLeft",
    "noseSneerRight",
)
"""Expression parameters, ARKit-like. 0 is neutral and 1 full; eyeLookX (+ is image right) and eyeLookY
(+ is down) run from -1 to 1. Left and right are the character's own: left is image right seen frontally."""

EXPRESSION_INDEX: dict[str, int] = {name: index for index, name in enumerate(EXPRESSION_NAMES)}
SIGNED_EXPRESSIONS = frozenset({"eyeLookX", "eyeLookY"})


@dataclass(frozen=True, eq=False, slots=True)
class Motion:
    """Head pose and expression of one frame.

    Attributes:
        yaw_deg, pitch_deg, roll_deg: angles of ``R = (R_z(roll) R_y(yaw) R_x(pitch)).T``, in degrees.
        scale: factor from canonical head space to image coordinates in [-1, 1]; about 1.
        tx, ty: shift in image coordinates, + is right and down.
        expression: (E,) float32 in the order of ``EXPRESSION_NAMES``.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    scale: float
    tx: float
    ty: float
    expression: np.ndarray

    def __post_init__(self) -> None:
        if self.expression.shape != (len(EXPRESSION_NAMES),):
            raise InputError(
                f"expression: expected shape ({len(EXPRESSION_NAMES)},), found {self.expression.shape}; "
                "build it with Motion.neutral() or with one value per EXPRESSION_NAMES"
            )

    @classmethod
    def neutral(cls, **expression: float) -> Motion:
        """A frontal head with a neutral face, except for the expressions given by name.

        Raises:
            InputError: an expression name that is not known.
        """
        values = np.zeros(len(EXPRESSION_NAMES), np.float32)
        for name, value in expression.items():
            if name not in EXPRESSION_INDEX:
                raise InputError(f"expression {name!r} is not known: use one of {', '.join(EXPRESSION_NAMES)}")
            values[EXPRESSION_INDEX[name]] = value
        return cls(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, values)

    def __getitem__(self, name: str) -> float:
        """The value of one expression by name."""
        return float(self.expression[EXPRESSION_INDEX[name]])


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """(3, 3) float64 matrix R for row vectors: ``(R_z(roll) R_y(yaw) R_x(pitch)).T`` (weights)."""
    y, x, z = np.deg2rad([yaw_deg, pitch_deg, roll_deg])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return (rz @ ry @ rx).T


def project(points: np.ndarray, motion: Motion) -> np.ndarray:
    """Canonical points (N, 3) to image space: ``scale * (points @ R) + (tx, ty, 0)``, float64 (N, 3)."""
    R = rotation(motion.yaw_deg, motion.pitch_deg, motion.roll_deg)
    return motion.scale * (points.astype(np.float64) @ R) + np.array([motion.tx, motion.ty, 0.0])
