"""A run that is killed again and again ends as one that nobody disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from personalive.training.optimiser import Checkpoints
from support.kill_and_resume import STEPS
from support.toy_run import rows


@pytest.mark.full
@pytest.mark.parametrize("kills", [2, 5])
def test_kills_lose_no_checkpoint_and_bend_no_curve(tmp_path: Path, kills: int):
    program = [sys.executable, "-m", "support.kill_and_resume", str(tmp_path), str(kills)]
    place = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=os.environ | place)
    report = json.loads(done.stdout)
    newest = report["newest"]
    assert report["status"] == 0, done.stderr
    assert len(newest) == kills
    assert newest == sorted(newest)  # none was ever lost
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert rows(killed) == rows(whole)
    assert [row["step"] for row in rows(killed)] == list(range(1, STEPS + 1))
    last = f"checkpoints/step-{STEPS:08d}"
    for name in ("networks", "networks-optimiser", "average"):
        file = f"{last}/{name}.safetensors"
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), name
    assert Checkpoints(killed / "checkpoints", 2).steps() == [STEPS - 1, STEPS]
    assert not list((killed / "checkpoints").glob(".*"))
