"""The live server under load: delay from motion to photon, fairness, and what stays behind.

    python benchmarks/live.py [--weights tiny] [--sessions 2] [--seconds 60] [--kills 50] [--out out]

Starts `personalive serve` as a process of its own. Each session is a client in this process that sends a drawn
performance as a camera would, 25 JPEG frames a second, and acknowledges what it gets.

The delay is taken twice: from the capture times that come back with every frame, and from a marked frame: the driver
looks to one side and then, within one frame, to the other; what the client receives is compared with both views, and
the moment when it is closer to the second one ends the measurement. Then clients are killed without a goodbye, and
the server's memory, threads and sessions are counted before and after. Writes live.json into --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import simplejpeg
from PIL import Image
from websockets.sync.client import connect

from personalive.server.wire import DrivingHeader, pack_driving, unpack_finished
from personalive.synthetic import Identity, Motion, Performance, render

CAMERA_FPS, SIDE_PX, FRAMES = 25, 256, 400
FIRST_SEED = 10_000_000  # people that training never saw
PATIENCE_S = 120.0
IDLE_S = 2.0  # after which the server forgets who has vanished
MARK_YAW_DEG, MARK_EVERY_S = 18.0, 16.0  # longer than any delay, or one jump would be taken for another


def main() -> None:
    """Run all parts one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sessions", type=int, default=2, help="at once, at most; the server may allow fewer")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each part")
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
        result["load"] = loaded(server, min(args.sessions, limit), args.seconds)
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

    def ask(self, method: str, path: str, body: bytes = b"", key: str = "") -> Any:
        """A request; the answer's JSON."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        data = body if method != "GET" else None
        with urlopen(Request(self.address + path, data, headers, method=method), timeout=PATIENCE_S) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        return self.ask("GET", "/api/status")

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
    command += ["--port", str(port), "--idle", str(IDLE_S)]
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
    """Whether it answers and has its model."""
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
    received: list[tuple[float, int, np.ndarray]] = field(default_factory=list)  # when, captured when (us), picture
    keep_pictures: bool = False
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
        self.opened = admitted(self.server)
        self.path = f"/api/sessions/{self.opened['id']}"
        names: Any = ["personalive.v1", f"key.{self.opened['key']}"]
        address = self.server.address.replace("http", "ws") + self.path + "/socket"
        self.ending = ExitStack()
        self.socket = self.ending.enter_context(connect(address, subprotocols=names, max_size=None))
        self.server.ask("PUT", self.path + "/portrait", portrait.getvalue(), self.opened["key"])
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
                picture = simplejpeg.decode_jpeg(jpeg) if self.keep_pictures else np.empty(0)
                self.received.append((time.monotonic(), header.capture_us, picture))
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
        self.server.ask("DELETE", self.path, key=self.opened["key"])

    def delays_ms(self) -> list[float]:
        """By the capture times that came back."""
        return [1e3 * when - captured / 1e3 for when, captured, _ in self.received if captured]


# --- the parts ------------------------------------------------------------------------------------------------


def marked(server: Server, seconds: float) -> dict[str, Any]:
    """One session whose driver looks left and right by turns."""
    half = round(MARK_EVERY_S * CAMERA_FPS / 2)

    def motion(frame: int) -> Motion:
        yaw = MARK_YAW_DEG if (frame // half) % 2 else -MARK_YAW_DEG
        return dataclasses.replace(Motion.neutral(), yaw_deg=yaw)

    client = Client(server, 0, motion, keep_pictures=True)
    client.run(seconds)
    client.close()
    labelled = client.delays_ms()
    found = jumps_ms(client, half)
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


def jumps_ms(client: Client, half: int) -> list[float]:
    """From each jump's capture to the first received picture that is closer to the view after it."""
    shown = [(when, captured, picture) for when, captured, picture in client.received if captured]
    views: list[list[np.ndarray]] = [[], []]
    for _, captured, picture in shown:  # pictures well inside one view say what it looks like
        place = client.sent[captured]
        if place % half > half // 2:
            views[place // half % 2].append(picture.astype(np.float32))
    if not all(views):
        return []
    before, after = (np.mean(pictures, axis=0) for pictures in views)
    jumps = [(captured, place // half % 2) for captured, place in client.sent.items() if place % half == 0]
    delays = []
    for captured, side in jumps[1:]:
        for when, _, picture in shown:
            ahead_ms = 1e3 * when - captured / 1e3
            error = [float(np.abs(picture - view).mean()) for view in (before, after)]
            if ahead_ms > 0 and error[side] < error[1 - side]:
                delays.append(ahead_ms)
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


def admitted(server: Server) -> Any:
    """A session: at once, or when its turn in line has come."""
    ticket, end = None, time.monotonic() + PATIENCE_S
    while True:
        try:
            return server.ask("POST", "/api/sessions", json.dumps({"ticket": ticket}).encode())
        except HTTPError as refused:
            error = json.loads(refused.read())["error"]
            if time.monotonic() > end:
                raise SystemExit(f"no session came free: {error['message']}") from None
            ticket = error.get("ticket", ticket)
            time.sleep(0.5)


if __name__ == "__main__":
    main()
