"""Fixtures and environment of all tests."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from personalive.engine.engine import Engine
    from personalive.models.networks import Networks
    from support.studio import MakeImages, Studio

# Tests choose their backend themselves, and find and keep nothing in the user's home or caches.
os.environ.setdefault("PERSONALIVE_BACKEND", "eager")
os.environ.pop("PERSONALIVE_CACHE", None)
for _browsers in (Path.home() / ".cache" / "ms-playwright", Path.home() / "Library" / "Caches" / "ms-playwright"):
    if _browsers.is_dir():
        os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(_browsers))
_HOME = tempfile.TemporaryDirectory(prefix="personalive-home-")
os.environ["HOME"] = _HOME.name
for _name in ("CACHE", "CONFIG", "DATA", "STATE"):
    os.environ[f"XDG_{_name}_HOME"] = str(Path(_HOME.name) / _name.lower())

# A shell's background jobs ignore Ctrl-C, and nohup's a closed terminal, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests of a file, so that what they share is made once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(Path(__file__).parent).as_posix()))


@pytest.fixture(autouse=True)
def decoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode files of others in this process, as it is done on Windows: another one takes half a second to start.

    Tests of what such a process is for are marked ``isolated``.
    """
    if request.node.get_closest_marker("isolated") is None:
        monkeypatch.setattr("personalive.media.isolated._POSIX", False)


# --- a small model in which everything matters: 64 px, narrow, every weight seeded by its key ---


@pytest.fixture(scope="session")
def networks() -> Networks:
    from support.small_engine import key_seeded_networks

    return key_seeded_networks()


@pytest.fixture(scope="session")
def engine(networks: Networks) -> Engine:
    from support.small_engine import small_engine

    return small_engine(networks)


@pytest.fixture(scope="session")
def moving(networks: Networks) -> Engine:
    """The same networks where frames enter as the portrait with its head moved."""
    from personalive.engine.engine import Engine

    config = dataclasses.replace(networks.config, entry="moved")
    return Engine(dataclasses.replace(networks, config=config), name="moving")


@pytest.fixture(scope="session")
def make_images() -> MakeImages:
    """``make_images(count, seed)``: smooth noise, (count, 64, 64, 3) uint8."""
    from support.small_engine import noise_images

    return noise_images


@pytest.fixture
def studio(tmp_path: Path, engine: Engine, make_images: MakeImages) -> Studio:
    from support.clips import save_image
    from support.studio import Studio

    portrait = save_image(tmp_path / "portrait.png", make_images(1, 1)[0])
    return Studio(tmp_path, engine, make_images, portrait)
