"""A folder whose model has a detail head, which the released one has not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from personalive.checkpoints.check import check_folder
from personalive.checkpoints.convert import convert_folder
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks, save_networks
from personalive.config import DetailConfig
from personalive.errors import CheckpointError
from personalive.models.networks import Networks
from personalive.training.scratch import build_networks
from support.small_model import SMALL_SHAPE


@pytest.fixture(scope="module")
def networks() -> Networks:
    model = dataclasses.replace(SMALL_SHAPE.model, detail=DetailConfig(width=8, blocks=1, blend_width=4))
    return build_networks(dataclasses.replace(SMALL_SHAPE, model=model))


@pytest.fixture
def folder(networks: Networks, tmp_path: Path) -> Path:
    save_networks(networks, tmp_path / "model")
    return tmp_path / "model"


def test_the_head_is_saved_and_loaded_with_the_rest(networks: Networks, folder: Path):
    found = load_networks(CheckpointFolder.open(folder))
    assert found.config.detail == networks.config.detail
    assert networks.detail is not None
    assert found.detail is not None
    for key, value in networks.detail.state_dict().items():
        assert torch.equal(found.detail.state_dict()[key], value), key
    assert "detail" in found.modules()


def test_a_model_without_one_has_no_such_part(tmp_path: Path):
    save_networks(build_networks(SMALL_SHAPE), tmp_path / "plain")
    assert not list((tmp_path / "plain/personalive").glob("detail*"))
    found = load_networks(CheckpointFolder.open(tmp_path / "plain"))
    assert found.detail is None
    assert "detail" not in found.modules()
    assert "detail" not in {part.part for part in check_folder(tmp_path / "plain").parts}


def test_a_described_head_without_its_file_is_one_clear_line(folder: Path):
    (folder / "personalive/detail.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no personalive/detail\.safetensors: download the folder again"):
        CheckpointFolder.open(folder)
    report = check_folder(folder)
    assert not report.ok
    assert [part.part for part in report.parts if not part.ok] == ["detail"]


def test_a_converted_folder_keeps_the_head(folder: Path, tmp_path: Path):
    convert_folder(folder, tmp_path / "half")
    found = load_networks(CheckpointFolder.open(tmp_path / "half"))
    assert found.detail is not None
    assert check_folder(tmp_path / "half").ok


def test_the_head_counts_in_size_and_identity(folder: Path):
    before = CheckpointFolder.open(folder)
    size_bytes, identity = before.size_bytes, before.identity()
    path = folder / "personalive/detail.safetensors"
    assert path in before.files("detail")
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x00\x40")
    after = CheckpointFolder.open(folder)
    assert after.size_bytes == size_bytes
    assert after.identity() != identity


def test_a_width_that_norms_cannot_share_is_refused(folder: Path):
    config = folder / "personalive/config.json"
    config.write_text(config.read_text().replace('"width": 8,\n    "blocks": 1', '"width": 6,\n    "blocks": 1'))
    with pytest.raises(CheckpointError, match="no detail can be built"):
        load_networks(CheckpointFolder.open(folder))
