"""Weights folder: its files, its configs, and its identity in a report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from personalive.checkpoints.config import WeightFilesConfig
from personalive.checkpoints.layout import (
    CLIP_CONFIG,
    CONFIGS,
    MODEL_CONFIG,
    PARTS,
    UNET_CONFIG,
    VAE_CONFIG,
    find_part,
    find_root,
    missing_files,
    parts_of,
    place,
)
from personalive.config import TINY, ModelConfig, expand_user
from personalive.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder:
    """An existing weights folder whose configs were read; no weight file has been opened yet.

    ``root`` may lie inside the folder that was named (see ``find_root``). ``unet``, ``vae`` and ``clip`` are the
    decoded diffusers and transformers config files.
    """

    root: Path
    name: str  # "tiny", or the path as given
    config: ModelConfig
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    clip: Mapping[str, Any]

    @classmethod
    def open(cls, where: str | Path) -> CheckpointFolder:
        """Open a folder in the released layout, or the bundled model by its name "tiny".

        Raises:
            CheckpointError: no such folder, files missing, a config unreadable, or configs that do not fit
                together.
        """
        root = resolve_root(where)
        if missing := list(missing_files(root)):
            shown = ", ".join(missing[: WeightFilesConfig().keys_shown])
            raise CheckpointError(
                f"{root}: {len(missing)} files missing ({shown}{', ...' if missing[3:] else ''}): "
                f"{_place_hint(root) or fetch_hint(root)}"
            )
        folder = cls.from_configs(root, name=str(where))
        if lacking := [part for part in parts_of(folder.config) if not folder.files(part)]:
            raise CheckpointError(
                f"{root}: {MODEL_CONFIG} describes a {lacking[0]} network, but there is no "
                f"{PARTS[lacking[0]][0].stem}.safetensors: download the folder again"
            )
        return folder

    @classmethod
    def from_configs(cls, root: Path, name: str) -> CheckpointFolder:
        """Read the configs of ``root`` whether or not its weight files are all there.

        Raises:
            CheckpointError: a config is unreadable, or they do not fit together.
        """
        own = place(root, MODEL_CONFIG)
        unet, vae = read_config(place(root, UNET_CONFIG)), read_config(place(root, VAE_CONFIG))
        folder = cls(
            root=root,
            name=name,
            config=ModelConfig.from_json(read_config(own)) if own.is_file() else released_config(unet, vae),
            unet=unet,
            vae=vae,
            clip=read_config(place(root, CLIP_CONFIG)),
        )
        folder._check_widths()
        return folder

    def path(self, name: str) -> Path:
        """Path of a file of the layout, such as ``sd-vae-ft-mse/config.json``."""
        return place(self.root, name)

    def files(self, part: str) -> tuple[Path, ...]:
        """The weight files of one part ("vae", "clip", "reference_unet", ...) in loading order."""
        return find_part(self.root, part)

    @property
    def size_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(path.stat().st_size for part in parts_of(self.config) for path in self.files(part))

    def identity(self) -> str:
        """16 hex digits that change when the model does, for run reports. Reads at most 16 MiB per file.

        Covers configs whole, and names, sizes and evenly spread samples of the weight files (all of a file
        up to 16 MiB): retraining or another format changes it; it is no proof against tampering.
        """
        digest = hashlib.sha256()
        configs = (self.path(name) for name in CONFIGS if self.path(name).is_file())
        for path in (*configs, *(file for part in parts_of(self.config) for file in self.files(part))):
            digest.update(f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}\n".encode())
            for sample in _samples(path):
                digest.update(sample)
        return digest.hexdigest()[:16]

    def _check_widths(self) -> None:
        pairs = (
            (UNET_CONFIG, self.unet, "in_channels", VAE_CONFIG, self.vae, "latent_channels"),
            (UNET_CONFIG, self.unet, "cross_attention_dim", CLIP_CONFIG, self.clip, "projection_dim"),
        )
        for name, config, key, other_name, other, other_key in pairs:
            if key in config and other_key in other and config[key] != other[other_key]:
                raise CheckpointError(
                    f"{self.path(name)}: {key} is {config[key]!r} but {other_key} of {other_name} is "
                    f"{other[other_key]!r}: the files come from different models, download them again"
                )


def released_config(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> ModelConfig:
    """Config of a folder without ``personalive/config.json``: released sizes, but the networks' own image side.

    The image's side is the U-Net's latent side times the VAE's stride (64 x 8 = 512 in the release), and
    the keypoint canvas is as large.
    """
    released = ModelConfig()
    try:
        side = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (KeyError, TypeError, ValueError):
        return released  # widths are checked when the networks are built
    guider = dataclasses.replace(released.pose_guider, canvas_size_px=side)
    return dataclasses.replace(released, image_size_px=side, pose_guider=guider)


def resolve_root(where: str | Path) -> Path:
    """The folder that ``where`` names: a path, or one around it (see ``find_root``), or "tiny" for the bundled model.

    Raises:
        CheckpointError: it is not a folder.
    """
    if str(where) == TINY:
        root = Path(str(resources.files("personalive"))) / "assets" / TINY
        if not root.is_dir():
            raise CheckpointError(f"{root}: this installation lacks the bundled model: reinstall personalive")
        return root
    root = expand_user(where)
    if not root.is_dir():
        raise CheckpointError(
            f"{root}: no such weights folder: run `personalive weights download`, or use the bundled model {TINY!r}"
        )
    return find_root(root)


def read_config(path: Path) -> dict[str, Any]:
    """A decoded JSON object.

    Raises:
        CheckpointError: missing, too large, or not a JSON object.
    """
    limit = WeightFilesConfig().max_config_bytes
    try:
        with path.open("rb") as file:
            text = file.read(limit + 1)
        raw = json.loads(text) if len(text) <= limit else None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}): download it again") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: download it again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: not a model config (a JSON object below {limit} bytes): download it again")
    return raw


def _samples(path: Path) -> Iterator[bytes]:
    settings = WeightFilesConfig()
    length, count = settings.identity_sample_bytes, settings.identity_samples
    spare = max(0, path.stat().st_size - length * count)
    with path.open("rb") as file:
        for i in range(count):
            file.seek(i * length + spare * i // (count - 1))
            yield file.read(length)


def fetch_hint(root: Path) -> str:
    """Way out for a folder that lacks files."""
    if (root / MODEL_CONFIG).is_file():  # a model of one's own, to which no released file belongs
        return "copy the whole folder again, or run `personalive weights download` for the released weights elsewhere"
    return f"run `personalive weights download {shlex.quote(str(root))}` to fetch what is missing"


def _place_hint(root: Path) -> str | None:
    for inner in sorted(path for path in root.iterdir() if path.is_dir()):
        if (inner / "personalive").is_dir():
            return f"did you mean {inner}?"
    if root.name == "personalive" and list(root.glob("*unet*")):
        return f"did you mean {root.parent}?"
    return None
