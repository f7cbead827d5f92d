"""Half-precision copies: exact, whole or absent."""

from __future__ import annotations

import os
from collections import namedtuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from personalive.checkpoints import convert as convert_module
from personalive.checkpoints.check import check_folder
from personalive.checkpoints.convert import convert_folder
from personalive.checkpoints.files import TensorInfo, read_infos, write_safetensors
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.layout import CONFIGS
from personalive.checkpoints.networks import load_networks
from personalive.config import FACE_DETECTOR
from personalive.errors import CheckpointError, OutputError
from personalive.progress import Progress


def infos(tensors: dict[str, Tensor]) -> dict[str, TensorInfo]:
    return {key: TensorInfo(tuple(t.shape), t.dtype) for key, t in tensors.items()}


def nothing_but(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_the_library_reads_what_the_writer_wrote(tmp_path: Path) -> None:
    tensors = {
        "flag": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).half(),
        "brain": torch.tensor([[1.5]], dtype=torch.bfloat16),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "double": torch.tensor([0.1], dtype=torch.float64),
    }
    path = tmp_path / "w.safetensors"
    write_safetensors(path, infos(tensors), tensors.__getitem__)
    read = load_file(path)
    assert infos(read) == infos(tensors)
    assert all(torch.equal(read[key], value) for key, value in tensors.items())
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert header % 8 == 0  # so that mapped tensors are aligned


def test_the_writer_asks_for_one_tensor_at_a_time(tmp_path: Path) -> None:
    shapes = {f"w{i}": TensorInfo((10,), torch.float32) for i in range(5)}
    path = tmp_path / "w.safetensors"
    seen: list[int] = []

    def tensor_of(key: str) -> Tensor:
        return torch.full((10,), float(key[1:]))

    write_safetensors(path, shapes, tensor_of, seen.append)
    assert len(seen) == 5
    assert [b - a for a, b in pairwise(seen)] == [40] * 4
    assert seen[-1] == path.stat().st_size


def test_the_writer_refuses_what_was_not_announced(tmp_path: Path) -> None:
    announced = {"w": TensorInfo((2,), torch.float32)}
    with pytest.raises(CheckpointError, match="changed"):
        write_safetensors(tmp_path / "w", announced, lambda key: torch.ones(3))
    with pytest.raises(CheckpointError, match="complex64"):
        write_safetensors(tmp_path / "w", {"w": TensorInfo((2,), torch.complex64)}, lambda key: torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_value_is_the_rounded_original(small_model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    (small_model.root / FACE_DETECTOR).parent.mkdir()
    (small_model.root / FACE_DETECTOR).write_bytes(b"onnx")
    target = convert_folder(small_model.root, tmp_path / "deep" / "half", dtype=dtype)
    assert nothing_but(target.parent, "half")
    assert target.stat().st_mode == target.parent.stat().st_mode  # readable as any new folder is
    for part, values in small_model.values.items():
        union: dict[str, Tensor] = {}
        for path in CheckpointFolder.open(target).files(part):
            assert path.suffix == ".safetensors"
            union |= load_file(path)
        assert union.keys() == values.keys()
        for key, value in values.items():
            assert torch.equal(union[key], value.to(dtype) if value.is_floating_point() else value), key
    for name in (*CONFIGS, FACE_DETECTOR):
        assert (target / name).read_bytes() == (small_model.root / name).read_bytes()
    assert not list(target.rglob("*.pth")) + list(target.rglob("*.bin"))
    report = check_folder(target)
    assert report.ok
    load_networks(CheckpointFolder.open(target), dtype=dtype)


def test_old_names_become_current_ones(small_model: Any, tmp_path: Path) -> None:
    path = small_model.root / "sd-vae-ft-mse/diffusion_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    old = {key.replace(".to_q.", ".query."): value for key, value in state.items()}
    old = {k: v[:, :, None, None] if k.endswith("query.weight") else v for k, v in old.items()}
    torch.save(old, path)
    target = convert_folder(small_model.root, tmp_path / "half")
    converted = read_infos(target / "sd-vae-ft-mse/diffusion_pytorch_model.safetensors")
    assert {key: info.shape for key, info in converted.items()} == {k: tuple(v.shape) for k, v in state.items()}


def test_progress_grows_to_the_whole(small_model: Any, tmp_path: Path) -> None:
    reports: list[Progress] = []
    convert_folder(small_model.root, tmp_path / "half", progress=reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert len({report.note for report in reports}) == 8
    assert reports[-1].done == reports[-1].total


def test_nothing_is_overwritten(small_model: Any, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    with pytest.raises(OutputError, match="already exists"):
        convert_folder(small_model.root, tmp_path / "half")
    assert list((tmp_path / "half").iterdir()) == []


def test_values_too_large_for_the_format_are_refused_and_nothing_is_left(small_model: Any, tmp_path: Path) -> None:
    path = small_model.root / "personalive/pose_guider.pth"
    state = torch.load(path, weights_only=True)
    state["conv_in.bias"][0] = 1e6
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"conv_in.bias has values beyond .*float16: convert to bfloat16"):
        convert_folder(small_model.root, tmp_path / "half")
    assert nothing_but(tmp_path, "weights")
    convert_folder(small_model.root, tmp_path / "brain", dtype=torch.bfloat16)


def test_values_that_are_not_lost_are_kept(small_model: Any, tmp_path: Path) -> None:
    path = small_model.root / "personalive/pose_guider.pth"
    state = torch.load(path, weights_only=True)
    special = {  # layer -> value; 65510 rounds to the largest half, 65504
        "conv_in": float("inf"),
        "blocks.0": float("-inf"),
        "blocks.1": float("nan"),
        "blocks.2": 65510.0,
        "blocks.3": -65510.0,
    }
    for layer, value in special.items():
        state[f"{layer}.bias"][1] = value
    torch.save(state, path)
    target = convert_folder(small_model.root, tmp_path / "half")
    written = load_file(target / "personalive/pose_guider.safetensors")
    for layer, value in special.items():
        kept, expected = written[f"{layer}.bias"][1], torch.tensor(value).half()
        assert torch.equal(kept, expected) or (kept.isnan() and expected.isnan()), layer


def test_an_unsound_source_is_refused_before_anything_is_written(small_model: Any, tmp_path: Path) -> None:
    path = small_model.root / "personalive/reference_unet.pth"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="reference_unet cannot be converted"):
        convert_folder(small_model.root, tmp_path / "half")
    assert nothing_but(tmp_path, "weights")


def test_an_interrupted_conversion_leaves_nothing(small_model: Any, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.note == "denoising_unet.safetensors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_folder(small_model.root, tmp_path / "half", progress=interrupt)
    assert nothing_but(tmp_path, "weights")


def test_a_lying_disk_is_found_out(small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(path: Path, *args: Any) -> None:
        write_safetensors(path, *args)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(convert_module, "write_safetensors", forgetful)
    with pytest.raises(OutputError, match="reads back differently"):
        convert_folder(small_model.root, tmp_path / "half")
    assert nothing_but(tmp_path, "weights")


def test_a_disk_too_small_is_named(small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda path: usage(10, 0, 10))
    with pytest.raises(OutputError, match="are free"):
        convert_folder(small_model.root, tmp_path / "half")
    assert nothing_but(tmp_path, "weights")


def test_a_full_disk_in_the_middle_is_one_line(
    small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        convert_folder(small_model.root, tmp_path / "half")
    assert nothing_but(tmp_path, "weights")
