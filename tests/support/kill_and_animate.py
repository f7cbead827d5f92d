"""Run as a program: makes a video while killing it (SIGKILL) at random moments, and one that nobody disturbs.

    python -m support.kill_and_animate FOLDER KILLS PART_S

FOLDER holds portrait.png and driving.mp4. Each try is a process of its own, forked so that importing torch is paid
once; the parent never computes: a process that has may not fork.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401 -- or each try would
import numpy as np
import transformers.models.clip.modeling_clip  # noqa: F401

from personalive.engine.engine import Engine
from personalive.offline.animate import animate
from personalive.offline.config import PartsConfig
from support.small_engine import key_seeded_networks
from support.small_model import smallest_shape


def begin(folder: Path, name: str, part_s: float) -> int:
    """Fork a process that makes ``name``.mp4 in ``folder``; returns its number."""
    child = os.fork()
    if child == 0:
        animate(
            folder / "portrait.png",
            folder / "driving.mp4",
            folder / f"{name}.mp4",
            engine=Engine(key_seeded_networks(smallest_shape())),
            parts=PartsConfig(cpu_part_s=part_s),
            framing="center",
            keyframe_threshold=0,
            side_by_side=True,
            contact_sheet=str(folder / f"{name}.png"),
        )
        os._exit(0)
    return child


def main(folder: Path, kills: int, part_s: float) -> None:
    """See above."""
    started = time.monotonic()
    os.waitpid(begin(folder, "whole", part_s), 0)
    whole_s = time.monotonic() - started
    rng = np.random.default_rng()
    for _ in range(kills):
        child = begin(folder, "killed", part_s)
        time.sleep(rng.uniform(0.3, 0.8) * whole_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.waitpid(begin(folder, "killed", part_s), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
