"""The bundled model for photographs: from its files to an engine."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch

from personalive.checkpoints.face_networks import load_face_networks
from personalive.config import PHOTO
from personalive.engine.face_engine import FaceEngine
from personalive.vision.face_landmarks import FaceReader
from personalive.vision.faces import find_detector


def load_face_reader() -> FaceReader:
    """Reader of faces with the bundled networks.

    Raises:
        CheckpointError: weights that are missing or not usable.
    """
    return load_face_engine().reader


def load_face_engine(folder: Path | None = None) -> FaceEngine:
    """Engine of photographs, on the CPU: geometry is the smaller part of a GPU's work and the larger part of its bus.

    Args:
        folder: with the weights of the networks; None takes the bundled ones.

    Raises:
        CheckpointError: weights that are missing or not usable.
    """
    folder = folder or Path(str(resources.files("personalive"))) / "assets" / PHOTO
    networks = load_face_networks(folder)
    reader = FaceReader(*networks[:2], find_detector(None), device=torch.device("cpu"))
    return FaceEngine(reader, networks, name=PHOTO, folder=None)
