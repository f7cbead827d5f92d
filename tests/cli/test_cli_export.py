"""``personalive export``: files that onnxruntime runs, with names and shapes that a reader can rely on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime


def test_networks_are_written_checked_and_listed(run, small_weights: Path, place: Path):
    done = run("export", "onnx", "nets", "--weights", small_weights, "--device", "cpu")
    assert done.code == 0, done.err
    folder = place / "nets"
    listed = {file["file"]: file for file in json.loads((folder / "export.json").read_text())["files"]}
    assert {"call.onnx", "denoise.onnx", "decode.onnx", "extract.onnx", "project.onnx"} <= listed.keys()
    assert all(0 <= file["error"] < 1e-3 for file in listed.values())
    assert all(name in done.out for name in listed)
    call = onnxruntime.InferenceSession(folder / "call.onnx")
    assert [node.name for node in call.get_inputs()] == list(listed["call.onnx"]["inputs"])
    assert any(node.name.startswith("reference.down_blocks.0") for node in call.get_inputs())
    for references in (1, 2, 4):
        shapes = {
            name: [int(side.removesuffix("*r")) * references if isinstance(side, str) else side for side in shape]
            for name, shape in listed["call.onnx"]["inputs"].items()
        }
        given = {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}
        images, _, _, previous = call.run(None, given)
        assert images.shape == (4, 3, 64, 64)
        assert previous.shape == (*given["latents"].shape[:2], 12, *given["latents"].shape[3:])


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
