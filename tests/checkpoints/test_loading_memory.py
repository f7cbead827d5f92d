"""Main memory while a model is loaded to the CPU: the weights themselves and little more, in every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from personalive.checkpoints.config import WeightFilesConfig
from personalive.checkpoints.files import portions, read_infos, read_tensors
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.layout import UNET_CONFIG
from personalive.checkpoints.networks import build_part

MB = 10**6
RELEASED_BYTES = 12_092 * MB  # in float32
LEVELS = {  # the released U-Nets at a fifth of their width: 0.4 GB, two thirds of it in one file
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [64, 128, 256, 256],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "cross_attention_dim": 12,
}
KINDS = ("pth", "safetensors")
LOADS = [("pth", "float32"), ("safetensors", "float16")]
OTHER_LOADS = [("pth", "bfloat16"), ("safetensors", "float32")]
LOAD = """
import json, os, sys, torch
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks
from personalive.checkpoints.config import WeightFilesConfig

def memory(what):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))

warm = load_networks(CheckpointFolder.open("tiny"))  # libraries are there; kept, so that its memory is not used again
WeightFilesConfig.__init__.__kwdefaults__["read_at_once_bytes"] = int(sys.argv[1])
for place, dtype in zip(sys.argv[2::2], sys.argv[3::2]):
    if (child := os.fork()) == 0:  # a process of its own, whose libraries are there already
        folder = CheckpointFolder.open(place)
        before = memory("VmRSS")
        networks = load_networks(folder, dtype=getattr(torch, dtype))
        held = sum(t.nbytes for m in networks.modules().values() for t in (*m.parameters(), *m.buffers()))
        found = {"grown": memory("VmHWM") - before, "held": held, "files": folder.size_bytes}
        print(json.dumps(found), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def write(root: Path, kind: str, pristine_small_model: CheckpointFolder) -> Path:
    """Make a folder in the released layout whose U-Nets have some size."""
    noise = torch.randn(20_000_000, generator=torch.Generator().manual_seed(0))
    for path in pristine_small_model.root.rglob("*.json"):
        target = root / path.relative_to(pristine_small_model.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(LEVELS) if target == root / UNET_CONFIG else path.read_text())
    folder = CheckpointFolder.from_configs(root, name="middling")
    for part, file in FILES.items():
        state = {
            key: noise[: t.numel()].clone().reshape(t.shape)
            if t.is_floating_point()
            else torch.zeros_like(t, device="cpu")
            for key, t in build_part(folder, part).state_dict().items()
        }
        path = root / f"{file}.{kind}"
        save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    return root


@pytest.fixture(scope="module")
def weights(pristine_small_model, tmp_path_factory) -> dict[str, Path]:
    """Such a folder by kind of file."""
    return {kind: write(tmp_path_factory.mktemp(kind), kind, pristine_small_model) for kind in KINDS}


FILES = {
    "vae": "sd-vae-ft-mse/diffusion_pytorch_model",
    "clip": "sd-image-variations-diffusers/image_encoder/pytorch_model",
    **{name: f"personalive/{name}" for name in ("reference_unet", "denoising_unet", "motion_encoder")},
    **{name: f"personalive/{name}" for name in ("motion_extractor", "pose_guider")},
}


def loaded(weights: dict[str, Path], loads: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, int]]:
    """Each load in a process of its own, in portions as large a share of this checkpoint as of the released one."""
    size = CheckpointFolder.open(weights["pth"]).size_bytes
    portion = WeightFilesConfig().read_at_once_bytes * size // RELEASED_BYTES
    given = [text for kind, dtype in loads for text in (str(weights[kind]), dtype)]
    command = [sys.executable, "-c", LOAD, str(portion), *given]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # a process that has computed with more threads may not fork
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    return dict(zip(loads, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("loads", [LOADS, pytest.param(OTHER_LOADS, marks=pytest.mark.full)], ids=["", "others"])
def test_loading_takes_little_more_than_the_weights(weights, loads: list[tuple[str, str]]):
    for (kind, dtype), found in loaded(weights, loads).items():
        size = CheckpointFolder.open(weights[kind]).size_bytes
        assert 300 * MB < size < 600 * MB
        assert found["files"] == size
        assert 0.9 * found["held"] < found["grown"] < found["held"] + 0.15 * size
        assert found["grown"] <= (1.3 if dtype == "float32" else 0.7) * size


@pytest.mark.parametrize("kind", KINDS)
def test_portions_are_all_keys_once_and_small(weights: dict[str, Path], kind: str):
    path = next(weights[kind].glob("personalive/reference_unet.*"))
    infos = read_infos(path)
    groups = list(portions(path, infos, MB))
    assert sorted(key for group in groups for key in group) == sorted(infos)
    sizes = [sum(infos[key].nbytes for key in group) for group in groups]
    assert all(size <= MB or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
    assert max(sizes) > MB  # a tensor of its own
    assert min(len(group) for group in groups) == 1 < max(len(group) for group in groups)
    whole = read_tensors(path)
    part = read_tensors(path, groups[3])
    assert set(part) == groups[3]
    assert all(torch.equal(tensor, whole[key]) for key, tensor in part.items())
    assert all(infos[key].nbytes == tensor.nbytes for key, tensor in whole.items())


def test_a_file_of_old_torch_is_read_once(tmp_path: Path):
    path = tmp_path / "old.pth"
    torch.save({name: torch.zeros(10) for name in "abc"}, path, _use_new_zipfile_serialization=False)
    assert list(portions(path, read_infos(path), 1)) == [frozenset("abc")]
