"""The live page in a real Chromium, whose camera shows a drawn head and whose microphone beeps."""

from __future__ import annotations

import json
import time
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
from support.head_films import heads

PATIENCE_S = 60.0
CAMERA_FPS, CAMERA_S = 10, 3
CAMERA_SIZE_PX = (320, 240)
# How pictures travel. What getUserMedia gave is kept, to see whether it was let go of.
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
"""
# The canvas in 8 x 8 colours.
SEEN = """(canvas) => {
  const small = new OffscreenCanvas(8, 8).getContext("2d", { willReadFrequently: true });
  small.drawImage(canvas, 0, 0, 8, 8);
  return Array.from(small.getImageData(0, 0, 8, 8).data.filter((_, place) => place % 4 < 3));
}"""


def write_camera(path: Path) -> Path:
    """A film in the one format that Chromium takes for a camera's: raw YUV 4:2:0 behind a line of text."""
    width, height = CAMERA_SIZE_PX
    times = [number / CAMERA_FPS for number in range(CAMERA_FPS * CAMERA_S)]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{CAMERA_FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for picture in heads(3, times, side_px=height // 2):
            square = cv2.resize(picture, (height, height))
            margin = (width - height) // 2
            wide = cv2.copyMakeBorder(square, 0, 0, margin, margin, cv2.BORDER_REPLICATE)
            file.write(b"FRAME\n" + cv2.cvtColor(wide, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


@contextmanager
def chromium(camera: Path) -> Iterator[Browser]:
    """A browser whose camera shows that film; who may use it is up to ``Person``."""
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
    """Someone with a browser window of their own, and all that went wrong in it."""

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
            connection: how pictures travel; those of a socket are seen by ``Traffic``.
            allows: what the page may use; all else is denied it.
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
        """Another page of the same window; its frames are counted in ``Traffic``."""
        page = self.context.new_page()
        page.traffic = Traffic(page)  # pyright: ignore[reportAttributeAccessIssue]
        page.goto(address)
        return page

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and self.expected not in message.text:
            self.faults.append(f"{message.type}: {message.text}")

    @property
    def traffic(self) -> Traffic:
        """Of the main page."""
        return self.page.traffic  # pyright: ignore[reportAttributeAccessIssue]

    def find(self, name: str) -> Any:
        """What the page calls so."""
        return self.page.get_by_test_id(name)

    def start(self, portrait: Path) -> None:
        """Choose a portrait and start; back when it is live."""
        self.find("portrait-input").set_input_files(portrait)
        self.find("start").click()
        self.reach("live")

    def reach(self, stage: str) -> None:
        """Back when the page says so."""
        self.page.wait_for_selector(f"body[data-stage={stage}]")

    def notice(self, words: str) -> Any:
        """Back when a notice with these words is shown."""
        found = self.find("notice").locator(".notice", has_text=words)
        found.wait_for()
        return found

    def see(self) -> tuple[int, ...]:
        """The result's picture, coarsely."""
        return seen(self.page)

    def see_different(self, count: int) -> None:
        """Back when the result has shown so many different pictures."""
        see_different(self.page, count)

    def wait(self, true: Callable[[], Any]) -> Any:
        """What ``true`` gives once it is true; the page goes on meanwhile."""
        return wait(self.page, true)

    def live_tracks(self) -> int:
        """Of cameras and microphones that were asked for."""
        return self.page.evaluate("window.givenTracks.filter((track) => track.readyState === 'live').length")

    def leave(self) -> None:
        """Leave the page, as by a link, and close the window."""
        self.page.goto("about:blank")
        self.context.close()


class Traffic:
    """What the server sent over a page's sockets, seen from outside the page."""

    def __init__(self, page: Page) -> None:
        self.frames: list[FinishedHeader] = []  # of all pictures
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
    """The result's picture on a page, coarsely."""
    return tuple(page.get_by_test_id("result").evaluate(SEEN))


def see_different(page: Page, count: int) -> None:
    """Back when the result on a page has shown so many different pictures."""
    pictures: set[tuple[int, ...]] = set()

    def enough() -> bool:
        pictures.add(seen(page))
        return len(pictures) >= count

    wait(page, enough)
    assert max(np.ptp(picture) for picture in pictures) > 0  # not one flat colour


def wait(page: Page, true: Callable[[], Any]) -> Any:
    """What ``true`` gives once it is true; the page's events are handled meanwhile."""
    end = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        page.wait_for_timeout(20)
    return found
