"""``personalive export``: files that onnxruntime runs, with names and shapes that a reader can rely on."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest


@pytest.mark.xdist_group("programs")
def test_networks_are_written_checked_and_listed(export):
    folder, printed = export
    listed = {file["file"]: file for file in json.loads((folder / "export.json").read_text())["files"]}
    assert {"call.onnx", "denoise.onnx", "decode.onnx", "extract.onnx", "project.onnx"} <= listed.keys()
    assert all(0 <= file["error"] < 1e-3 for file in listed.values())
    assert all(name in printed for name in listed)
    call = onnxruntime.InferenceSession(folder / "call.onnx")
    assert [node.name for node in call.get_inputs()] == list(listed["call.onnx"]["inputs"])
    assert any(node.name.startswith("reference.down_blocks.0") for node in call.get_inputs())
    for references in (1, 2, 4):
        counts = {"r": references, "s": 4}  # and denoising steps
        shapes = {
            name: [_length(side, counts) for side in shape] for name, shape in listed["call.onnx"]["inputs"].items()
        }
        given = {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}
        images, _, _, previous = call.run(None, given)
        assert images.shape == (4, 3, 64, 64)
        assert previous.shape == (*given["latents"].shape[:2], 12, *given["latents"].shape[3:])


def _length(side: int | str, counts: dict[str, int]) -> int:
    """Length of an axis that is listed as a number or as ``16*r``."""
    if isinstance(side, int):
        return side
    unit, _, name = side.partition("*")
    return int(unit) * counts[name]
