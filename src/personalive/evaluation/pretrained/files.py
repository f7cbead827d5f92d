"""Which file each measure needs, where it is had, under which licence, and whether a file is that file.

No hash here is guessed. A file whose publisher's hash is not known to us is checked against ``FILE.sha256`` beside it
where the user puts one (as ``sha256sum`` writes it), else it is used, its hash recorded and called unverified.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from personalive.errors import CheckpointError

VERIFIED, BY_SIDECAR, UNVERIFIED = "as published", "as in its .sha256 file", "unverified"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PretrainedFile:
    """One file: its name, the figures it is for, its licence, who publishes it, and the hash where we know it."""

    name: str
    measures: tuple[str, ...]
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
    "an ONNX export of the SMIRK encoder, made by you (docs/evaluation.md says how it must look)",
)
I3D = PretrainedFile(
    "i3d.onnx",
    ("fvd",),
    "Apache-2.0 (DeepMind's weights); see who converted them",
    "an ONNX export of I3D for Kinetics-400, made by you (docs/evaluation.md says how it must look)",
)
FILES = (VGG16, LPIPS_HEADS, ARCFACE, YUNET, SMIRK, I3D)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that will be used: its hash, and what that was compared with."""

    file: PretrainedFile
    path: Path
    sha256: str
    check: str  # VERIFIED, BY_SIDECAR or UNVERIFIED


def find(file: PretrainedFile, folders: tuple[Path, ...]) -> Found | None:
    """The file in the first of ``folders`` that holds it, or None.

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
    """The folder inside torchmetrics where LPIPS' heads are."""
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
