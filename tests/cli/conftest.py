"""Runs command lines in this process, in an empty folder, with a very small model and made-up clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalive.cli.config import CliConfig
from personalive.cli.main import main
from support.clips import write_noise
from support.small_model import write_small_model


@dataclass(frozen=True)
class Outcome:
    """Outcome of one command line."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return self.err.splitlines()


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that no test changes."""
    return write_small_model(tmp_path_factory.mktemp("cli") / "weights")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: empty, on a machine where no weights are known."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PERSONALIVE_WEIGHTS", raising=False)
    monkeypatch.delenv("PERSONALIVE_DEBUG", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(CliConfig, "plain_interval_s", float("inf"))  # no progress lines, however slow the machine
    return folder


@pytest.fixture
def run(place: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``run("animate", "a.png", ...)``: the exit code and what was printed."""

    def command(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return command


@pytest.fixture
def portrait(place: Path) -> Path:
    path = place / "me.png"
    noise = np.random.default_rng(1).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((100, 80), Image.Resampling.BILINEAR).save(path)
    return path


@pytest.fixture
def driving(place: Path) -> Path:
    return write_noise(place / "clip.mp4", 10)
