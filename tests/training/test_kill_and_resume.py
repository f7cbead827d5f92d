"""A run that is killed again and again ends as one that nobody disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from personalive.training.state import Checkpoints
from support.toy_run import rows

KILLS = 5


def test_five_kills_lose_no_checkpoint_and_bend_no_curve(tmp_path: Path):
    program = [sys.executable, "-m", "support.kill_and_resume", str(tmp_path), str(KILLS)]
    place = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=os.environ | place)
    report = json.loads(done.stdout)
    newest = report["newest"]
    assert report["status"] == 0, done.stderr
    assert len(newest) == KILLS
    assert newest == sorted(newest)  # none was ever lost
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert rows(killed) == rows(whole)
    assert [row["step"] for row in rows(killed)] == list(range(1, 11))
    last = "checkpoints/step-00000010"
    for name in ("networks", "networks-optimiser", "average"):
        file = f"{last}/{name}.safetensors"
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), name
    assert Checkpoints(killed / "checkpoints", 2).steps() == [9, 10]
    assert not list((killed / "checkpoints").glob(".*"))
