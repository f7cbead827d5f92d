"""The live server under load: delay from motion to photon, fairness, and what stays behind.

    python benchmarks/live.py [--sessions 2] [--seconds 60] [--load-seconds 300] [--kills 50] [--out out]

Starts `personalive serve` as a process of its own. Each session is a client in this process that sends a synthetic
performance as a camera would, 25 JPEG frames a second, and acknowledges what it gets.

The delay is taken twice: from the capture times that come back with every frame, and from a marked frame: the driver
looks to one side and then, within one frame, to the other; what the client receives is compared with both views, and
the moment when it is closer to the second one ends the measurement. The same by WebRTC, WHIP in and WHEP out, where
frames carry no capture times: from handing the frame to the encoder to having it decoded. Then clients are killed
without a goodbye, and the server's memory, threads and sessions are counted before and after. Writes live.json into
--out.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import io
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import av
import numpy as np
import simplejpeg
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from PIL import Image
from websockets.sync.client import connect

from personalive.server.config import ServerConfig
from personalive.server.wire import DrivingHeader, pack_driving, unpack_finished
from personalive.synthetic import Identity, Motion, Performance, render

CAMERA_FPS, SIDE_PX, FRAMES = 25, 256, 400
FIRST_SEED = 10_000_000  # people that training never saw
PATIENCE_S = 120.0
IDLE_S = 2.0  # after which the server forgets who has vanished
MARK_YAW_DEG, MARK_EVERY_S = 18.0, 16.0  # longer than any delay, or one jump would be taken for another

HALF = round(MARK_EVERY_S * CAMERA_FPS / 2)  # frames


def main() -> None:
    """Run all parts one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sessions", type=int, default=2, help="at once, at most; the server may allow fewer")
    parser.add_argument("--min-fps", type=float, default=ServerConfig.min_session_fps, help="a session's, see serve")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each part with one")
    parser.add_argument("--load-seconds", type=float, default=300.0, help="of the part with several sessions")
    parser.add_argument("--kills", type=int, default=50, help="clients that leave without a goodbye")
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with served(args) as server:
        result: dict[str, Any] = {"status": server.status()}
        limit = result["status"]["sessions"]["limit"]
        print(f"{result['status']['frames_per_s']} frames/s, {limit} sessions at once")
        result["marked"] = marked(server, args.seconds)
        print(f"one session: {json.dumps(result['marked'])}")
        result["marked_webrtc"] = asyncio.run(marked_webrtc(server, args.seconds))
        print(f"by WebRTC: {json.dumps(result['marked_webrtc'])}")
        result["load"] = loaded(server, min(args.sessions, limit), args.load_seconds)
        print(f"load: {json.dumps(result['load'])}")
        result["kills"] = killed(server, args.kills)
        print(f"kills: {json.dumps(result['kills'])}")
    (args.out / "live.json").write_text(json.dumps(result, indent=2) + "\n")


# --- the server -----------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A running server process."""

    address: str
    pid: int

    def request(self, method: str, path: str, body: bytes = b"", key: str = "") -> Any:
        """A request; the answer's JSON."""
        text = self.send(method, path, body, key)
        return json.loads(text) if text else None

    def send(self, method: str, path: str, body: bytes, key: str, kind: str = "application/json") -> bytes:
        """A request; the answer's body."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
        data = body if method != "GET" else None
        with urlopen(Request(self.address + path, data, headers, method=method), timeout=PATIENCE_S) as answer:
            return answer.read()

    def status(self) -> dict[str, Any]:
        """Its own status."""
        return self.request("GET", "/api/status")

    def counted(self) -> dict[str, float]:
        """Memory in MB, threads, open files and sessions."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return {
            "memory_mb": round(int(found["VmRSS"].split()[0]) / 1e3, 1),
            "threads": int(found["Threads"]),
            "files": len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
            "sessions": self.status()["sessions"]["open"],
        }


@contextmanager
def served(args: argparse.Namespace):
    """The server, once its model is loaded."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "personalive", "serve", "--weights", args.weights, "--device", args.device]
    command += ["--port", str(port), "--idle", str(IDLE_S), "--min-fps", str(args.min_fps)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        server = Server(f"http://127.0.0.1:{port}", process.pid)
        end = time.monotonic() + PATIENCE_S
        while not ready(server):
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def ready(server: Server) -> bool:
    """Tell whether it answers and has its model."""
    try:
        return server.status()["state"] == "ready"
    except OSError:
        return False


# --- a client -------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """One session: a camera thread sends, ``run`` receives."""

    server: Server
    number: int
    motion: Any  # frame number -> Motion
    received: list[tuple[float, int, np.ndarray]] = field(default_factory=list)  # when, captured when (us), image
    keep_images: bool = False
    count: int = FRAMES  # of the performance, which then begins again
    sent: dict[int, int] = field(default_factory=dict)  # capture time (us) -> frame number
    stages: list[tuple[float, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        person = Identity.sample(FIRST_SEED + self.number)
        self.frames = [
            simplejpeg.encode_jpeg(render(person, self.motion(i), SIDE_PX).image) for i in range(self.count)
        ]
        portrait = io.BytesIO()
        Image.fromarray(render(person, Motion.neutral(), SIDE_PX).image).save(portrait, "PNG")
        self.opened = open_session(self.server)
        self.path = f"/api/sessions/{self.opened['id']}"
        names: Any = ["personalive.v1", f"key.{self.opened['key']}"]
        address = self.server.address.replace("http", "ws") + self.path + "/socket"
        self.ending = ExitStack()
        self.socket = self.ending.enter_context(
            connect(address, subprotocols=names, max_size=None, ping_interval=None)
        )
        self.server.request("PUT", self.path + "/portrait", portrait.getvalue(), self.opened["key"])
        self.over = threading.Event()

    def send(self) -> None:
        """As a camera, until it is over."""
        number, next_s = 0, time.monotonic()
        while not self.over.is_set():
            captured = time.monotonic_ns() // 1000
            self.sent[captured] = number % len(self.frames)
            self.socket.send(
                pack_driving(DrivingHeader(number + 1, captured), self.frames[number % len(self.frames)])
            )
            number += 1
            next_s += 1 / CAMERA_FPS
            self.over.wait(max(next_s - time.monotonic(), 0))

    def run(self, seconds: float) -> None:
        """Perform for so long."""
        camera = threading.Thread(target=self.send)
        camera.start()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                message = self.socket.recv(PATIENCE_S)
                if isinstance(message, str):
                    continue
                header, jpeg = unpack_finished(message)
                image = simplejpeg.decode_jpeg(jpeg) if self.keep_images else np.empty(0)
                self.received.append((time.monotonic(), header.capture_us, image))
                if header.sequence:
                    times = header.times
                    self.stages.append((times.queue_ms, times.window_ms, times.compute_ms, times.pace_ms))
                self.socket.send(json.dumps({"type": "ack", "index": header.index}))
        finally:
            self.over.set()
            camera.join()

    def close(self) -> None:
        """End the session."""
        self.ending.close()
        self.server.request("DELETE", self.path, key=self.opened["key"])

    def delays_ms(self) -> list[float]:
        """By the capture times that came back."""
        return [1e3 * when - captured / 1e3 for when, captured, _ in self.received if captured]


# --- the parts ------------------------------------------------------------------------------------------------


def marked(server: Server, seconds: float) -> dict[str, Any]:
    """One session whose driver looks left and right by turns."""
    client = Client(server, 0, looking, keep_images=True)
    client.run(seconds)
    client.close()
    labelled = client.delays_ms()
    jumps = [(us / 1e6, place // HALF % 2) for us, place in client.sent.items() if place % HALF == 0]
    found = jumps_ms([(when, image) for when, captured, image in client.received if captured], jumps[1:])
    queue, window, compute, pace = (round(median(stage), 1) for stage in zip(*client.stages, strict=True))
    spans = np.diff([when for when, captured, _ in client.received if captured])
    rate = 1 / float(np.mean(spans))
    return {
        "frames_per_s": round(rate, 2),
        "marked_ms": [round(value) for value in found],
        "marked_p50_ms": round(median(found)) if found else None,
        "labelled_p50_ms": round(median(labelled)),
        "labelled_p95_ms": round(float(np.percentile(labelled, 95))),
        "floor_ms": round(1e3 * 15 / rate),
        "stages_p50_ms": {"queue": queue, "window": window, "compute": compute, "pace": pace},
    }


async def marked_webrtc(server: Server, seconds: float) -> dict[str, Any]:
    """The same by WHIP and WHEP."""
    client = await asyncio.to_thread(Client, server, 0, looking)
    camera, shown = _Camera(client.frames), []
    sender, viewer = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    sender.addTrack(camera)
    viewer.addTransceiver("video", direction="recvonly")
    watching = []
    viewer.on("track", lambda track: watching.append(asyncio.create_task(watch(track, shown))))
    for connection, path in ((sender, "/whip"), (viewer, "/whep")):
        await connection.setLocalDescription(await connection.createOffer())
        offer, key = connection.localDescription.sdp.encode(), client.opened["key"]
        answer = await asyncio.to_thread(server.send, "POST", client.path + path, offer, key, "application/sdp")
        await connection.setRemoteDescription(RTCSessionDescription(answer.decode(), "answer"))
    await asyncio.sleep(seconds)
    for connection in (sender, viewer):
        await connection.close()
    await asyncio.gather(*watching)
    await asyncio.to_thread(client.close)
    found = jumps_ms(shown, camera.jumps[1:])
    rate = (len(shown) - 1) / (shown[-1][0] - shown[0][0])
    return {
        "frames_per_s": round(rate, 2),
        "marked_ms": [round(value) for value in found],
        "marked_p50_ms": round(median(found)) if found else None,
    }


class _Camera(MediaStreamTrack):
    """Sends JPEG images as a camera, again and again, and keeps when the driver turned."""

    kind = "video"

    def __init__(self, frames: list[bytes]) -> None:
        super().__init__()
        self._images = [simplejpeg.decode_jpeg(frame) for frame in frames]
        self._number, self._begun = 0, 0.0
        self.jumps: list[tuple[float, int]] = []  # when, to which side

    async def recv(self) -> av.VideoFrame:
        self._begun = self._begun or time.monotonic()
        await asyncio.sleep(max(self._begun + self._number / CAMERA_FPS - time.monotonic(), 0))
        place = self._number % len(self._images)
        if place % HALF == 0:
            self.jumps.append((time.monotonic(), place // HALF % 2))
        frame = av.VideoFrame.from_ndarray(self._images[place], format="rgb24")
        frame.pts, frame.time_base = self._number * 90_000 // CAMERA_FPS, Fraction(1, 90_000)
        self._number += 1
        return frame


async def watch(track: MediaStreamTrack, shown: list[tuple[float, np.ndarray]]) -> None:
    """Keep what comes, and when, until nothing comes any more."""
    with suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.VideoFrame)
            shown.append((time.monotonic(), frame.to_ndarray(format="rgb24")))


def looking(frame: int) -> Motion:
    """To one side, then to the other."""
    return dataclasses.replace(Motion.neutral(), yaw_deg=MARK_YAW_DEG if (frame // HALF) % 2 else -MARK_YAW_DEG)


def jumps_ms(shown: list[tuple[float, np.ndarray]], jumps: list[tuple[float, int]]) -> list[float]:
    """From each jump (seconds, side) to the first image after it that is closer to that side's view."""
    views: list[list[np.ndarray]] = [[], []]
    for begun, side in jumps:  # what was shown long after a jump says how that side looks
        views[side] += [p.astype(np.float32) for when, p in shown if 0.6 < (when - begun) / MARK_EVERY_S * 2 < 0.95]
    if not all(views):
        return []
    means = [np.mean(images, axis=0) for images in views]
    delays = []
    for begun, side in jumps:
        for when, image in shown:
            error = [float(np.abs(image - mean).mean()) for mean in means]
            if when > begun and error[side] < error[1 - side]:
                delays.append(1e3 * (when - begun))
                break
    return delays


def loaded(server: Server, count: int, seconds: float) -> dict[str, Any]:
    """Several sessions at once."""
    clients = [Client(server, number, Performance.sample(FIRST_SEED + number).at) for number in range(count)]
    before = server.counted()
    threads = [threading.Thread(target=client.run, args=(seconds,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = server.counted()
    frames = [len(client.received) for client in clients]
    result = {
        "sessions": count,
        "frames": frames,
        "slowest_to_fastest": round(min(frames) / max(frames), 3),
        "p50_ms": [round(median(client.delays_ms())) for client in clients],
        "p95_ms": [round(float(np.percentile(client.delays_ms(), 95))) for client in clients],
        "before": before,
        "after": after,
    }
    for client in clients:
        client.close()
    return result


def killed(server: Server, count: int) -> dict[str, Any]:
    """Clients that vanish: their sockets are cut, their sessions left to the server."""
    Client(server, 0, lambda _: Motion.neutral(), count=1).close()  # what is made once is made now
    before = server.counted()
    for number in range(count):
        client = Client(server, number % 3, lambda _: Motion.neutral(), count=1)
        client.socket.send(pack_driving(DrivingHeader(1, 1), client.frames[0]))
        client.socket.socket.shutdown(socket.SHUT_RDWR)
    end = time.monotonic() + PATIENCE_S
    while server.status()["sessions"]["open"] and time.monotonic() < end:
        time.sleep(0.5)
    time.sleep(IDLE_S)
    return {"count": count, "before": before, "after": server.counted()}


def open_session(server: Server) -> Any:
    """Open a session: at once, or when its turn in line has come."""
    ticket, end = None, time.monotonic() + PATIENCE_S
    while True:
        try:
            return server.request("POST", "/api/sessions", json.dumps({"ticket": ticket}).encode())
        except HTTPError as refused:
            error = json.loads(refused.read())["error"]
            if time.monotonic() > end:
                raise SystemExit(f"no session came free: {error['message']}") from None
            ticket = error.get("ticket", ticket)
            time.sleep(0.5)


if __name__ == "__main__":
    main()
