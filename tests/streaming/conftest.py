"""A small model in which everything matters: 64 px, narrow, every weight seeded by its key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from personalive.models.bundle import Networks
from personalive.streaming.engine import Engine
from support.clips import save_picture
from support.small_engine import key_seeded_networks, noise_pictures, small_engine
from support.studio import Pictures, Studio


@pytest.fixture(scope="session")
def networks() -> Networks:
    return key_seeded_networks()


@pytest.fixture(scope="session")
def engine(networks: Networks) -> Engine:
    return small_engine(networks)


@pytest.fixture(scope="session")
def moving(networks: Networks) -> Engine:
    """The same networks where frames enter as the portrait with its head moved."""
    config = dataclasses.replace(networks.config, entry="moved")
    return Engine(dataclasses.replace(networks, config=config), name="moving")


@pytest.fixture(scope="session")
def pictures():
    """``pictures(count, seed)``: smooth noise, (count, 64, 64, 3) uint8."""
    return noise_pictures


@pytest.fixture
def studio(tmp_path: Path, engine: Engine, pictures: Pictures) -> Studio:
    portrait = save_picture(tmp_path / "portrait.png", pictures(1, 1)[0])
    return Studio(tmp_path, engine, pictures, portrait)
