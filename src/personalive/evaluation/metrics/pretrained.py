"""Pretrained networks of metrics: the files, their sources, licences and hashes, and loading those that are there.

The user downloads the files; nothing here fetches anything. No hash here is guessed. A file whose publisher's hash is
not known to us is checked against ``FILE.sha256`` beside it where the user puts one (as ``sha256sum`` writes it);
else it is used, its hash recorded and called unverified.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch

from personalive.checkpoints.perceptual import load_lpips
from personalive.config import FACE_DETECTOR
from personalive.errors import CheckpointError
from personalive.evaluation.metrics.onnx_networks import FaceEmbedder, I3d, Smirk, has_runtime
from personalive.models.perceptual import Lpips
from personalive.runtime.face import load_face_reader
from personalive.vision.face_landmarks import FaceReader

VERIFIED, BY_SIDECAR, UNVERIFIED = "as published", "as in its .sha256 file", "unverified"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PretrainedFile:
    """File of a network: its name, the metrics it is for, licence, publisher, and the hash where we know it."""

    name: str
    metrics: tuple[str, ...]
    licence: str
    source: str
    sha256: str | None = None


VGG16 = PretrainedFile(
    "vgg16-397923af.pth",
    ("lpips", "tlp"),
    "BSD-3-Clause (torchvision); trained on ImageNet, whose terms are for research",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)
LPIPS_HEADS = PretrainedFile(
    "vgg.pth",
    ("lpips", "tlp"),
    "BSD-2-Clause (Zhang et al.); comes inside torchmetrics",
    "torchmetrics, functional/image/lpips_models/vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)
ARCFACE = PretrainedFile(
    "w600k_r50.onnx",
    ("id_sim",),
    "non-commercial research only (InsightFace)",
    "InsightFace's model pack buffalo_l",
    "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
)
YUNET = PretrainedFile(
    "face_detection_yunet_2023mar.onnx",
    ("id_sim",),
    "MIT",
    "OpenCV's model zoo; `personalive weights download` fetches it",
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
)
SMIRK = PretrainedFile(
    "smirk.onnx",
    ("aed", "apd"),
    "see its publisher; its parameters are those of FLAME, which is for non-commercial research",
    "an ONNX export of the SMIRK encoder, made by you (its inputs and outputs are in docs/evaluation.md)",
)
I3D = PretrainedFile(
    "i3d.onnx",
    ("fvd",),
    "Apache-2.0 (DeepMind's weights); see who converted them",
    "an ONNX export of I3D for Kinetics-400, made by you (its inputs and outputs are in docs/evaluation.md)",
)
FILES = (VGG16, LPIPS_HEADS, ARCFACE, YUNET, SMIRK, I3D)


@dataclass(frozen=True, slots=True)
class Found:
    """File that will be used: its hash, and what that was compared with."""

    file: PretrainedFile
    path: Path
    sha256: str
    check: str  # VERIFIED, BY_SIDECAR or UNVERIFIED


def find(file: PretrainedFile, folders: tuple[Path, ...]) -> Found | None:
    """Find the file in the first of ``folders`` that holds it; None if there is none.

    Raises:
        CheckpointError: it cannot be read, or it is another file than the one published or stated.
    """
    path = next((folder / file.name for folder in folders if (folder / file.name).is_file()), None)
    if path is None:
        return None
    seen = _sha256(path)
    stated = _sidecar(path)
    for wanted, origin in ((file.sha256, "the published one"), (stated, f"that in {path.name}.sha256")):
        if wanted is not None and wanted != seen:
            raise CheckpointError(
                f"{path}: its SHA-256 {seen[:12]}... is not {origin} ({wanted[:12]}...): download it again from "
                "its publisher"
            )
    check = VERIFIED if file.sha256 else BY_SIDECAR if stated else UNVERIFIED
    return Found(file, path, seen, check)


def packaged_heads() -> Path | None:
    """Folder inside torchmetrics where LPIPS' heads are."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "functional" / "image" / "lpips_models"


def _sidecar(path: Path) -> str | None:
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.is_file():
        return None
    words = beside.read_text(encoding="utf-8", errors="replace").split()
    if not words or not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]):
        raise CheckpointError(f"{beside}: holds no SHA-256: write it with sha256sum, or delete the file")
    return words[0].lower()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}): download it again") from error
    return digest.hexdigest()


# --- networks ----------------------------------------------------------------------------------------------


@dataclass
class PretrainedNetworks:
    """Loaded networks, None where a file is missing, and the reason by metric."""

    lpips: Lpips | None = None
    faces: FaceEmbedder | None = None
    smirk: Smirk | None = None
    i3d: I3d | None = None
    reader: FaceReader | None = None  # of the bundled model for photographs
    found: list[Found] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # metric -> "needs FILE ..."


def load_pretrained(folder: Path, weights_folder: Path | None, device: torch.device) -> PretrainedNetworks:
    """Load what lies in ``folder``, and the bundled reader of faces; YuNet is also looked for beside the weights.

    Raises:
        CheckpointError: a file is there, but damaged or another one.
    """
    networks = PretrainedNetworks(reader=load_face_reader())
    yunet = () if weights_folder is None else ((weights_folder / FACE_DETECTOR).parent, weights_folder)
    heads = packaged_heads()
    with_heads = (folder,) if heads is None else (folder, heads)
    if paths := _located(networks, folder, (VGG16, (folder,)), (LPIPS_HEADS, with_heads)):
        networks.lpips = load_lpips(paths[0], paths[1], device)
    if paths := _located(networks, folder, (ARCFACE, (folder,)), (YUNET, (folder, *yunet)), onnx=True):
        networks.faces = FaceEmbedder(*paths)
    if paths := _located(networks, folder, (SMIRK, (folder,)), onnx=True):
        networks.smirk = Smirk(*paths)
    if paths := _located(networks, folder, (I3D, (folder,)), onnx=True):
        networks.i3d = I3d(*paths)
    return networks


def _located(
    networks: PretrainedNetworks, folder: Path, *wanted: tuple[PretrainedFile, tuple[Path, ...]], onnx: bool = False
) -> list[Path]:
    """Paths of all files wanted, or none of them with the reason noted."""
    found = [find(file, folders) for file, folders in wanted]
    absent = [file for (file, _), one in zip(wanted, found, strict=True) if one is None]
    lacks = [f"{file.name} in {folder} ({file.source})" for file in absent]
    if onnx and not has_runtime():
        lacks.append("onnxruntime (pip install 'personalive[metrics]')")
    if lacks:
        networks.missing |= dict.fromkeys(wanted[0][0].metrics, f"needs {' and '.join(lacks)}")
        return []
    networks.found += [one for one in found if one is not None]
    return [one.path for one in found if one is not None]
