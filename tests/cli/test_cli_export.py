"""``personalive export`` where nothing can be written; what it writes is in tests/runtime/test_export.py."""

from __future__ import annotations

from pathlib import Path


def test_a_folder_that_is_there_is_kept(run, small_weights: Path, place: Path):
    (place / "nets").mkdir()
    done = run("export", "onnx", "nets", "--weights", small_weights, "--device", "cpu")
    assert done.code == 1
    assert "already exists" in done.err
    assert done.err.count("\n") == 1
    assert list((place / "nets").iterdir()) == []


def test_tensorrt_without_it_says_what_is_missing(run, small_weights: Path):
    done = run("export", "tensorrt", "--weights", small_weights, "--device", "cpu")
    assert done.code == 1
    assert "TensorrtExecutionProvider" in done.err
    assert done.err.count("\n") == 1


def test_what_cannot_be_checked_here_is_said_before_anything_is_written(run, small_weights: Path, place: Path):
    done = run("export", "onnx", "nets", "--weights", small_weights, "--device", "cpu", "--dtype", "float16")
    assert done.code == 1
    assert "--no-check" in done.err
    assert done.err.count("\n") == 1
    assert not (place / "nets").exists()
