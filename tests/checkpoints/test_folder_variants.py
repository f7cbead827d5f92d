"""Weights as users have them: where the files lie, and what is in them beside what we know."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from personalive.checkpoints.check import check_folder
from personalive.checkpoints.convert import convert_folder
from personalive.checkpoints.files import read_infos
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.layout import MODEL_CONFIG
from personalive.checkpoints.networks import load_networks
from personalive.errors import CheckpointError

NODE = ("models", "PersonaLive")
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"


@dataclass(frozen=True)
class Variant:
    """``make`` turns a good folder into what is named by ``--weights``; one line, or the warnings, answers it."""

    name: str
    make: Callable[[Path], Path]
    refused: str | None = None  # pattern of the error
    warned: tuple[str, ...] = ()  # what each warning holds
    root: str = ""  # the folder with the files, seen from the named one


def moved(root: Path, *names: str) -> Path:
    """The folder that ``root`` lies in after a move to below it by these names."""
    top = root.parent / "top"
    target = top.joinpath(*names)
    target.parent.mkdir(parents=True, exist_ok=True)
    root.rename(target)
    return top


def hub_clone(root: Path) -> Path:
    top = moved(root, "pretrained_weights")
    for name in (".git/config", "README.md", "assets/overview.png", "pretrained_weights/onnx/unet.onnx"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"not weights")
    return top


def scattered(root: Path) -> Path:
    """ComfyUI's models/ folder: a folder per kind of model."""
    models = moved(root, "models") / "models"
    for kind, name in (("vae", "sd-vae-ft-mse"), ("diffusers", "sd-image-variations-diffusers")):
        (models / kind).mkdir()
        (models / name).rename(models / kind / name)
    for name in ("checkpoints/other.safetensors", "vae/vae-ft-mse-840000.safetensors", "loras/note.txt"):
        (models / name).parent.mkdir(exist_ok=True)
        (models / name).write_bytes(b"of another node")
    return models


def edited(name: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        path = root / f"personalive/{name}.pth"
        torch.save(change(torch.load(path, weights_only=True)), path)
        return root

    return make


def extra(count: int, size: int = 2) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: state | {f"ema.extra{i}": torch.ones(size) for i in range(count)}


def loose(root: Path) -> Path:
    """More keys in all three; one of them in both files of the denoiser, in two shapes."""
    for name, count, size in (("denoising_unet", 5, 2), ("temporal_module", 1, 3), ("motion_extractor", 1, 2)):
        edited(name, extra(count, size))(root)
    return root


def without_last(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(state.items())[:-1])


def widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    key = next(key for key, value in state.items() if value.ndim == 1)
    return state | {key: torch.ones(state[key].shape[0] + 1)}


def clone_without_base_models(root: Path) -> Path:
    for path in (root / MODEL_CONFIG, *(p for p in root.glob("sd-*/**/*") if p.is_file())):
        path.unlink()
    return hub_clone(root)


def pointers(root: Path) -> Path:
    for path in root.glob("personalive/*.pth"):
        path.write_bytes(LFS_POINTER)
    return root


def one_of_two(root: Path) -> Path:
    return moved(root, "my-model")


VARIANTS = [
    Variant("the folder itself", lambda root: root),
    Variant("its parent", lambda root: moved(root, "pretrained_weights"), root="pretrained_weights"),
    Variant("a clone of the hub", hub_clone, root="pretrained_weights"),
    Variant("a node's folder of ComfyUI", lambda root: moved(root, *NODE), root="models/PersonaLive"),
    Variant("ComfyUI by kind of model", scattered),
    Variant("ComfyUI itself", lambda root: scattered(root).parent, root="models"),
    Variant(
        "keys that the original would not notice",
        loose,
        warned=(
            r"denoising_unet.pth + ",
            "left out what this model has no place for: 5 unexpected (ema.extra0, ema.extra1, ema.extra2, ...)",
            "motion_extractor.pth: left out what this model has no place for: 1 unexpected (ema.extra0)",
        ),
    ),
    Variant(
        "other keys where it would", edited("reference_unet", extra(1)), r"reference_unet\.pth: .*1 unexpected \(ema"
    ),
    Variant("a key too few", edited("temporal_module", without_last), r"temporal_module\.pth: .*1 missing \("),
    Variant(
        "a wrong shape", edited("motion_extractor", widened), r"motion_extractor\.pth: .*1 misshapen \(.*model \d+ "
    ),
    Variant(
        "a clone without the base models",
        clone_without_base_models,
        r"top/pretrained_weights: 5 files missing \(sd-image-variations-diffusers/unet/config.json, .*"
        r"`personalive weights download .*top/pretrained_weights` to fetch",
    ),
    Variant("a clone without git-lfs", pointers, r"git-lfs pointer.*git lfs pull"),
    Variant("a folder around some model", one_of_two, r"did you mean .*top/my-model\?"),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_folder_as_users_have_it(small_model: Any, variant: Variant, caplog: pytest.LogCaptureFixture) -> None:
    where = variant.make(small_model.root)
    if variant.refused is not None:
        with pytest.raises(CheckpointError, match=variant.refused) as caught:
            load_networks(CheckpointFolder.open(where))
        assert "\n" not in str(caught.value)
        assert not check_folder(where).ok
        return
    with caplog.at_level(logging.WARNING):
        networks = load_networks(CheckpointFolder.open(where))
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert len(caplog.records) == (2 if variant.warned else 0)
    assert all(words in said for words in variant.warned)
    for part, module in networks.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, small_model.values[part][key]), (part, key)
    report = check_folder(where)
    assert report.ok
    assert report.root == where / variant.root
    assert sum(len(part.difference.extra) for part in report.parts) == (6 if variant.warned else 0)


@pytest.mark.parametrize("make", [scattered, loose])
def test_a_converted_copy_is_plain(small_model: Any, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    copy = convert_folder(make(small_model.root), tmp_path / "copy", dtype=torch.float32)
    report = check_folder(copy)
    assert report.ok
    assert not any(part.difference.extra for part in report.parts)
    assert {path.name for path in copy.iterdir()} == {"personalive", "sd-vae-ft-mse", "sd-image-variations-diffusers"}
    assert not any("ema" in key for path in copy.rglob("*.safetensors") for key in read_infos(path))


def test_the_same_files_elsewhere_are_the_same_model(small_model: Any) -> None:
    before = CheckpointFolder.open(small_model.root).identity()
    assert CheckpointFolder.open(hub_clone(small_model.root)).identity() == before


def test_a_folder_that_cannot_be_looked_into_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file of this name")
    (tmp_path / "pretrained_weights" / "personalive").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="files missing"):
        CheckpointFolder.open(tmp_path)
