"""Files of a weights folder, and where they may lie. Source: the released repositories; safetensors first is ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from personalive.config import ModelConfig

SUFFIXES = (".safetensors", ".bin", ".pth")  # in order of preference where several exist

MODEL_CONFIG = "personalive/config.json"  # absent from the released folder, which means the released sizes
UNET_CONFIG = "sd-image-variations-diffusers/unet/config.json"
CLIP_CONFIG = "sd-image-variations-diffusers/image_encoder/config.json"
VAE_CONFIG = "sd-vae-ft-mse/config.json"
REQUIRED_CONFIGS = (UNET_CONFIG, CLIP_CONFIG, VAE_CONFIG)
CONFIGS = (MODEL_CONFIG, *REQUIRED_CONFIGS)

# Names, in upper or lower case, of folders between the one that is named and the weights: a clone of the hub or
# the original has pretrained_weights; ComfyUI has models, and in it a folder per project or kind of model.
_AROUND, _AROUND_DEPTH = ("pretrained_weights", "models", "personalive"), 3
_KINDS = ("", "diffusers", "vae", "clip_vision")  # ComfyUI's folders that diffusers' models may lie in


def place(root: Path, name: str) -> Path:
    """Path of the file ``name`` of the layout: in ``root``, or in one of ComfyUI's folders there."""
    return next((path for kind in _KINDS if (path := root / kind / name).exists()), root / name)


@dataclass(frozen=True)
class WeightFile:
    """One weight file of a part: its path without suffix, and other paths it may have."""

    stem: str
    other_stems: tuple[str, ...] = ()
    required: bool = True

    def find(self, root: Path) -> Path | None:
        """The file to read under ``root``, or None. Safetensors wins over .bin, .bin over .pth."""
        for suffix in SUFFIXES:
            for stem in (self.stem, *self.other_stems):
                path = place(root, f"{stem}{suffix}")
                if path.is_file():
                    return path
        return None


PARTS: Mapping[str, tuple[WeightFile, ...]] = MappingProxyType(
    {
        "vae": (WeightFile("sd-vae-ft-mse/diffusion_pytorch_model"),),
        "clip": (
            WeightFile(
                "sd-image-variations-diffusers/image_encoder/model",
                other_stems=("sd-image-variations-diffusers/image_encoder/pytorch_model",),
            ),
        ),
        "reference_unet": (WeightFile("personalive/reference_unet"),),
        # any split of the keys over the two is accepted, so the second may be absent altogether
        "denoising_unet": (
            WeightFile("personalive/denoising_unet"),
            WeightFile("personalive/temporal_module", required=False),
        ),
        "motion_encoder": (WeightFile("personalive/motion_encoder"),),
        "motion_extractor": (WeightFile("personalive/motion_extractor"),),
        "pose_guider": (WeightFile("personalive/pose_guider"),),
        "detail": (WeightFile("personalive/detail", required=False),),
    }
)


def parts_of(config: ModelConfig) -> tuple[str, ...]:
    """The parts that a model of this config has: all, but the detail head only where one is described."""
    return tuple(part for part in PARTS if part != "detail" or config.detail.width)


def find_part(root: Path, part: str) -> tuple[Path, ...]:
    """The weight files of ``part`` that exist under ``root``, in loading order."""
    return tuple(path for file in PARTS[part] if (path := file.find(root)) is not None)


def missing_files(root: Path) -> Iterator[str]:
    """Names of required files that are absent under ``root``; weights are named without suffix."""
    for config in REQUIRED_CONFIGS:
        if not place(root, config).is_file():
            yield config
    for files in PARTS.values():
        for file in files:
            if file.required and file.find(root) is None:
                yield f"{file.stem}(.safetensors|.bin|.pth)"


def find_root(where: Path) -> Path:
    """The folder that holds ``personalive/`` with its networks: ``where`` or one inside it; else ``where``."""
    level = [where]
    for _ in range(_AROUND_DEPTH + 1):
        for folder in level:
            if _holds_networks(folder):
                return folder
        level = [inner for folder in level for inner in _folders(folder) if inner.name.lower() in _AROUND]
    return where


def _holds_networks(folder: Path) -> bool:
    own = (file for files in PARTS.values() for file in files if file.stem.startswith("personalive/"))
    return (folder / MODEL_CONFIG).is_file() or any(file.find(folder) is not None for file in own)


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError):  # one that may not be read holds nothing for us
        return sorted(path for path in folder.iterdir() if path.is_dir())
    return []
