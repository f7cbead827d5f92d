"""The table of ablations at toy size: every row is made, and only what differs in training is trained."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from personalive.checkpoints.networks import save_networks
from personalive.training.scratch import build_networks
from support.toy_run import QUIET, TOY_DETAIL_SHAPE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablations.py"
TRAINED = {"full", "causal chunk attention", "chunks of 2"}


@pytest.fixture(scope="module")
def ablations():
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ablations"]


@pytest.mark.full
def test_one_command_makes_the_whole_table(
    ablations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(ablations, "SHAPES", {"tiny": TOY_DETAIL_SHAPE})
    monkeypatch.setattr(ablations, "THRESHOLDS", (5.0,))
    monkeypatch.setattr(ablations, "_half", lambda networks: networks)  # many processors only emulate bfloat16
    quiet = (*QUIET, "batch=1", "stream.frames=16", "stream.gradient_windows=0", "data.people=2")
    save_networks(build_networks(TOY_DETAIL_SHAPE), tmp_path / "model")
    options = ["--weights", tmp_path / "model", "--steps", 1, "--cases", 1, "--frames", 8, "--device", "cpu"]
    options += [part for value in quiet for part in ("--set", value)]
    monkeypatch.setattr(sys, "argv", ["ablations.py", *map(str, options), "--out", str(tmp_path / "out")])
    assert ablations.main() == 0
    rows = json.loads((tmp_path / "out" / "ablations.json").read_text())["rows"]
    assert set(ablations.PAPER) - {"without sliding training (ST)"} < rows.keys()
    assert all(0 < row["l1"] < 1 and row["fps"] > 0 for row in rows.values())
    assert rows["without keyframes (HKM)"]["keyframes"] == 0
    table = (tmp_path / "out" / "ablations.md").read_text()
    assert all(f"| {name} |" in table for name in rows)
    assert table in capsys.readouterr().out
    trained = {path.parent.name.replace("_", " ") for path in (tmp_path / "out").glob("*/weights")}
    assert trained == TRAINED


def test_weights_that_are_not_there_are_one_line(
    ablations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        sys, "argv", ["ablations.py", "--weights", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    )
    assert ablations.main() == 1
    error = capsys.readouterr().err
    assert "no such weights folder" in error
    assert error.count("\n") == 1
