"""Beginning of a driver: the frame to start at, and whether its head is read relative to that frame (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from personalive.engine.base import BaseEngine
from personalive.engine.controls import PoseMode
from personalive.engine.state import Motion
from personalive.offline.config import BeginningConfig
from personalive.offline.driving import Driving


@dataclass(frozen=True, slots=True)
class Beginning:
    """Some frames of a driver's beginning, with a face; perhaps none."""

    times_s: Tensor  # (n,) in its video
    tokens: Tensor  # (n, D) motion of the face
    angles_deg: Tensor  # (n, 3) yaw, pitch, roll

    def most_neutral(self, config: BeginningConfig) -> float | None:
        """Seconds at which the head looks at the camera with the face that is usual of the driver; None for none."""
        if not len(self.times_s):
            return None
        face = (self.tokens - self.tokens.median(dim=0).values).norm(dim=1)
        turn = self.angles_deg.norm(dim=1) / config.aside_deg
        return float(self.times_s[(turn + face / face.median().clamp(min=1e-6)).argmin()])

    def pose(self, start_s: float, config: BeginningConfig) -> tuple[PoseMode, str]:
        """Reading of the head's angles from ``start_s`` on, and a line that says why it is not the plain one.

        Relative where the driver is filmed from the side, above or below, and starts as it goes on: then the angles
        say where the camera stands, not what the head does.
        """
        angles = self.angles_deg[self.times_s >= start_s - 1e-6, :2]
        if not len(angles):
            return "absolute", ""
        usual = angles.median(dim=0).values
        aside = float(usual.abs().max())
        if aside < config.aside_deg or float((angles[0] - usual).abs().max()) > config.steady_deg:
            return "absolute", ""
        return "relative", (
            f"driver: is filmed {aside:.0f}° from the front, so its turns are taken relative to its first frame; "
            "pose absolute takes them as they are"
        )


def find_start(driving: Driving, engine: BaseEngine) -> tuple[float | None, Beginning, str]:
    """Most neutral moment of a driver, in seconds of its video, what was read, and a line that tells it."""
    config = BeginningConfig()
    found = read_beginning(driving, engine, config.start_s, config.start_s / config.samples)
    start_s = found.most_neutral(config)
    note = f"driver: begins at {start_s or 0:.2f} s, its most neutral frame in the first {config.start_s:.0f} s"
    return start_s, found, note


def read_beginning(driving: Driving, engine: BaseEngine, seconds: float, every_s: float) -> Beginning:
    """Read the motion of a driver's first ``seconds``, a window's first frame ``every_s``; that part is used up."""
    times, motions = list[float](), list[Motion]()
    for window in driving.windows():
        if window.frames[0].time.start >= seconds:
            break
        time = float(window.frames[0].time.start)
        if time >= len(times) * every_s:
            motion = window.driver if isinstance(window.driver, Motion) else engine.encode_motion(window.driver)
            times.append(time)
            motions.append(motion[:1])
    motion = Motion.cat(motions)
    tokens = motion.tokens[0].flatten(1).float().cpu()
    poses = motion.poses
    angles = torch.stack([poses.yaw, poses.pitch, poses.roll], dim=1).float().cpu()
    seen = tokens.abs().sum(dim=1) > 0  # a frame without a face has no motion
    return Beginning(torch.tensor(times, dtype=torch.float64)[seen], tokens[seen], angles[seen])
