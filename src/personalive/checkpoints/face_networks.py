"""Loading of the networks that read a face, as ``scripts/convert_face_landmarks.py`` and its sibling write them."""

from __future__ import annotations

from pathlib import Path

import torch

from personalive.checkpoints.layout import WeightFile
from personalive.checkpoints.strict import load_files
from personalive.errors import CheckpointError
from personalive.models.face_reader import FaceBlendshapes, FaceLandmarks
from personalive.models.person_mask import PersonMask

LANDMARKS, BLENDSHAPES = WeightFile("face_landmarks"), WeightFile("face_blendshapes")
PERSON = WeightFile("person_mask")
_SOURCES = {
    LANDMARKS: ("face_landmarker.task", "convert_face_landmarks.py"),
    BLENDSHAPES: ("face_landmarker.task", "convert_face_landmarks.py"),
    PERSON: ("selfie_segmentation.tflite", "convert_person_mask.py"),
}


def load_face_networks(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[FaceLandmarks, FaceBlendshapes, PersonMask]:
    """Load the networks, strictly and for inference.

    In bfloat16 landmarks move by 0.35 px of the crop on average and up to 1.2 px, in float16 by 0.04 px (measured).

    Raises:
        CheckpointError: a file is missing, damaged or another network's.
    """
    networks = FaceLandmarks(), FaceBlendshapes(), PersonMask()
    for network, (file, (source, script)) in zip(networks, _SOURCES.items(), strict=True):
        path = file.find(folder)
        if path is None:
            raise CheckpointError(
                f"{folder}: no {file.stem}.safetensors here: convert MediaPipe's {source} with scripts/{script}"
            )
        load_files(network, [path], device=device, dtype=dtype)
        network.eval().requires_grad_(False)
    # the narrow convolutions of the landmark network run in 60 % of the time (measured, CPU)
    networks[0].to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return networks
