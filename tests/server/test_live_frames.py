"""Frames and stats from a real server: the driver's frames, bit for bit, and the same for viewers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from personalive.engine.engine import Engine
from personalive.engine.state import Motion
from personalive.live.config import LiveConfig
from personalive.server.config import ServerConfig
from personalive.vision.one_euro import OneEuro, calm_poses
from support.live_checks import check_error, errors_of, generous, send_at_once, turned, until_stats
from support.live_server import jpeg, running

# --- frames to the driver -----------------------------------------------------------------------------------------


def test_frames_come_in_order_at_the_models_size_and_move(socket, camera):
    socket.drive(camera, 40)
    headers = [header for header, _ in socket.frames]
    images = [image for _, image in socket.frames]
    assert {image.shape for image in images} == {(64, 64, 3)}
    assert all(np.any(one != other) for one, other in itertools.pairwise(images[12:]))
    assert [h.index for h in headers] == sorted({h.index for h in headers})
    assert all(h.sequence == h.capture_us == 0 for h in headers if h.index < 12)  # the ease-in
    driven = [h for h in headers if h.index >= 12]
    assert driven
    assert all(h.sequence > 0 and h.capture_us > 0 for h in driven)
    assert [h.sequence for h in driven] == sorted(h.sequence for h in driven)
    assert all(min(h.times.queue_ms, h.times.window_ms, h.times.compute_ms, h.times.pace_ms) >= 0 for h in headers)
    assert all(h.times.of_driver for h in driven)


@dataclass
class Shadow:
    """Frames that the engine alone makes of the same picks. Numbers count new frames from 1; 0 is the last before."""

    engine: Engine
    state: Any
    last: Motion | None = None
    filter: OneEuro | None = None
    frames: list[np.ndarray] = field(default_factory=list)

    def take(self, images: list[np.ndarray], picks: list[tuple[int, int, float]]) -> None:
        new = sorted({number for low, high, _ in picks for number in (low, high)} - {0})
        seen = [simplejpeg.decode_jpeg(jpeg(images[number - 1]), fastdct=True) for number in new]
        read = self.engine.encode_motion(np.stack(seen))
        poses, self.filter = calm_poses(read.poses, self.filter)
        read = Motion(read.tokens, poses)
        known = {number: read[place : place + 1] for place, number in enumerate(new)}
        if self.last is not None:
            known[0] = self.last
        parts = [
            known[low]
            if low == high
            else Motion.cat([known[low], known[high]]).between(*_both, torch.tensor([share]))
            for low, high, share in picks
        ]
        self.state, made = self.engine.step(self.state, Motion.cat(parts))
        self.last = known[max(new)]
        self.frames += [as_sent(image) for image in made.numpy()]


_both = (torch.tensor([0]), torch.tensor([1]))


def as_sent(image: np.ndarray) -> np.ndarray:
    """Through the server's JPEG."""
    quality = ServerConfig().jpeg_quality
    return simplejpeg.decode_jpeg(
        simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling="420", fastdct=True)
    )


TICK_US = 15_625  # 1/64 s, so that no rounding decides
BUNDLES = [  # capture times in ticks; picks of them; whose number each frame carries, counted over all bundles
    ([0, 2, 4, 6], [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 4, 0)], [1, 2, 3, 4]),  # a camera as fast as the model
    ([10, 14], [(0, 1, 0.5), (1, 1, 0), (1, 2, 0.5), (2, 2, 0)], [5, 5, 6, 6]),  # at half its rate
    ([*range(15, 23)], [(2, 2, 0), (4, 4, 0), (6, 6, 0), (8, 8, 0)], [8, 10, 12, 14]),  # at twice
    ([26], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [14, 15, 15, 15]),
    ([34], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [15, 16, 16, 16]),
    ([42], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [16, 17, 17, 17]),
    ([50], [(0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0)], [17, 18, 18, 18]),
]


def test_two_sessions_at_once_each_get_what_the_engine_alone_makes_of_their_frames(engine, images):
    """Bit for bit, whatever the camera's rate: neither the server nor the other session leaves a trace."""
    unbounded = LiveConfig(late_share=1e9, viewer_frames=1000, unacknowledged_frames=1000)
    with running(lambda: engine, live=unbounded, server=generous()) as server:
        clients, sockets, shadows, drivers = [], [], [], []
        for place in range(2):
            client = server.open(seed=place + 5)
            client.put_portrait(images[place])
            clients.append(client)
            sockets.append(client.connect())
            shadows.append(Shadow(engine, engine.start(images[place], seed=place + 5)))
            drivers.append(itertools.cycle(turned(images[place + 2], 7)))
        for ticks, picks, _ in BUNDLES:
            for client, socket, shadow, driver in zip(clients, sockets, shadows, drivers, strict=True):
                bundle = list(itertools.islice(driver, len(ticks)))
                send_at_once(server, client, socket, bundle, [TICK_US * tick for tick in ticks])
                shadow.take(bundle, picks)
        sequences = [0] * 12 + [sequence for *_, of_bundle in BUNDLES for sequence in of_bundle]
        captured = {0: 0} | dict(enumerate((TICK_US * t for ticks, *_ in BUNDLES for t in ticks), start=1))
        for socket, shadow in zip(sockets, shadows, strict=True):
            count = len(shadow.frames)
            socket.receive_until(lambda s=socket, n=count: len(s.frames) == n)
            assert [header.index for header, _ in socket.frames] == [*range(count)]
            assert [header.sequence for header, _ in socket.frames] == sequences[:count]
            assert all(header.capture_us == captured[header.sequence] for header, _ in socket.frames)
            for (_, image), expected in zip(socket.frames, shadow.frames, strict=True):
                np.testing.assert_array_equal(image, expected)
        assert any(np.any(one[1] != other[1]) for one, other in zip(*(s.frames for s in sockets), strict=True))


# --- viewers --------------------------------------------------------------------------------------------------


def test_a_viewer_sees_and_changes_nothing(client, socket, camera):
    viewer = client.connect(client.opened["view_key"], "?role=viewer")
    socket.drive(camera, 30)
    viewer.receive_until(lambda: len(viewer.frames) >= 8)
    own = {header.index: image for header, image in socket.frames}
    shown = [(own[header.index], image) for header, image in viewer.frames if header.index in own]
    assert shown
    for one, other in shown:
        np.testing.assert_array_equal(one, other)
    viewer.send_frame(next(camera))
    viewer.receive_until(lambda: errors_of(viewer))
    assert "viewer" in check_error(errors_of(viewer)[0], "bad_request")
    viewer.close()


def test_a_socket_without_frames_gets_messages_alone(client, socket, camera):
    quiet = client.connect(query="?frames=false")
    socket.drive(camera, 20)
    quiet.receive_until(lambda: any(m["type"] == "stats" and m["stats"]["frames_per_s"] > 0 for m in quiet.messages))
    assert not quiet.frames
    quiet.close()


def test_stats_have_rates_and_latencies(client, socket, camera):
    socket.drive(camera, 30)
    until_stats(socket)
    stats = socket.message("stats")["stats"]
    assert stats["step_ms"] > 0
    assert stats["camera_fps"] > 0
    assert stats["floor_ms"] == pytest.approx(15e3 / stats["frames_per_s"], rel=0.02)
    for stage in ("queue", "window", "compute", "pace"):
        assert 0 <= stats["latency_ms"][stage]["p50"] <= stats["latency_ms"][stage]["p95"]
