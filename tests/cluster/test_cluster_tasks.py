"""Tasks on a local cluster: every one once, whatever dies; and the share of a cluster that an actor takes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from personalive.cluster.batch import run_batch_on_cluster
from personalive.cluster.connect import connected
from personalive.cluster.tasks import ClusterOptions, Job, actor_pool, share_of_actor
from personalive.errors import DeviceError, InputError
from personalive.offline.batch import RowResult, run_batch
from personalive.offline.manifest import BatchRow, read_manifest
from personalive.runtime.load import load_engine
from support.clips import read_video, save_image, write_noise
from support.processes import actors_of
from support.small_engine import noise_images
from support.small_model import write_small_model

LOCAL = ClusterOptions(address="local", actors=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all tests, whose processes have one thread each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with connected("local"):
            yield


# --- any tasks ------------------------------------------------------------------------------------------------------


def make_job_of(folder: Path) -> Callable[[], Job]:
    """Jobs that square a number, after: dying, once or always; refusing; or waiting until their progress is heard."""

    def make_job() -> Job:
        import time

        def job(task: tuple[str, int], tries: int, tell: Callable[[Any], None]) -> int:
            kind, number = task
            if kind == "dies" or (kind == "dies once" and not tries):
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "refuses":
                raise InputError(f"{number}: is refused")
            if kind == "waits":
                tell(number)
                while not (folder / "heard").exists():
                    time.sleep(0.01)
            return number * number

        return job

    return make_job


@pytest.mark.usefixtures("cluster")
def test_tasks_are_done_once_each_and_the_deadly_one_ends_no_other(tmp_path: Path):
    heard: list[int] = []

    def on_progress(running: Mapping[int, Any]) -> None:
        heard.extend(now for now in running.values() if now is not None)
        if heard:
            (tmp_path / "heard").touch()

    tasks = [("", 0), ("dies once", 1), ("dies", 2), ("", 3), ("waits", 4), ("", 5)]
    with actor_pool(make_job_of(tmp_path), LOCAL) as pool:
        found = sorted(pool.run(tasks, on_progress))
        assert pool.run_one(("", 7)) == 49
        with pytest.raises(InputError, match=r"^8: is refused$"):
            pool.run_one(("refuses", 8))
    (deadly,) = [result for index, result in found if index == 2]
    assert isinstance(deadly, DeviceError)
    assert "was ended 4 times" in str(deadly)
    assert [one for one in found if one[0] != 2] == [(0, 0), (1, 1), (3, 9), (4, 16), (5, 25)]
    assert set(heard) == {4}


# --- a batch --------------------------------------------------------------------------------------------------------


def rows(place: Path, folder: str) -> list[BatchRow]:
    options = {"framing": "center", "credentials": False}
    return read_manifest(place / "videos.csv", place / folder, options).rows


def contents(results: list[RowResult]) -> list[Any]:
    """Results, records and videos of a batch, without times and the names of its folder."""
    found = []
    for result in results:
        if result.problem is not None:
            found.append(result.problem)
            continue
        output = Path(str(result.row.output))
        record = json.loads(output.with_suffix(".json").read_text().replace(str(output.parent), ""))
        images = read_video(output).images
        found.append((result.state, record | {"fps": 0, "seconds": 0}, images.tobytes(), output.read_bytes()))
    return found


def kill_an_actor() -> bool:
    """Kill one that is at work on a video."""
    for number in actors_of(os.getpid()):
        if any(path.read_text() for path in Path(f"/proc/{number}/task").glob("*/children")):  # one reads its clip
            os.kill(number, signal.SIGKILL)
            return True
    return False


@pytest.mark.usefixtures("cluster")
def test_a_batch_on_actors_is_that_of_one_process_though_one_is_killed(tmp_path: Path):
    weights = str(write_small_model(tmp_path / "weights"))
    for name, seed in (("a", 1), ("b", 2)):
        save_image(tmp_path / f"{name}.png", noise_images(1, seed)[0])
    write_noise(tmp_path / "c.mp4", 5)
    write_noise(tmp_path / "long.mp4", 40)
    lines = [
        "a.png,c.mp4,1.mp4",
        "b.png,gone.mp4,2.mp4",
        f"file://{tmp_path}/b.png,long.mp4,3.mp4",
        "a.png,c.mp4,4.mp4",
    ]
    (tmp_path / "videos.csv").write_text("\n".join(["portrait,driving,output", *lines]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engine: Any = {"device": "cpu", "dtype": "float32", "vram": "auto", "backend": "eager", "decoder": None}
        one = run_batch(rows(tmp_path, "one"), lambda: load_engine(weights, **engine), weights)
    finally:
        torch.set_num_threads(threads)
    killed = []

    def show(now: Any) -> None:
        if not killed and kill_an_actor():
            killed.append(now)

    two = run_batch_on_cluster(rows(tmp_path, "two"), weights, engine, LOCAL, progress=show)
    assert killed
    assert [result.state for result in two] == ["made", "made", "failed", "made"]
    assert contents(two) == contents(one)
    assert not list((tmp_path / "two").glob(".*"))
    left = [result.row for result in two if result.state == "made"]
    again = run_batch_on_cluster(left, weights, engine, LOCAL)
    assert [result.state for result in again] == ["kept", "kept", "kept"]


# --- shares ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([{"CPU": 16}], {}, (4, {"num_cpus": 4})),
        ([{"CPU": 2}, {"CPU": 4}], {}, (3, {"num_cpus": 2})),
        ([{"CPU": 6}, {"CPU": 6}], {"actors": 3}, (3, {"num_cpus": 3})),  # 4 each would leave one without room
        ([{"CPU": 2}], {"actors": 4}, (4, {"num_cpus": 0.5})),
        ([{"CPU": 2}], {"actors": 3}, (3, {"num_cpus": 0.6666})),
        ([{"CPU": 8}], {"cores": 1}, (8, {"num_cpus": 1})),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 8}], {}, (8, {"num_gpus": 1.0, "num_cpus": 8})),
        ([{"CPU": 64, "GPU": 8}], {"actors": 16}, (16, {"num_gpus": 0.5, "num_cpus": 4})),
        ([{"CPU": 16, "GPU": 8}], {"device": "cpu"}, (4, {"num_cpus": 4})),
    ],
)
def test_an_actor_takes_a_device_and_its_part_of_the_cores(nodes: Any, options: dict[str, Any], expected: Any):
    count, share = share_of_actor(nodes, dataclasses.replace(ClusterOptions(address="local"), **options))
    assert (count, share) == expected


def test_a_cluster_without_processors_is_one_line():
    with pytest.raises(DeviceError, match="no machine with processors"):
        share_of_actor([{"memory": 1.0}], ClusterOptions(address="auto"))
