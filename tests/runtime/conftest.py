"""The small model, plainly run, and programs made from it once for all tests of one process."""

from __future__ import annotations

import dataclasses
import functools
import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import save_networks
from personalive.cli.main import main
from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.engine.state import StreamState
from personalive.models.networks import Networks
from personalive.runtime import onnx
from personalive.runtime.cache import ProgramCache, program_key
from personalive.runtime.load import load_engine
from personalive.runtime.registry import ONNXRUNTIME, OPENVINO, open_backend
from support.small_engine import key_seeded_networks, noise_images
from support.small_model import SMALL_SHAPE

Opener = Callable[..., Backend]
CALLS = 14  # enough for all keyframes


@pytest.fixture(scope="session")
def networks() -> Networks:
    """Two thirds of the small model's layers: making programs takes time for each of them."""
    unet = dataclasses.replace(SMALL_SHAPE.unet, channels=(8,), down_attends=(True,), up_attends=(True,))
    return key_seeded_networks(dataclasses.replace(SMALL_SHAPE, unet=unet))


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> ProgramCache:
    return ProgramCache(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def first_load(small_weights: Path, cache: ProgramCache) -> tuple[str, set[str]]:
    """The backend that "auto" chose at the first load, and those whose programs it made, for all tests."""
    prepared: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PERSONALIVE_BACKEND")
        patch.setenv("PERSONALIVE_CACHE", str(cache.root))
        engine = load_engine(small_weights, device="cpu", preparing=lambda name, _: prepared.add(name))
    return engine.backend.name, prepared


@pytest.fixture(scope="session")
def export(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder that ``personalive export onnx`` wrote, for all tests, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("export") / "nets", io.StringIO()
    with redirect_stdout(printed):
        assert main(["export", "onnx", str(folder), "--weights", str(small_weights), "--device", "cpu"]) == 0
    return folder, printed.getvalue()


@pytest.fixture(scope="session")
def opened(networks, cache, small_weights, request: pytest.FixtureRequest) -> Opener:
    """Opens a backend of the small model by name, from programs that are made once."""
    identity = CheckpointFolder.open(str(small_weights)).identity()

    @functools.cache
    def open_it(name: str, precision: torch.dtype = torch.float32) -> Backend:
        if name == OPENVINO:
            request.getfixturevalue("first_load")
        elif name == ONNXRUNTIME:
            key = program_key("onnx", *onnx.PACKAGES, model=identity, dtype=precision, device=torch.device("cpu"))
            written = request.getfixturevalue("export")[0]
            cache.folder(key, lambda folder: shutil.copytree(written, folder, dirs_exist_ok=True))
        return open_backend(
            name,
            networks,
            precision=precision,
            identity=identity,
            cache=cache,
            on_prepare=lambda _, share: pytest.fail(f"made again: {share}"),
        )

    return open_it


@pytest.fixture(scope="session")
def small_weights(networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the small model that no test changes."""
    folder = tmp_path_factory.mktemp("backends") / "weights"
    save_networks(networks, folder)
    return folder


@pytest.fixture(scope="session")
def windows() -> np.ndarray:
    return noise_images(4 * CALLS, 3).reshape(CALLS, 4, 64, 64, 3)


@pytest.fixture(scope="session")
def stream(networks, windows) -> list[StreamState]:
    """States of a stream by torch, before each call; a low threshold makes keyframes early."""
    engine = Engine(networks)
    states = [engine.start(noise_images(1, 9)[0], keyframe_threshold=0.0)]
    for window in windows:
        states.append(engine.step(states[-1], window)[0])
    assert {state.keyframes for state in states[:-1]} == {0, 1, 2, 3}
    return states
