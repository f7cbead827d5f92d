"""A Ray Serve cluster of live servers on this machine: sticky, fair, and whole though replicas go."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.cluster_clients import ClusterClient, WhipClusterClient
from support.small_model import smallest_shape, write_small_model
from support.waiting import wait_until_async

_LOG = logging.getLogger(__name__)
PHOTO = Path(str(resources.files("personalive"))) / "assets" / "photo"
PORTRAIT = PHOTO / "portraits" / "portrait-2.jpg"
SOCKETS, WHIPS, FPS = 30, 4, 1.5
CONTROLS = {"driving_fps": 1.5, "expression": 1.5}

pytestmark = [
    pytest.mark.full,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("default"),  # those of Ray itself
]


def told(*parts: object) -> None:
    """Log a figure; shown with ``-o log_cli=true --log-cli-level=INFO``."""
    _LOG.info(" ".join(str(part) for part in parts))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve_with(options: Any, work: Callable[[httpx2.AsyncClient], Any]) -> None:
    """Run ``work`` with a cluster of this machine that serves the options."""
    import ray

    from personalive.cluster.serve import serving

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with serving(options):

            async def run() -> None:
                address = f"http://127.0.0.1:{options.serve.port}"
                limits = httpx2.Limits(max_connections=None)
                async with httpx2.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
                    await work(http)

            asyncio.run(run())
    finally:
        ray.shutdown()


def options_for(folder: Path, *, replicas: tuple[int, int], places: int, **config: Any) -> Any:
    from personalive.cluster.config import ServeClusterConfig
    from personalive.cluster.serve import ServeClusterOptions
    from personalive.server.run import ServeOptions

    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    write_small_model(folder / "model", shape=smallest_shape(chunk_frames=1))
    serve = ServeOptions(
        weights=str(folder / "model"),
        model={"backend": "openvino", "dtype": "float32"},
        steps=1,
        port=free_port(),
        max_sessions=places,
        min_session_fps=1e-3,
        credentials=False,
    )
    low, high = replicas
    return ServeClusterOptions(
        serve=serve, min_replicas=low, max_replicas=high, cpus=1.0, config=ServeClusterConfig(**config)
    )


async def sessions_by_replica(http: httpx2.AsyncClient) -> dict[str, int]:
    text = (await http.get("/metrics")).text
    return {
        sample.labels["replica"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "personalive_sessions"
    }


async def metric(http: httpx2.AsyncClient, name: str) -> float:
    text = (await http.get("/metrics")).text
    return next(s.value for f in text_string_to_metric_families(text) for s in f.samples if s.name == name)


async def replicas_linked(http: httpx2.AsyncClient, count: int) -> None:
    """Wait until so many replicas take sessions."""
    for _ in range(3000):
        answer = await http.get("/metrics")
        if answer.status_code == 200 and len(await sessions_by_replica(http)) == count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not {count} replicas")


def replica_processes() -> list[int]:
    """Processes of the replicas, by Ray's name of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::ServeReplica:personalive:LiveReplica" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def driving() -> list[np.ndarray]:
    """Frames of the bundled clip, 128 px."""
    from personalive.media.reader import VideoReader

    with VideoReader(PHOTO / "demo" / "driving.mp4") as reader:
        frames = [frame.image for frame, _ in zip(reader, range(8), strict=False)]
    return [np.ascontiguousarray(frame[::4, ::4]) for frame in frames]


def test_three_replicas_one_killed(tmp_path: Path, driving: list[np.ndarray]):
    async def work(http: httpx2.AsyncClient) -> None:
        await replicas_linked(http, 3)
        portraits = (PORTRAIT.read_bytes(), None)  # half of them upload theirs
        clients = [ClusterClient(http, driving, FPS, portraits[n % 2]) for n in range(SOCKETS)]
        clients += [WhipClusterClient(http, driving, FPS, portraits[n % 2]) for n in range(WHIPS)]
        for client in clients:
            await client.open(**CONTROLS)
        counts = await sessions_by_replica(http)
        told("sessions by replica:", sorted(counts.values()))
        assert sum(counts.values()) == len(clients)
        mean = len(clients) / 3
        assert all(abs(count - mean) <= max(1, 0.2 * mean) for count in counts.values()), counts
        await wait_until_async(
            lambda: all(len(c.frames_s) >= 4 for c in clients), progress=lambda: sum(len(c.frames_s) for c in clients)
        )
        await asyncio.sleep(10)
        before = [
            max(c.longest_gap_s(time.monotonic() - 10, pongs=pongs) for c in clients) for pongs in (False, True)
        ]
        told("longest gap before, frames and pongs:", [round(s, 2) for s in before])
        assert {c.connections for c in clients} == {1}

        victim = replica_processes()[0]
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        for _ in range(300):  # longer than allowed, to tell how long it took
            await asyncio.sleep(0.1)
            moved = [c for c in clients if c.moves_s]
            if moved and time.monotonic() - killed > 12 and all(c.back_s(killed) < np.inf for c in moved):
                break
        (gone,) = counts.keys() - (await sessions_by_replica(http)).keys()
        for client in clients:
            client.check()
        others = [c for c in clients if c not in moved]
        by_whip = sum(isinstance(c, WhipClusterClient) for c in moved)
        told(
            f"moved {len(moved)}, {by_whip} of them by WHIP, after",
            sorted(round(c.moves_s[-1] - killed, 2) for c in moved),
        )
        told("and back with frames after", sorted(round(c.back_s(killed), 2) for c in moved))
        after = [max(c.longest_gap_s(killed, pongs=pongs) for c in others) for pongs in (False, True)]
        told("others' longest gap, frames and pongs:", [round(s, 2) for s in after])
        assert len(moved) == counts[gone]
        assert others
        assert max(c.back_s(killed) for c in moved) < 10
        assert after[1] < 1
        assert after[0] < before[0] + 1
        for client in clients:
            assert client.states[-1]["portrait"]
            assert client.states[-1]["controls"]["expression"] == 1.5
            assert client.indices == sorted(set(client.indices))  # also over a move
        assert await metric(http, "personalive_cluster_sessions_lost_total") == 0
        assert {c.connections for c in clients} == {1}  # the ingress kept every socket
        await replicas_linked(http, 3)  # Ray Serve has begun another one
        for client in clients:
            await client.close()

    serve_with(options_for(tmp_path, replicas=(3, 3), places=20), work)


def test_scaled_up_and_down_under_load(tmp_path: Path, driving: list[np.ndarray]):
    async def work(http: httpx2.AsyncClient) -> None:
        await replicas_linked(http, 1)
        clients = [ClusterClient(http, driving, FPS) for _ in range(12)]

        async def open_all() -> None:
            for client in clients:
                await client.open(**CONTROLS)

        begun = time.monotonic()
        await asyncio.wait_for(open_all(), 300)
        await replicas_linked(http, 3)
        counts = await sessions_by_replica(http)
        told(f"up to three within {time.monotonic() - begun:.0f} s, sessions {sorted(counts.values())}")
        kept = clients[::3]  # of every replica
        for client in clients:
            if client not in kept:
                await client.close()
        left = time.monotonic()
        await replicas_linked(http, 1)
        told(f"down to one {time.monotonic() - left:.0f} s after the others left")
        await asyncio.sleep(5)
        for client in kept:
            client.check()
            assert client.connections == 1
            assert client.indices == sorted(set(client.indices))
            assert client.states[-1]["controls"]["expression"] == 1.5
        moves = Counter(len(client.moves_s) for client in kept)
        told(
            "moves of the four that stayed:",
            dict(moves),
            "longest gap:",
            f"{max(c.longest_gap_s(left) for c in kept):.2f} s",
        )
        assert await metric(http, "personalive_cluster_sessions_lost_total") == 0
        for client in kept:
            await client.close()

    config = {"measured_s": 2.0, "upscale_delay_s": 1.0, "downscale_delay_s": 3.0}
    serve_with(options_for(tmp_path, replicas=(1, 3), places=5, **config), work)
