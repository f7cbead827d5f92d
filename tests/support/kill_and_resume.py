"""Run as a program: trains a toy run while killing it (SIGKILL) at random moments, and one that nobody disturbs.

    python -m support.kill_and_resume FOLDER KILLS

Each try is a process of its own, forked so that importing torch is paid once. Prints, as JSON, the newest whole
checkpoint after each kill. The parent never computes: a process that has may not fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401 -- or each try would
import numpy as np
import transformers.models.clip.modeling_clip  # noqa: F401

from personalive.training.optimiser import Checkpoints
from support.toy_run import toy_config, toy_loop

STEPS = 6
CONFIG = toy_config("motion", f"steps={STEPS}", "batch=1", "average.on=true", "journal.checkpoint_every_steps=1")


def begin(folder: Path) -> int:
    """Fork a process that trains in ``folder``; returns its number."""
    child = os.fork()
    if child == 0:
        toy_loop(folder, CONFIG).run()
        os._exit(0)
    return child


def main(folder: Path, kills: int) -> None:
    """See above."""
    started = time.monotonic()
    os.waitpid(begin(folder / "whole"), 0)
    whole_s = time.monotonic() - started
    rng, newest = np.random.default_rng(), []
    checkpoints = Checkpoints(folder / "killed" / "checkpoints", 2)
    for _ in range(kills):
        child = begin(folder / "killed")
        time.sleep(rng.uniform(0.1, 0.6) * whole_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest.append(max(checkpoints.steps(), default=0))
    _, status = os.waitpid(begin(folder / "killed"), 0)
    print(json.dumps({"newest": newest, "status": status}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
