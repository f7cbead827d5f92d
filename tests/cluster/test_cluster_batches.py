"""``--cluster local``: what one process makes, from any number of actors and whichever of them are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.clips import save_image
from support.head_videos import heads, write_heads
from support.prepared import hashes, write_videos
from support.processes import actors_of

CLIPS, PEOPLE = 8, 3  # every person by every clip
TIMES = {"fps", "seconds", "chunk_ms", "photon_ms", "photon_p95_ms"}
QUIET: dict[str, Any] = {"capture_output": True, "text": True}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PERSONALIVE_BACKEND": "eager"}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def command(place: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "personalive", *map(str, arguments)]


def run(place: Path, *arguments: object) -> None:
    done = subprocess.run(command(place, *arguments), cwd=place, env=ENVIRONMENT, check=False, **QUIET)
    assert done.returncode == 0, done.stderr


def contents(folder: Path) -> dict[str, Any]:
    """Records without times, and bytes of everything else, hidden files included."""
    return {
        path.name: without_times(json.loads(path.read_text().replace(str(folder), "")))
        if path.suffix == ".json"
        else path.read_bytes()
        for path in folder.iterdir()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows of synthetic heads, with clips of 5 to 12 frames."""
    folder = tmp_path_factory.mktemp("cluster")
    for person in range(PEOPLE):
        save_image(folder / f"p{person}.png", next(iter(heads(person, [0.0], side_px=256))))
    for clip in range(CLIPS):
        write_heads(folder / f"c{clip}.mp4", range(5 + clip), seed=clip, side_px=256)
    lines = [f"p{person}.png,c{clip}.mp4,{clip}-{person}.mp4" for clip in range(CLIPS) for person in range(PEOPLE)]
    (folder / "videos.csv").write_text("\n".join(["portrait,driving,output", *lines]))
    return folder


BATCH = ("batch", "videos.csv", "--weights", "tiny", "--no-credentials", "--framing", "none")


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, Any]:
    run(place, *BATCH, "-o", "one")
    found = contents(place / "one")
    assert len(found) == 2 * CLIPS * PEOPLE
    return found


@pytest.mark.full
@pytest.mark.parametrize("actors", [2, 4])
def test_actors_make_the_files_that_one_process_makes(place: Path, whole: dict[str, Any], actors: int):
    run(place, *BATCH, "-o", f"by{actors}", "--cluster", "local", "--actors", actors)
    assert contents(place / f"by{actors}") == whole


def finished(folder: Path) -> dict[str, int]:
    """Videos with their records, and when they were made."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json") if path.with_suffix(".mp4").exists()}


@pytest.mark.full
def test_killed_actors_and_drivers_lose_and_double_nothing(place: Path, whole: dict[str, Any]):
    folder, rng = place / "killed", random.Random(time.time_ns())
    batch = command(place, *BATCH, "-o", "killed", "--cluster", "local", "--actors", 2, "--json", "summary.json")
    kills, driver, kept = ["actor", "driver", "actor", "driver", "actor"], None, dict[str, int]()
    rng.shuffle(kills)
    try:
        for kind in kills:
            if driver is None:
                driver = subprocess.Popen(batch, cwd=place, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
            while not folder.exists() or len(finished(folder)) < len(kept) + 2:  # so the batch is under way
                assert driver.poll() is None
                time.sleep(0.2)
            time.sleep(rng.uniform(0, 1))
            assert driver.poll() is None
            if kind == "actor":
                actors = actors_of(driver.pid)
                assert actors
                os.kill(rng.choice(actors), signal.SIGKILL)
            else:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
                driver = None
            assert kept.items() <= finished(folder).items()
            kept = finished(folder)
        if driver is None:
            driver = subprocess.Popen(batch, cwd=place, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        assert driver.wait() == 0
    finally:
        if driver is not None:
            driver.kill()
            driver.wait()
    assert kept.items() <= finished(folder).items()  # nothing is made twice
    assert contents(folder) == whole
    videos = json.loads((place / "summary.json").read_text())["videos"]
    assert sorted(Path(video["output"]).name for video in videos) == sorted(n for n in whole if n.endswith(".mp4"))
    assert {video["state"] for video in videos} <= {"made", "kept"}


@pytest.mark.full
@pytest.mark.filterwarnings("default")  # those of Ray itself
def test_a_node_that_dies_leaves_its_work_to_the_others(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Two machines as Ray sees them; one is killed with all its processes while its actor is at work."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=4) for _ in range(2)]
        cluster.wait_for_nodes()
        folder, summary = place / "node", place / "node.json"
        batch = command(place, *BATCH, "-o", folder, "--cluster", cluster.address, "--actors", 2, "--json", summary)
        environment = ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}
        driver = subprocess.Popen(batch, cwd=place, env=environment, stdout=subprocess.DEVNULL)
        while not folder.exists() or len(finished(folder)) < 4:
            assert driver.poll() is None
            time.sleep(0.2)
        kept = finished(folder)
        cluster.remove_node(nodes[0], allow_graceful=False)
        assert driver.wait(300) == 0
    finally:
        cluster.shutdown()
    assert kept.items() <= finished(folder).items()
    assert contents(folder) == whole
    assert len(json.loads(summary.read_text())["videos"]) == CLIPS * PEOPLE


@pytest.mark.full
def test_an_evaluation_on_actors_has_the_numbers_of_one_process(place: Path):
    evaluation = ("evaluate", "synthetic:2", "--frames", 32, "--weights", "tiny")
    run(place, *evaluation, "-o", "e1")
    run(place, *evaluation, "-o", "e2", "--cluster", "local", "--actors", 2)
    one, two = (without_times(json.loads((place / name / "evaluation.json").read_text())) for name in ("e1", "e2"))
    assert one == two
    assert {row["method"] for row in one["results"]} == {"ours", "copied portrait", "ground truth"}


@pytest.mark.full
def test_a_set_prepared_by_actors_is_that_of_one_process(place: Path):
    (place / "videos").mkdir()
    write_videos(place / "videos")
    prepare = ("data", "prepare", "videos")
    options: Sequence[object] = ("--size", 96, "--min-seconds", 0.6)
    run(place, *prepare, "s1", *options, "--workers", 1)
    run(place, *prepare, "s2", *options, "--workers", 3, "--cluster", "local")
    assert hashes(place / "s1") == hashes(place / "s2")
    assert np.any(["clips/" in name for name in hashes(place / "s1")])
