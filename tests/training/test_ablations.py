"""The table of ablations at toy size: every row is made, and what is trained already is not trained again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from training.conftest import Record, toy_preset

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablations.py"
TRAINED = {"full", "causal chunk attention", "chunks of 2", "without sliding training (ST)"}


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


def test_one_command_makes_the_whole_table(
    ablations,
    finished: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(ablations, "TinyPreset", toy_preset)
    monkeypatch.setattr(ablations, "THRESHOLDS", (5.0,))
    monkeypatch.setattr(ablations, "_half", lambda networks: networks)  # many processors only emulate bfloat16
    options = ["--run", finished.folder, "--steps", 1, "--cases", 1, "--frames", 8, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["ablations.py", *map(str, options), "--out", str(tmp_path)])
    assert ablations.main() == 0
    rows = json.loads((tmp_path / "ablations.json").read_text())["rows"]
    assert set(ablations.PAPER) < rows.keys()
    assert all(0 < row["l1"] < 1 and row["fps"] > 0 for row in rows.values())
    assert rows["without keyframes (HKM)"]["keyframes"] == 0
    table = (tmp_path / "ablations.md").read_text()
    assert all(f"| {name} |" in table for name in rows)
    assert {path.stem.replace("_", " ") for path in tmp_path.glob("*.safetensors")} == TRAINED
    assert table in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    some = [variant for variant in ablations._variants() if variant.name in ("full", "chunks of 2")]
    monkeypatch.setattr(ablations, "_variants", lambda: some)
    assert ablations.main() == 0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}


def test_without_a_run_one_line_says_so(
    ablations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        sys, "argv", ["ablations.py", "--run", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    )
    assert ablations.main() == 1
    error = capsys.readouterr().err
    assert "run the stage that trains it first" in error
    assert error.count("\n") == 1
