"""Model folders with a damaged file: they load, or one line names the file or what it lacks."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks
from personalive.errors import CheckpointError
from support.hostile_files import hostile

LIMIT_S = 20.0


def run(root, count: int, seed: int) -> Counter:
    rng, found = np.random.default_rng(seed), Counter()
    files = sorted(path for path in root.rglob("*") if path.is_file())
    others = [path.read_bytes() for path in files]
    for number in range(count):
        which = number % len(files)
        change, content = hostile(rng, others[which], others)
        files[which].write_bytes(content)
        started = time.monotonic()
        try:
            load_networks(CheckpointFolder.open(root))
        except CheckpointError as error:
            assert "\n" not in str(error), (files[which], change)
            assert len(str(error)) < 1000, (files[which], change)
            found[files[which].suffix, "refused"] += 1
        else:
            found[files[which].suffix, "loaded"] += 1
        assert time.monotonic() - started < LIMIT_S, (files[which], change)
        files[which].write_bytes(others[which])
    return found


def test_a_sample_of_damaged_model_folders(small_model):
    assert sum(run(small_model.root, 7, seed=1).values()) == 7


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_two_hundred_damaged_model_folders(small_model):
    found = run(small_model.root, 200, seed=2)
    assert all(found[suffix, "refused"] for suffix in (".pth", ".json"))
    assert found[".pth", "loaded"]
