"""Which of the pretrained measures can be made here, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from personalive.config import FACE_DETECTOR
from personalive.evaluation.pretrained.files import (
    ARCFACE,
    I3D,
    LPIPS_HEADS,
    SMIRK,
    VGG16,
    YUNET,
    Found,
    PretrainedFile,
    find,
    packaged_heads,
)
from personalive.evaluation.pretrained.lpips import Lpips, load_lpips
from personalive.evaluation.pretrained.onnx import FaceEmbedder, I3d, Smirk, has_runtime


@dataclass
class Tools:
    """Loaded networks, None where a file is missing, and what is missing for which figure."""

    lpips: Lpips | None = None
    faces: FaceEmbedder | None = None
    smirk: Smirk | None = None
    i3d: I3d | None = None
    found: list[Found] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # figure -> "needs FILE ..."


def load_tools(folder: Path, weights_folder: Path | None, device: torch.device) -> Tools:
    """Load what lies in ``folder``; YuNet is also looked for beside the weights.

    Raises:
        CheckpointError: a file is there, but damaged or another one.
    """
    tools = Tools()
    yunet = () if weights_folder is None else ((weights_folder / FACE_DETECTOR).parent, weights_folder)
    heads = packaged_heads()
    with_heads = (folder,) if heads is None else (folder, heads)
    if paths := _located(tools, folder, (VGG16, (folder,)), (LPIPS_HEADS, with_heads)):
        tools.lpips = load_lpips(paths[0], paths[1], device)
    if paths := _located(tools, folder, (ARCFACE, (folder,)), (YUNET, (folder, *yunet)), onnx=True):
        tools.faces = FaceEmbedder(*paths)
    if paths := _located(tools, folder, (SMIRK, (folder,)), onnx=True):
        tools.smirk = Smirk(*paths)
    if paths := _located(tools, folder, (I3D, (folder,)), onnx=True):
        tools.i3d = I3d(*paths)
    return tools


def _located(
    tools: Tools, folder: Path, *wanted: tuple[PretrainedFile, tuple[Path, ...]], onnx: bool = False
) -> list[Path]:
    """The paths of all files wanted, or none of them with the reason noted."""
    found = [find(file, folders) for file, folders in wanted]
    absent = [file for (file, _), one in zip(wanted, found, strict=True) if one is None]
    lacks = [f"{file.name} in {folder} ({file.source})" for file in absent]
    if onnx and not has_runtime():
        lacks.append("onnxruntime (pip install 'personalive[metrics]')")
    if lacks:
        tools.missing |= dict.fromkeys(wanted[0][0].measures, f"needs {' and '.join(lacks)}")
        return []
    tools.found += [one for one in found if one is not None]
    return [one.path for one in found if one is not None]
