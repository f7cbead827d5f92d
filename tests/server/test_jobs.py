"""Jobs: videos made beside live sessions, equal to those of ``animate``, cancelled and refused cleanly."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from personalive import animate
from personalive.engine.engine import Engine
from support import c2pa_reader
from support.clips import read_video, write_clip
from support.live_server import LiveServer, png
from support.waiting import wait_until


class JobClient:
    """Client of one job."""

    def __init__(self, server: LiveServer, **options: Any) -> None:
        answer = server.http.post("/api/jobs", json=options)
        assert answer.status_code == 201, answer.text
        self.id, self._key = answer.json()["id"], answer.json()["key"]
        self._http = server.http

    def request(self, method: str, path: str = "", **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._key}"}
        return self._http.request(method, f"/api/jobs/{self.id}{path}", headers=headers, **more)

    def upload(self, portrait: bytes, clip: bytes) -> None:
        for name, body in (("portrait", portrait), ("clip", clip)):
            assert self.request("PUT", f"/{name}", content=body).status_code == 204

    def start(self) -> httpx2.Response:
        return self.request("POST", "/start")

    def state(self) -> dict[str, Any]:
        return self.request("GET").json()

    def finish(self) -> dict[str, Any]:
        wait_until(lambda: self.state()["state"] not in ("waiting", "running"))
        return self.state()


@pytest.fixture(scope="module")
def clip(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 frames with sound."""
    frames = [images[i % 8] for i in range(22)]
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames, range(22), audio_s=0.8)


def test_a_job_makes_the_video_that_animate_makes(
    server: LiveServer, engine: Engine, images: np.ndarray, clip: Path, tmp_path: Path
):
    job = JobClient(server, seed=3, side_by_side=True, steps=2)
    job.upload(png(images[0]), clip.read_bytes())
    assert job.state()["state"] == "open"
    assert job.start().status_code == 202
    state = job.finish()
    assert state["state"] == "done", state
    assert state["frames"] == state["total"] == 22
    (tmp_path / "made.mp4").write_bytes(job.request("GET", "/result").content)
    (tmp_path / "portrait.png").write_bytes(png(images[0]))
    options = {"seed": 3, "side_by_side": True, "steps": 2, "center_fallback": True}
    animate(tmp_path / "portrait.png", clip, tmp_path / "own.mp4", engine=engine, **options)
    assert c2pa_reader.read(tmp_path / "made.mp4").whole
    made, own = read_video(tmp_path / "made.mp4"), read_video(tmp_path / "own.mp4")
    assert made.times == own.times
    assert made.audio_s == own.audio_s > 0.5
    assert np.array_equal(made.images, own.images)


def test_a_job_gives_the_whole_photograph(server: LiveServer, images: np.ndarray, clip: Path, tmp_path: Path):
    side = images.shape[1]
    photograph = np.pad(images[0], ((0, 0), (side // 2, side // 2), (0, 0)), mode="edge")
    job = JobClient(server, output_frame="portrait")
    job.upload(png(photograph), clip.read_bytes())
    job.start()
    state = job.finish()
    assert state["state"] == "done", state
    (tmp_path / "made.mp4").write_bytes(job.request("GET", "/result").content)
    assert read_video(tmp_path / "made.mp4").images.shape[1:] == (side, 2 * side, 3)
    for options in ({"output_frame": "whole"}, {"output_frame": "portrait", "size_px": 128}):
        refused = server.http.post("/api/jobs", json=options)
        assert refused.status_code == 400
        assert refused.json()["error"]["message"].startswith("options: output frame")


def test_recordings_and_snapshots_come_back_signed(
    server: LiveServer, images: np.ndarray, clip: Path, tmp_path: Path
):
    for kind, name, body in (
        ("video/mp4", "clip.mp4", clip.read_bytes()),
        ("video/webm", "clip.webm", b"\x1aE\xdf\xa3"),
    ):
        answer = server.http.put("/api/credentials", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200, answer.text
        (tmp_path / name).write_bytes(body)
        inside = answer.headers["content-type"] == kind
        assert inside == (kind == "video/mp4")
        (tmp_path / (name if inside else "clip.c2pa")).write_bytes(answer.content)
        assert c2pa_reader.read(tmp_path / name).whole
    refused = {("image/gif", 400): png(images[0]), ("image/png", 422): b"no image", ("video/mp4", 400): b""}
    for (kind, status), body in refused.items():
        answer = server.http.put("/api/credentials", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
        assert str(server.app.state.sessions.folder) not in answer.text
    assert not [path for path in server.app.state.sessions.folder.iterdir() if path.name.startswith("tmp")]


def test_a_job_and_a_live_session_share_the_worker(server: LiveServer, images: np.ndarray, clip: Path):
    client = server.open()
    client.put_portrait(images[1])
    socket = client.connect()
    job = JobClient(server)
    job.upload(png(images[0]), clip.read_bytes())
    job.start()
    socket.drive(itertools.cycle(images), 24)
    assert job.finish()["state"] == "done"
    socket.drive(itertools.cycle(images), 8)
    socket.close()


def test_deleting_a_job_stops_it_and_leaves_nothing(server: LiveServer, images: np.ndarray, clip: Path):
    job = JobClient(server)
    folder = server.app.state.jobs.find(job.id).folder
    job.upload(png(images[0]), clip.read_bytes())
    job.start()
    assert job.request("DELETE").status_code == 204
    wait_until(lambda: not folder.exists())
    assert job.request("GET").json()["error"]["kind"] == "not_found"


def test_a_job_of_unusable_parts_fails_in_one_line_without_our_paths(server: LiveServer, images: np.ndarray):
    job = JobClient(server)
    job.upload(png(images[0]), b"this is no video")
    job.start()
    state = job.finish()
    assert state["state"] == "failed"
    assert state["error"]["kind"] == "unusable_input"
    assert state["error"]["message"].startswith("the clip")
    assert "/" not in state["error"]["message"]
    assert job.request("GET", "/result").status_code == 404


def test_an_unexpected_fault_ends_one_job_and_not_those_after_it(
    server: LiveServer, images: np.ndarray, clip: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("personalive.server.jobs.animate", broken)
        job = JobClient(server)
        job.upload(png(images[0]), clip.read_bytes())
        job.start()
        state = job.finish()
    assert (state["state"], state["error"]["kind"]) == ("failed", "internal")
    after = JobClient(server)
    after.upload(png(images[0]), clip.read_bytes())
    after.start()
    assert after.finish()["state"] == "done"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"contact_sheet": "/tmp/x.png"}, "unknown option 'contact_sheet'"),
        ({"center_fallback": True}, "unknown option 'center_fallback'"),
        ({"speed": 2}, "unknown option 'speed'"),
        ({"seed": -1}, "seed -1"),
        ({"seed": "one"}, "options: "),
        ({"steps": 0}, "steps 0"),
    ],
)
def test_options_that_are_not_a_clients_are_refused(server: LiveServer, options: dict[str, Any], says: str):
    answer = server.http.post("/api/jobs", json=options)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_the_order_of_things_is_explained(server: LiveServer, images: np.ndarray):
    job = JobClient(server)
    assert job.start().json()["error"]["message"] == "no portrait yet: send one first"
    job.request("PUT", "/portrait", content=png(images[0]))
    assert job.start().json()["error"]["message"] == "no clip yet: send one first"
    stranger = httpx2.get(f"{server.address}/api/jobs/{job.id}")
    assert stranger.status_code == 401
    assert job.request("GET", "/result").json()["error"]["message"].startswith("no video yet")
