"""The bundled model for photographs: from its files to an engine."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from importlib import resources
from pathlib import Path

import torch

from personalive.checkpoints.face_networks import BLENDSHAPES, LANDMARKS, load_face_networks
from personalive.config import PHOTO
from personalive.engine.face_engine import FaceEngine
from personalive.models.face_reader import LANDMARKS as LANDMARK_COUNT
from personalive.models.face_reader import FaceBlendshapes, FaceLandmarks
from personalive.runtime import openvino
from personalive.runtime.cache import ProgramCache, program_key
from personalive.runtime.programs import ProgramSpec
from personalive.runtime.registry import (
    AUTO,
    EAGER,
    OPENVINO,
    PrepareProgress,
    ignore_progress,
    named_backend,
    unavailable,
)
from personalive.vision.face_landmarks import CROP_SIDE_PX, BlendshapeNetwork, FaceReader, LandmarkNetwork
from personalive.vision.faces import find_detector

_LOG = logging.getLogger(__name__)
_CPU = torch.device("cpu")


def load_face_reader() -> FaceReader:
    """Reader of faces with the bundled networks.

    Raises:
        CheckpointError: weights that are missing or not usable.
    """
    return load_face_engine().reader


def load_face_engine(
    folder: Path | None = None, *, backend: str = AUTO, preparing: PrepareProgress | None = None
) -> FaceEngine:
    """Engine of photographs, on the CPU: geometry is the smaller part of a GPU's work and the larger part of its bus.

    Args:
        folder: with the weights of the networks; None takes the bundled ones.
        backend: what reads faces: "eager" for torch; any other for OpenVINO, where it is installed. It takes a
            quarter of the time and finds the same within 0.04 px (measured).
        preparing: see ``load_engine``.

    Raises:
        CheckpointError: weights that are missing or not usable.
    """
    folder = folder or Path(str(resources.files("personalive"))) / "assets" / PHOTO
    networks = load_face_networks(folder)
    readers: tuple[LandmarkNetwork, BlendshapeNetwork] = networks[:2]
    if named_backend(backend) != EAGER and unavailable(OPENVINO, _CPU, torch.float32) is None:
        try:
            readers = _programs(folder, networks[0], networks[1], preparing)
        except Exception as error:  # noqa: BLE001 (compilers and converters raise whatever they like)
            _LOG.warning(
                "openvino cannot read faces here (%s): torch does, slower", " ".join(str(error).split())[:200]
            )
    reader = FaceReader(*readers, find_detector(None), device=_CPU)
    return FaceEngine(reader, networks, name=PHOTO, folder=None)


def _programs(
    folder: Path, landmarks: FaceLandmarks, blendshapes: FaceBlendshapes, preparing: PrepareProgress | None
) -> tuple[LandmarkNetwork, BlendshapeNetwork]:
    """The networks as OpenVINO runs them, prepared once for each user."""
    crops, points = torch.zeros(1, 3, CROP_SIDE_PX, CROP_SIDE_PX), torch.rand(1, LANDMARK_COUNT, 3)
    specs = {
        "landmarks": ProgramSpec(landmarks, {"crops": crops}, ("landmarks", "presence")),
        "blendshapes": ProgramSpec(blendshapes, {"points": points}, ("blendshapes",)),
    }
    weights = hashlib.sha256()
    for path in (LANDMARKS.find(folder), BLENDSHAPES.find(folder)):
        assert path is not None  # it was loaded
        weights.update(path.read_bytes())
    on_progress = partial(preparing, OPENVINO) if preparing else ignore_progress
    programs = ProgramCache().read(
        program_key("faces", *openvino.PACKAGES, model=weights.hexdigest()),
        make=lambda place: openvino.write(specs, place, on_progress),
        read=partial(openvino.read, specs, precision=torch.float32, threads=1),
    )

    def read_landmarks(crop: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places, presence = programs["landmarks"](crop)
        return places, presence

    return read_landmarks, lambda found: programs["blendshapes"](found)[0]
