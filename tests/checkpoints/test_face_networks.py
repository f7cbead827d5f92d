"""Networks that read a face from float16 files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from personalive.checkpoints.face_networks import load_face_networks
from personalive.errors import CheckpointError
from personalive.models.face_reader import FaceBlendshapes, FaceLandmarks
from personalive.models.person_mask import PersonMask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    networks = FaceLandmarks(), FaceBlendshapes(), PersonMask()
    for stem, network in zip(("face_landmarks", "face_blendshapes", "person_mask"), networks, strict=True):
        state = {key: value.half() for key, value in network.state_dict().items()}
        save_file(state, tmp_path / f"{stem}.safetensors")
    return tmp_path


def test_networks_are_those_of_the_files(folder: Path):
    landmarks, blendshapes, person = load_face_networks(folder)
    torch.manual_seed(0)
    for loaded, saved in ((landmarks, FaceLandmarks()), (blendshapes, FaceBlendshapes()), (person, PersonMask())):
        expected = {key: value.half().float() for key, value in saved.state_dict().items()}
        assert loaded.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    points, presence = landmarks(torch.zeros(1, 3, 256, 256))
    assert points.dtype == presence.dtype == torch.float32
    assert blendshapes(points).shape == (1, 52)


def test_missing_and_other_files_are_refused(folder: Path):
    weights = folder / "face_blendshapes.safetensors"
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"face_landmarker.task with scripts/convert_face_landmarks"):
        load_face_networks(folder)
    (folder / "face_landmarks.safetensors").rename(weights)
    with pytest.raises(CheckpointError):
        load_face_networks(folder)
    save_file({"token": torch.zeros(64)}, folder / "face_landmarks.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of this model"):
        load_face_networks(folder)


def test_a_missing_mask_network_is_named_with_its_own_source(folder: Path):
    (folder / "person_mask.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"selfie_segmentation.tflite with scripts/convert_person_mask"):
        load_face_networks(folder)
