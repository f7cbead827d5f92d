"""The whole algorithm, from pictures to pictures, against the original on the key-seeded small checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.runtime.load import load_engine
from support import golden, keyseeded

CALLS, ALL_CALLS = 11, 16  # keyframes enter from the tenth call on
FIRST_PIXEL, PIXEL_STEP = 4, 8  # of those recorded


def loaded(folder: Path, salt: str = "") -> Engine:
    """An engine from files in the released layout, which are deleted again: they take 0.8 GB."""
    try:
        keyseeded.write_checkpoint(golden.manifest(), folder, salt)
        return load_engine(folder, device="cpu", dtype="float32")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return golden.load("stream_small")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return loaded(tmp_path_factory.mktemp("released") / "weights")


def pictures(recorded: dict[str, Tensor]) -> np.ndarray:
    images = golden.upsampled(recorded["images_low_resolution"], int(recorded["image_size"]))
    return images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def stream(engine: Engine, recorded: dict[str, Tensor], calls: int) -> Iterator[tuple[Tensor, int]]:
    """The recorded pixels of each chunk, and the keyframes stored after it."""
    images, noise = pictures(recorded), torch.Generator().manual_seed(int(recorded["seed"]))
    state = engine.start(
        images[0],
        noise=torch.randn(1, 4, 12, 32, 32, generator=noise),
        keyframe_threshold=float(recorded["keyframe_threshold"]),
    )
    for call in range(calls):
        window = images[1 + 4 * call : 5 + 4 * call]
        state, chunk = engine.step(state, window, noise=torch.randn(1, 4, 4, 32, 32, generator=noise))
        yield chunk[:, FIRST_PIXEL::PIXEL_STEP, FIRST_PIXEL::PIXEL_STEP].float(), state.keyframes


def assert_recorded(engine: Engine, recorded: dict[str, Tensor], calls: int) -> None:
    wanted = recorded["frames_every_8th_pixel"] * 255
    keyframes = []
    for call, (pixels, stored) in enumerate(stream(engine, recorded, calls)):
        keyframes.append(stored)
        error = (pixels - wanted[4 * call : 4 * call + 4]).abs()
        assert error.max() <= 1, f"call {call + 1}: off by {error.max():.2f} levels"
        assert error.mean() <= 0.3, f"call {call + 1}: off by {error.mean():.2f} levels on average"
    assert keyframes == recorded["keyframes_after_chunk"][:calls].tolist()


def test_frames_and_keyframes_equal_the_recorded_ones(released: Engine, recorded):
    assert recorded["keyframes_after_chunk"][CALLS - 1] > 0
    assert_recorded(released, recorded, CALLS)


@pytest.mark.full
def test_all_recorded_frames_and_keyframes_equal(released: Engine, recorded):
    assert_recorded(released, recorded, ALL_CALLS)


def test_other_weights_run_and_give_other_frames(recorded, tmp_path: Path):
    (pixels, _), *_ = stream(loaded(tmp_path / "salted", salt="other"), recorded, 1)
    wanted = recorded["frames_every_8th_pixel"][:4] * 255
    assert pixels.std() > 1  # neither empty nor saturated everywhere, as it is when numbers overflow
    assert (pixels - wanted).abs().mean() > 5
