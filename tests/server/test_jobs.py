"""Films over HTTP: made beside live sessions, equal to those of ``animate``, cancelled and refused cleanly."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from personalive import animate
from personalive.engine.engine import Engine
from support.clips import read_film, write_clip
from support.live_server import LiveServer, png, wait_until


class Film:
    """A job's addresses."""

    def __init__(self, server: LiveServer, **options: Any) -> None:
        answer = server.http.post("/api/jobs", json=options)
        assert answer.status_code == 201, answer.text
        self.id, self._key = answer.json()["id"], answer.json()["key"]
        self._http = server.http

    def ask(self, method: str, path: str = "", **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._key}"}
        return self._http.request(method, f"/api/jobs/{self.id}{path}", headers=headers, **more)

    def send(self, portrait: bytes, clip: bytes) -> None:
        for name, body in (("portrait", portrait), ("clip", clip)):
            assert self.run_on_worker("PUT", f"/{name}", content=body).status_code == 204

    def begin(self) -> httpx2.Response:
        return self.run_on_worker("POST", "/start")

    def state(self) -> dict[str, Any]:
        return self.run_on_worker("GET").json()

    def end(self) -> dict[str, Any]:
        wait_until(lambda: self.state()["state"] not in ("waiting", "running"))
        return self.state()


@pytest.fixture(scope="module")
def clip(pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 frames with sound."""
    frames = [pictures[i % 8] for i in range(22)]
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames, range(22), audio_s=0.8)


def test_a_job_makes_the_film_that_animate_makes(
    server: LiveServer, engine: Engine, pictures: np.ndarray, clip: Path, tmp_path: Path
):
    film = Film(server, seed=3, side_by_side=True)
    film.send(png(pictures[0]), clip.read_bytes())
    assert film.state()["state"] == "open"
    assert film.begin().status_code == 202
    told = film.end()
    assert told["state"] == "done", told
    assert told["frames"] == told["total"] == 22
    (tmp_path / "made.mp4").write_bytes(film.ask("GET", "/result").content)
    (tmp_path / "portrait.png").write_bytes(png(pictures[0]))
    options = {"seed": 3, "side_by_side": True, "center_fallback": True}
    animate(tmp_path / "portrait.png", clip, tmp_path / "own.mp4", engine=engine, **options)
    made, own = read_film(tmp_path / "made.mp4"), read_film(tmp_path / "own.mp4")
    assert made.times == own.times
    assert made.audio_s == own.audio_s > 0.5
    assert np.array_equal(made.images, own.images)


def test_a_film_and_a_live_session_share_the_worker(server: LiveServer, pictures: np.ndarray, clip: Path):
    client = server.open()
    client.put_portrait(pictures[1])
    socket = client.connect()
    film = Film(server)
    film.send(png(pictures[0]), clip.read_bytes())
    film.begin()
    socket.drive(itertools.cycle(pictures), 24)
    assert film.end()["state"] == "done"
    socket.drive(itertools.cycle(pictures), 8)
    socket.close()


def test_deleting_a_job_stops_it_and_leaves_nothing(server: LiveServer, pictures: np.ndarray, clip: Path):
    film = Film(server)
    job = server.app.state.jobs.find(film.id)
    film.send(png(pictures[0]), clip.read_bytes())
    film.begin()
    assert film.ask("DELETE").status_code == 204
    wait_until(lambda: not job.folder.exists())
    assert film.ask("GET").json()["error"]["kind"] == "not_found"


def test_a_film_of_unusable_parts_fails_in_one_line_without_our_paths(server: LiveServer, pictures: np.ndarray):
    film = Film(server)
    film.send(png(pictures[0]), b"this is no video")
    film.begin()
    told = film.end()
    assert told["state"] == "failed"
    assert told["error"]["kind"] == "unusable_input"
    assert told["error"]["message"].startswith("the clip")
    assert "/" not in told["error"]["message"]
    assert film.ask("GET", "/result").status_code == 404


def test_an_unexpected_fault_ends_one_film_and_not_those_after_it(
    server: LiveServer, pictures: np.ndarray, clip: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("personalive.server.jobs.animate", broken)
        film = Film(server)
        film.send(png(pictures[0]), clip.read_bytes())
        film.begin()
        told = film.end()
    assert (told["state"], told["error"]["kind"]) == ("failed", "internal")
    after = Film(server)
    after.send(png(pictures[0]), clip.read_bytes())
    after.begin()
    assert after.end()["state"] == "done"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"contact_sheet": "/tmp/x.png"}, "unknown option 'contact_sheet'"),
        ({"center_fallback": True}, "unknown option 'center_fallback'"),
        ({"speed": 2}, "unknown option 'speed'"),
        ({"seed": -1}, "seed -1"),
        ({"seed": "one"}, "options: "),
    ],
)
def test_options_that_are_not_a_clients_are_refused(server: LiveServer, options: dict[str, Any], says: str):
    answer = server.http.post("/api/jobs", json=options)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_the_order_of_things_is_explained(server: LiveServer, pictures: np.ndarray):
    film = Film(server)
    assert film.begin().json()["error"]["message"] == "no portrait yet: send one first"
    film.ask("PUT", "/portrait", content=png(pictures[0]))
    assert film.begin().json()["error"]["message"] == "no clip yet: send one first"
    stranger = httpx2.get(f"{server.address}/api/jobs/{film.id}")
    assert stranger.status_code == 401
    assert film.ask("GET", "/result").json()["error"]["message"].startswith("no film yet")
