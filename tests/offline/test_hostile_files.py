"""Every input of ``animate`` against hostile files: one line or a video, soon, with nothing left behind."""

from __future__ import annotations

import logging
import time
from collections import Counter
from pathlib import Path

import pytest

from personalive.errors import PersonaLiveError
from personalive.offline.animate import animate
from support.hostile_files import HostileFile, hostile_files
from support.processes import children, open_descriptors
from support.studio import Studio

pytestmark = pytest.mark.isolated

LIMIT_S = 20.0
_LOG = logging.getLogger(__name__)


def outcome(file: HostileFile, studio: Studio, clip: Path, engine) -> str:
    """Outcome of one file: "made" or "refused"."""
    portrait = file.path if file.role == "portrait" else studio.portrait
    driving = clip if file.role == "portrait" else file.path
    out = studio.folder / "out.mp4"
    started = time.monotonic()
    try:
        animate(portrait, driving, out, engine=engine, framing="center")
    except PersonaLiveError as error:
        line = str(error)
        assert "\n" not in line, file
        assert file.path.name in line, (file, line)
        result = "refused"
    else:
        result = "made"
        assert out.stat().st_size > 0
    assert time.monotonic() - started < LIMIT_S, file
    for path in (out, out.with_suffix(".json"), out.with_suffix(".partial.mp4")):
        path.unlink(missing_ok=True)
    return result


def run(studio: Studio, engine, count: int, seed: int) -> Counter:
    clip = studio.clip(4)
    files = studio.folder / "files"
    files.mkdir()
    before = {path.name for path in studio.folder.iterdir()}
    found: Counter = Counter()
    slowest = 0.0
    for file in hostile_files(files, count, seed):
        descriptors, processes = open_descriptors(), children()
        started = time.monotonic()
        found[file.role, outcome(file, studio, clip, engine)] += 1
        slowest = max(slowest, time.monotonic() - started)
        assert {path.name for path in studio.folder.iterdir()} == before, file
        assert open_descriptors() <= descriptors, file
        assert children() <= processes, file
    _LOG.info("%s, slowest %.1f s", dict(found), slowest)
    return found


def test_a_sample_of_hostile_files(studio: Studio, engine):
    found = run(studio, engine, 8, seed=1)
    assert sum(found.values()) == 8
    assert {role for role, _ in found} == {"driving", "portrait", "motion"}
    assert {result for _, result in found} == {"made", "refused"}


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_three_hundred_hostile_files(studio: Studio, engine):
    found = run(studio, engine, 320, seed=2)
    assert sum(found.values()) == 320
    assert all(found[role, result] for role in ("driving", "portrait") for result in ("made", "refused"))
