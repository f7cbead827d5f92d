"""Reading weight files: right values out of good ones, one helpful line out of bad ones, no code run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from personalive.checkpoints.files import TensorInfo, read_infos, read_tensors
from personalive.errors import CheckpointError

FORMATS = ("safetensors", "zip", "legacy")


def tensors() -> dict[str, Tensor]:
    return {
        "a.weight": torch.arange(6.0).reshape(2, 3),
        "b.half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "c.brain": torch.tensor([[3.0]], dtype=torch.bfloat16),
        "d.count": torch.tensor(7),
        "e.flags": torch.tensor([True, False]),
    }


def write(path: Path, kind: str, content: object) -> Path:
    if kind == "safetensors":
        assert isinstance(content, dict)
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def refusal(path: Path) -> str:
    """The message for a bad file; reading values and reading shapes must both refuse it."""
    with pytest.raises(CheckpointError) as shapes:
        read_infos(path)
    with pytest.raises(CheckpointError) as values:
        read_tensors(path)
    for caught in (shapes, values):
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    return str(values.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_values_and_infos_of_every_format(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "weights.anything", kind, tensors())
    read = read_tensors(path)
    assert read.keys() == tensors().keys()
    for key, expected in tensors().items():
        assert read[key].dtype == expected.dtype
        assert torch.equal(read[key], expected)
    expected_infos = {key: TensorInfo(tuple(t.shape), t.dtype) for key, t in tensors().items()}
    assert read_infos(path) == expected_infos


def test_a_lone_state_dict_container_is_unwrapped(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", "zip", {"state_dict": {"state_dict": tensors()}})
    assert read_tensors(path).keys() == tensors().keys()


def test_parameters_come_without_gradient(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", "zip", {"w": torch.nn.Parameter(torch.ones(2))})
    assert not read_tensors(path)["w"].requires_grad


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": tensors(), "epoch": 3},
        {"w": torch.ones(2), "step": 5},
        {3: torch.ones(1)},
        [torch.ones(1)],
        {"w": torch.ones(2, 2).to_sparse()},
    ],
)
def test_anything_but_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    refusal(write(tmp_path / "w.pth", "zip", content))


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, kind: str) -> None:
    evil = tmp_path / "was_run"
    path = write(tmp_path / "w.pth", kind, {"w": torch.ones(2), "x": Payload(evil)})
    assert "nothing in it was run" in refusal(path)
    assert not evil.exists()
    torch.load(path, weights_only=False)  # the payload is a live one
    assert evil.exists()


def test_a_bare_pickle_does_not_run(tmp_path: Path) -> None:
    evil = tmp_path / "was_run"
    path = tmp_path / "w.bin"
    path.write_bytes(pickle.dumps(Payload(evil)))
    refusal(path)
    assert not evil.exists()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    content = {f"layer{i}.weight": torch.ones(20, 20) for i in range(5)}
    whole = write(tmp_path / "whole", kind, content).read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="again"):
        read_tensors(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_anywhere_never_escapes_as_another_error(tmp_path: Path, kind: str) -> None:
    whole = write(tmp_path / "whole", kind, tensors()).read_bytes()
    path = tmp_path / "damaged.pth"
    refused = 0
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        for read in (read_tensors, read_infos):
            try:
                read(path)
            except CheckpointError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"Not Found, sorry, this is only text", "not a weight file"),
        (b"\xff" * 600, "not a weight file"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_other_content_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert says in refusal(path)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "absent.pth")
    assert "cannot be read" in refusal(tmp_path)
