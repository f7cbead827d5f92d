"""The live page in a real Chromium, whose camera shows a synthetic head and whose microphone beeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from personalive.live.frames import FinishedHeader
from personalive.server.wire import unpack_finished
from support.chromium import MISSING, find_chromium
from support.head_videos import heads
from support.waiting import PATIENCE_S, Patience

CAMERA_FPS, CAMERA_S = 10, 3
CAMERA_SIZE_PX = (320, 240)
# How frames travel. Tracks of getUserMedia are kept, to see whether they were stopped, and sockets, to cut them.
PREPARE = """
if (location.protocol.startsWith("http")) localStorage.setItem("personalive.connection", "%s");
window.givenTracks = [];
const give = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
if (give) {
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await give(wanted);
    window.givenTracks.push(...stream.getTracks());
    return stream;
  };
}
window.openedSockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    window.openedSockets.push(this);
  }
};
"""
# The canvas in 8 x 8 colours.
SEEN = """(canvas) => {
  const small = new OffscreenCanvas(8, 8).getContext("2d", { willReadFrequently: true });
  small.drawImage(canvas, 0, 0, 8, 8);
  return Array.from(small.getImageData(0, 0, 8, 8).data.filter((_, place) => place % 4 < 3));
}"""


def write_camera(path: Path) -> Path:
    """Write a video in the one format that Chromium takes for a camera's: raw YUV 4:2:0 behind a line of text."""
    width, height = CAMERA_SIZE_PX
    times = [number / CAMERA_FPS for number in range(CAMERA_FPS * CAMERA_S)]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{CAMERA_FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for head in heads(3, times, side_px=height // 2):
            square = cv2.resize(head, (height, height))
            margin = (width - height) // 2
            wide = cv2.copyMakeBorder(square, 0, 0, margin, margin, cv2.BORDER_REPLICATE)
            file.write(b"FRAME\n" + cv2.cvtColor(wide, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


@contextmanager
def chromium(camera: Path) -> Iterator[Browser]:
    """Browser whose camera shows that video; its permissions are up to ``Person``."""
    program = find_chromium()
    assert program is not None, MISSING
    flags = [
        "--no-sandbox",  # root in a container has none
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """A user with a browser window of their own, and all errors in it."""

    def __init__(
        self,
        browser: Browser,
        address: str,
        *,
        connection: str = "websocket",
        allows: Sequence[str] = ("camera", "microphone"),
        **context: Any,
    ) -> None:
        """
        Args:
            connection: how frames travel; those of a socket are seen by ``Traffic``.
            allows: permissions of the page; all others are denied.
            context: of playwright's ``new_context``.
        """
        self.context: BrowserContext = browser.new_context(accept_downloads=True, **context)
        self.context.grant_permissions(allows)
        self.context.set_default_timeout(1e3 * PATIENCE_S)
        self.context.add_init_script(PREPARE % connection)
        self.context.on("console", self._listen)
        self.context.on("weberror", lambda error: self.faults.append(str(error.error)))
        self.faults: list[str] = []
        self.expected = "nothing"  # part of a console error that the test provokes
        self.address = address
        self.page = self.open(address)

    def open(self, address: str) -> Page:
        """Open another page of the same window; its frames are counted in ``Traffic``."""
        page = self.context.new_page()
        page.traffic = Traffic(page)  # pyright: ignore[reportAttributeAccessIssue]
        page.goto(address)
        return page

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and self.expected not in message.text:
            self.faults.append(f"{message.type}: {message.text}")

    @property
    def traffic(self) -> Traffic:
        """Traffic of the main page."""
        return self.page.traffic  # pyright: ignore[reportAttributeAccessIssue]

    def find(self, name: str) -> Any:
        """Element with this test id."""
        return self.page.get_by_test_id(name)

    def start(self, portrait: Path) -> None:
        """Choose a portrait and start; return when it is live."""
        self.find("portrait-input").set_input_files(portrait)
        self.find("start").click()
        self.reach("live")

    def reach(self, stage: str) -> None:
        """Wait until the page is in this stage."""
        self.page.wait_for_selector(f"body[data-stage={stage}]")

    def notice(self, words: str) -> Any:
        """Wait for a notice with these words."""
        found = self.find("notice").locator(".notice", has_text=words)
        found.wait_for()
        return found

    def see(self) -> tuple[int, ...]:
        """Return the result's current frame, coarsely."""
        return seen(self.page)

    def see_different(self, count: int) -> None:
        """Wait until the result has shown so many different frames."""
        see_different(self.page, count)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return the condition's value once it is true; the page runs meanwhile."""
        return wait(self.page, condition)

    def live_tracks(self) -> int:
        """Number of running camera and microphone tracks that the page was given."""
        return self.page.evaluate("window.givenTracks.filter((track) => track.readyState === 'live').length")

    def leave(self) -> None:
        """Leave the page, as by a link, and close the window."""
        self.page.goto("about:blank")
        self.context.close()


class Traffic:
    """Messages of the server on a page's sockets, seen from outside the page."""

    def __init__(self, page: Page) -> None:
        self.frames: list[FinishedHeader] = []  # of all frames
        self.stats: list[dict[str, Any]] = []  # of all messages of that kind, one a second
        page.on("websocket", lambda socket: socket.on("framereceived", self._take))

    def _take(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            self.frames.append(unpack_finished(payload)[0])
            return
        message = json.loads(payload)
        if message["type"] == "stats":
            self.stats.append(message["stats"])


def seen(page: Page) -> tuple[int, ...]:
    """Return the current frame of the result on a page, coarsely."""
    return tuple(page.get_by_test_id("result").evaluate(SEEN))


def see_different(page: Page, count: int) -> None:
    """Wait until the result on a page has shown so many different frames."""
    frames: set[tuple[int, ...]] = set()

    def enough() -> bool:
        frames.add(seen(page))
        return len(frames) >= count

    wait(page, enough, progress=lambda: len(frames))
    assert max(np.ptp(frame) for frame in frames) > 0  # not one flat colour


def wait(page: Page, condition: Callable[[], Any], progress: Callable[[], Any] = lambda: None) -> Any:
    """Return the condition's value once it is true; the page's events are handled meanwhile."""
    patience = Patience(progress)
    while not (found := condition()):
        patience.check()
        page.wait_for_timeout(20)
    return found
