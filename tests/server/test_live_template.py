"""Motion recorded live, replayed live and offline, and refused where it does not fit."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from personalive import animate
from personalive.engine.engine import Engine
from personalive.offline.motion_file import load_motion_file
from support.clips import read_video
from support.live_server import LiveServer, png


def test_motion_recorded_live_drives_again_live_and_in_videos(
    server: LiveServer, engine: Engine, images: np.ndarray, tmp_path: Path
):
    client = server.open()
    client.put_portrait(images[0])
    socket = client.connect()
    driver = itertools.cycle(images)
    socket.drive(driver, 8)
    assert client.request("POST", "/template", json={"recording": True}).json()["recording"] is True
    socket.drive(driver, 20)
    client.request("POST", "/template", json={"recording": False})
    answer = client.request("GET", "/template")
    assert answer.status_code == 200, answer.text
    path = tmp_path / "performance.safetensors"
    path.write_bytes(answer.content)

    clip = load_motion_file(path, engine)
    assert 12 <= len(clip) <= 40
    assert clip.times_s[0] == 0
    assert (np.diff(clip.times_s) > 0).all()
    angles = clip.motion.poses.yaw
    assert float(angles.std()) > 0  # the driver moved

    played = client.request("PUT", "/template?loop=true", content=path.read_bytes()).json()
    assert played["duration_s"] > 0
    before = len(socket.frames)
    socket.receive_until(lambda: sum(h.sequence == 0 for h, _ in socket.frames[before:]) >= 16)
    shown = [image for header, image in socket.frames[before:] if header.sequence == 0]
    assert not np.array_equal(shown[-1], shown[-9])
    assert client.request("GET").json()["driver"] == "template"

    (tmp_path / "portrait.png").write_bytes(png(images[0]))
    report = animate(tmp_path / "portrait.png", path, tmp_path / "video.mp4", engine=engine, center_fallback=True)
    assert report.frames == len(clip) == len(read_video(tmp_path / "video.mp4").images)
    socket.close()


def test_files_that_are_no_motion_files_are_refused_and_leave_nothing(server: LiveServer):
    client = server.open()
    assert client.request("GET", "/template").json()["error"]["kind"] == "unusable_input"
    answer = client.request("PUT", "/template", content=b"pickle me")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("the template: ")
    assert client.request("PATCH", json={"driver": "template"}).json()["error"]["message"] == (
        "no template yet: send one first"
    )
    session = server.app.state.sessions.find(client.opened["id"])
    assert list(session.folder.iterdir()) == []
