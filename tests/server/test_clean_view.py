"""The page that shows the result and nothing else, where there is none, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from support.browser import Person, chromium, wait, write_camera
from support.live_server import LiveServer


@pytest.fixture
def person(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """User at the page, without a session."""
    with chromium(write_camera(tmp_path_factory.mktemp("camera") / "head.y4m")) as browser:
        person = Person(browser, server.address)
        yield person
        person.leave()
        assert person.faults == []


def test_a_view_without_a_session_retries_every_few_seconds(server: LiveServer, person: Person):
    sockets: list[str] = []
    with closing(person.context.new_page()) as view:
        view.clock.install()
        view.on("websocket", lambda socket: sockets.append(socket.url))
        view.goto(f"{server.address}/view#key=nobody-has-this-key-now")
        wait(view, lambda: sockets)  # at once
        view.clock.pause_at(view.evaluate("Date.now()") / 1e3 + 1.0)
        steps = 0
        for count in (2, 3):
            steps = 0
            while len(sockets) < count:
                assert (steps := steps + 1) < 1_000
                view.clock.run_for(100)
                view.wait_for_timeout(5)
        assert steps >= 30  # every three seconds; before the first of them, some time passed by itself


def test_no_frame_is_drawn_after_the_canvas_was_cleared(person: Person):
    """Draw neither a frame that is still being decoded nor one that waits for its animation frame."""
    script = """async () => {
      const { Painter } = await import("/static/js/painter.js");
      const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
      const red = Object.assign(new OffscreenCanvas(8, 8).getContext("2d"), { fillStyle: "red" });
      red.fillRect(0, 0, 8, 8);
      const image = await red.canvas.convertToBlob({ type: "image/jpeg" });
      canvas.getContext("2d", { willReadFrequently: true });
      const painter = new Painter(canvas), settled = [];
      painter.onsettled = (header) => settled.push(header.index);
      const alpha = () => canvas.getContext("2d").getImageData(4, 4, 1, 1).data[3];
      const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      const offer = (index) => painter.offer({ generation: 1, index }, image);
      await offer(0);
      await frame();
      const shown = alpha();
      const reading = offer(1);
      painter.clear();
      await reading;
      await frame();
      const afterReading = alpha();
      await offer(2);
      painter.clear();
      await frame();
      const afterWaiting = alpha();
      await offer(3);
      await frame();
      return { shown, afterReading, afterWaiting, again: alpha(), settled };
    }"""
    found = person.page.evaluate(script)
    assert found == {"shown": 255, "afterReading": 0, "afterWaiting": 0, "again": 255, "settled": [0, 2, 3]}
