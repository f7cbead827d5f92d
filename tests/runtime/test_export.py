"""``personalive export``: files that onnxruntime runs, with names and shapes that a reader can rely on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from personalive.cli.main import main
from personalive.errors import CheckpointError
from personalive.runtime import export as module
from personalive.runtime import onnx
from personalive.runtime.programs import program_specs


def test_calls_are_written_checked_and_listed(small_weights: Path, tmp_path: Path, monkeypatch, capsys):
    """By the smallest call in the place of all: those of the denoiser take a minute."""
    monkeypatch.setattr(module, "program_specs", lambda networks: {"guide": program_specs(networks)["guide"]})
    monkeypatch.setattr(module, "whole_call_spec", lambda _, specs: specs["guide"])
    folder = tmp_path / "nets"
    assert main(["export", "onnx", str(folder), "--weights", str(small_weights), "--device", "cpu"]) == 0
    listed = {file["file"]: file for file in json.loads((folder / "export.json").read_text())["files"]}
    assert list(listed) == ["guide.onnx", "call.onnx"]
    assert all(0 <= file["error"] < 1e-3 for file in listed.values())
    printed = capsys.readouterr().out
    assert all(name in printed for name in listed)
    session = onnxruntime.InferenceSession(folder / "guide.onnx")
    assert [node.name for node in session.get_inputs()] == list(listed["guide.onnx"]["inputs"]) == ["canvas"]
    for count in (1, 3):
        shape = [count if side == "n" else side for side in listed["guide.onnx"]["inputs"]["canvas"]]
        assert len(session.run(None, {"canvas": np.full(shape, 0.1, np.float32)})[0]) == count


def test_a_file_that_computes_something_else_is_refused(networks, tmp_path: Path, monkeypatch):
    spec = program_specs(networks)["guide"]
    onnx.write({"guide": spec}, tmp_path, lambda _: None)
    monkeypatch.setattr(networks.pose_guider.conv_out_modify, "bias", None)
    with pytest.raises(CheckpointError, match=r"guide\.onnx: differs from torch by"):
        module._largest_error("guide", spec, tmp_path)


@pytest.mark.full
@pytest.mark.xdist_group("programs")
def test_all_networks_are_written_checked_and_listed(export):
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
