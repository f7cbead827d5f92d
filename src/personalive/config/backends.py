"""Ways to run the networks, and what is kept of them between runs (ours)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

BACKEND_ENV = "PERSONALIVE_BACKEND"  # environment variable that says what "auto" means
CACHE_ENV = "PERSONALIVE_CACHE"  # environment variable that names the folder of prepared programs


@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """Preparing programs and choosing between them."""

    prepare_from_frames: int = 600  # shorter films do not wait for programs that are not there yet
    warmup_steps: int = 2  # of each backend, before it is timed
    timed_steps: int = 5  # of each, by turns; the median decides
    max_values_on_cpu: int = 500_000_000  # larger models would take minutes to convert, and stay far from real time
    kept_programs: int = 6  # folders in the cache; those used longest ago go first
    leftover_s: float = 86_400.0  # age at which what is half made is given up
    kept_choices: int = 50  # what "auto" took for which model, the newest
    max_pictures: int = 32  # that a program is given at once


def default_cache_folder() -> Path:
    """Where prepared programs are kept, which can be removed at any time."""
    if named := os.environ.get(CACHE_ENV):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "personalive"
