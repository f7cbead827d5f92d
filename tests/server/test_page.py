"""The page that `personalive serve` shows, in a real browser, against a real server around a small random model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Download

from personalive.live.config import LiveConfig
from personalive.media.credentials import read_credentials
from personalive.server.config import ServerConfig
from support.browser import Person, chromium, see_different, write_camera
from support.head_videos import heads
from support.live_server import LiveServer, running
from support.small_engine import small_engine
from support.small_model import SMALL_SIZE_PX
from support.waiting import wait_until

SESSIONS = 2
WIDE_PX = (240, 160)
TOP_LEFT_ALPHA = """() => {
    const one = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    one.drawImage(document.getElementById("result"), 1, 1, 1, 1, 0, 0, 1, 1);
    return one.getImageData(0, 0, 1, 1).data[3];
}"""
BEEP_S, MAX_SOUND_DELAY_S = 1.5, 5.0  # the false microphone beeps every half second
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
TAKEN_OFF = """() => {
  const small = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  small.drawImage(document.getElementById("result"), 0, 0, 1, 1);
  return small.getImageData(0, 0, 1, 1).data[3] === 0;
}"""
SMALLEST_PHONE = {**PHONE, "viewport": {"width": 320, "height": 568}}
SERVER = ServerConfig(max_sessions=SESSIONS, min_session_fps=0.01, retry_after_s=0.3)  # however slow the machine is
LIVE = LiveConfig(camera_gain=1.0)  # no more frames than the camera's: several sessions share a core


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with running(small_engine, live=LIVE, server=SERVER) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(write_camera(tmp_path_factory.mktemp("camera") / "head.y4m")) as found:
        yield found


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two synthetic people; the photograph of the second is ``WIDE_PX``."""
    folder = tmp_path_factory.mktemp("portraits")
    paths = [folder / "first.png", folder / "second.jpg"]
    for seed, path in enumerate(paths):
        head = next(iter(heads(seed, [0.0])))
        wide = np.pad(head, [(0, 0), (0, seed * (WIDE_PX[0] - head.shape[1])), (0, 0)], mode="edge")
        Image.fromarray(wide).save(path)
    return paths


@pytest.fixture(scope="module")
def streamer(server: LiveServer, browser: Browser, portraits: list[Path]) -> Iterator[Person]:
    """User whose stream runs; each test that uses it leaves it running."""
    person = Person(browser, server.address)
    person.start(portraits[0])
    yield person
    person.leave()


@pytest.fixture
def live(streamer: Person) -> Iterator[Person]:
    """The user whose stream runs, checked for errors at the end."""
    yield streamer
    assert streamer.faults == []


@pytest.fixture
def visit(server: LiveServer, browser: Browser) -> Iterator[Callable[..., Person]]:
    """Open the page as one more user. In the end all have left, and the server has no session of theirs."""
    before, people = len(server.app.state.sessions), []

    def come(**context: Any) -> Person:
        people.append(Person(browser, server.address, **context))
        return people[-1]

    yield come
    for person in people:
        person.leave()
        assert person.faults == []
    if people:
        wait_for(server, before)


def wait_for(server: LiveServer, sessions: int) -> None:
    wait_until(lambda: len(server.app.state.sessions) == sessions)


def number(person: Person, name: str) -> float:
    """Number in the timing panel, once there is one."""
    return person.wait(lambda: float(re.sub(r"[^\d.]", "", person.find(name).inner_text()) or 0))


def recorded_s(person: Person) -> int:
    minutes, _, seconds = person.find("record").inner_text().removeprefix("Stop").strip().partition(":")
    return 60 * int(minutes) + int(seconds or 0) if minutes.isdigit() else 0


def sound_delay_s(person: Person) -> float:
    """Delay of the sound, which waits for the video."""
    return min(number(person, "latency-p50") / 1e3, MAX_SOUND_DELAY_S)


def canvas_px(person: Person) -> tuple[int, int]:
    width, height = person.page.locator("#result").evaluate("canvas => [canvas.width, canvas.height]")
    return width, height


def session_of(server: LiveServer, person: Person) -> Any:
    key = person.find("view-link").input_value().rpartition("#key=")[2]
    return server.app.state.sessions.find_view(key)


# --- a stream ------------------------------------------------------------------------------------------------


def test_a_camera_drives_the_portrait(live: Person):
    live.see_different(4)
    driven = live.wait(lambda: [frame.sequence for frame in live.traffic.frames if frame.sequence])
    live.wait(lambda: live.traffic.frames[-1].sequence > driven[0])  # the video follows the camera
    assert live.page.locator("#badge").inner_text() == "Live"


def test_the_delay_is_measured_and_plausible(live: Person):
    assert number(live, "fps") > 0
    p50, p95 = number(live, "latency-p50"), number(live, "latency-p95")
    window = live.page.locator("#stages tr", has_text="Window").locator("td").first
    assert p95 >= p50 >= float(window.inner_text()) > 0

    def plausible() -> bool:
        """Medians of frames some seconds old stand beside a floor that goes by the speed of now."""
        floors = [stats["floor_ms"] for stats in live.traffic.stats if stats["floor_ms"]]
        return bool(floors) and floors[-1] / 2 < number(live, "latency-p50") < 60_000

    live.wait(plausible)


def test_another_portrait_takes_over_while_the_stream_runs(live: Person, server: LiveServer, portraits: list[Path]):
    before = session_of(server, live).state()["generation"]
    live.find("portrait-input").set_input_files(portraits[1])
    live.wait(lambda: live.traffic.frames and live.traffic.frames[-1].generation == before + 1)
    live.see_different(3)
    live.page.wait_for_selector("#notices:not(:has([data-key=portrait]))", state="attached")


def test_a_file_that_is_no_image_leaves_the_portrait(live: Person, server: LiveServer, tmp_path: Path):
    before = session_of(server, live).state()["generation"]
    thumb = live.page.locator("#portrait-thumb").evaluate("image => image.naturalWidth")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    live.expected = "status of 422"
    live.find("portrait-input").set_input_files(tmp_path / "broken.png")
    notice = live.notice("the portrait is not an image")
    live.wait(lambda: live.page.locator("#portrait-thumb").evaluate("image => image.naturalWidth") == thumb)
    assert session_of(server, live).state()["generation"] == before
    live.see_different(3)
    notice.get_by_label("Dismiss").click()


def test_pause_stops_the_frames_and_resume_brings_them_back(live: Person):
    live.find("pause").click()
    live.reach("paused")
    settled = len(live.traffic.stats) + 2
    live.wait(lambda: len(live.traffic.stats) >= settled)  # seconds in which frames under way arrive
    frame, count = live.see(), len(live.traffic.frames)
    live.wait(lambda: len(live.traffic.stats) >= settled + 2)
    assert (live.see(), len(live.traffic.frames)) == (frame, count)
    live.page.keyboard.press("Escape")
    live.page.locator("body").press("Space")
    live.reach("live")
    live.see_different(3)


def test_a_recording_plays_and_has_sound(live: Person, tmp_path: Path):
    live.page.get_by_role("button", name="Sound off").click()
    live.page.get_by_role("button", name="Sound on").wait_for()
    assert live.live_tracks() == 2
    path = recorded(live, tmp_path, lambda: live.wait(lambda: recorded_s(live) > sound_delay_s(live) + BEEP_S))
    credentials = read_credentials(path)
    assert credentials is not None
    assert credentials.intact
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    with av.open(str(path)) as video:
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in video.decode(audio=0)])
    assert len(frames) > 3
    assert any((frame != frames[0]).any() for frame in frames)
    assert np.ptp(sound.astype(np.float64)) > 0.01  # Opus and AAC are decoded to -1..1
    live.page.get_by_role("button", name="Sound on").click()
    live.wait(lambda: live.live_tracks() == 1)


def test_a_snapshot_is_the_current_frame(live: Person, tmp_path: Path):
    with live.page.expect_download() as download:
        live.find("snapshot").click()
    download.value.save_as(tmp_path / "snapshot.png")
    credentials = read_credentials(tmp_path / "snapshot.png")
    assert credentials is not None
    assert credentials.intact
    with Image.open(tmp_path / "snapshot.png") as image:
        assert image.size == (SMALL_SIZE_PX, SMALL_SIZE_PX)
        assert image.convert("L").getextrema()[0] < image.convert("L").getextrema()[1]


def recorded(live: Person, folder: Path, during: Callable[[], object]) -> Path:
    """A recording of what is done meanwhile; its credentials, a file of their own, have come too."""
    files: list[Download] = []
    live.page.on("download", lambda file: files.append(file))  # noqa: PLW0108 (it marks the function)
    live.find("record").click()
    during()
    live.find("record").click()
    live.wait(lambda: [file.suggested_filename for file in files if not file.suggested_filename.endswith(".webm")])
    for file in files:
        file.save_as(folder / file.suggested_filename)
    return folder / files[0].suggested_filename


def test_frames_of_a_recording_keep_their_size(live: Person, portraits: list[Path], tmp_path: Path):
    square = (SMALL_SIZE_PX, SMALL_SIZE_PX)
    live.find("portrait-input").set_input_files(portraits[1])
    live.wait(lambda: canvas_px(live) == square)

    def show_the_whole() -> None:
        live.see_different(2)
        live.find("control-output_frame").select_option("portrait")
        live.wait(lambda: live.page.evaluate(TOP_LEFT_ALPHA) == 0)  # a wide image leaves bars above and below
        live.see_different(2)
        assert canvas_px(live) == square

    path = recorded(live, tmp_path, show_the_whole)
    live.wait(lambda: canvas_px(live) == WIDE_PX)
    with av.open(str(path)) as video:
        assert {(frame.width, frame.height) for frame in video.decode(video=0)} == {square}
    live.find("control-output_frame").select_option("square")
    live.wait(lambda: canvas_px(live) == square)


def test_the_whole_photograph_is_shown_and_saved(live: Person, portraits: list[Path], tmp_path: Path):
    live.find("portrait-input").set_input_files(portraits[1])
    live.find("control-output_frame").select_option("portrait")
    live.wait(lambda: canvas_px(live) == WIDE_PX)
    live.see_different(2)
    with live.page.expect_download() as download:
        live.find("snapshot").click()
    download.value.save_as(tmp_path / "snapshot.png")
    with Image.open(tmp_path / "snapshot.png") as image:
        assert image.size == WIDE_PX
    box = live.page.locator("#result").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(WIDE_PX[0] / WIDE_PX[1], rel=0.02)
    live.find("control-output_frame").select_option("square")
    live.wait(lambda: canvas_px(live) == (SMALL_SIZE_PX, SMALL_SIZE_PX))


def test_the_clean_view_shows_the_result_and_nothing_else(live: Person):
    live.page.get_by_text("Share and record").click()
    view = live.open(live.find("view-link").input_value())
    see_different(view, 3)
    assert view.locator("body > *").count() == 1
    live.page.bring_to_front()
    live.see_different(2)
    view.close()


def test_the_link_to_the_clean_view_stays(live: Person):
    panel = live.page.locator("details", has=live.page.locator("#view-link"))
    panel.evaluate("panel => { panel.open = true; }")
    link = live.find("view-link").input_value()
    with closing(live.open(link)) as view:
        see_different(view, 2)
        live.page.bring_to_front()
        live.find("stop").click()
        live.find("start").click()
        live.see_different(3)
        view.bring_to_front()
        see_different(view, 2)  # the next session, without a reload
        assert live.find("view-link").input_value() == link
        live.page.get_by_role("button", name="New link").click()
        assert live.find("view-link").input_value() != link
        live.page.bring_to_front()
        live.find("stop").click()
        live.find("start").click()
        live.see_different(3)
        view.bring_to_front()
        view.wait_for_function(TAKEN_OFF)
    live.page.bring_to_front()


def test_a_control_reaches_the_server(live: Person, server: LiveServer):
    for name, control in server.http.get("/api/status").json()["controls"].items():
        if "min" in control and name != "seed":
            field = live.find(f"control-{name}")
            limits = [float(field.get_attribute(edge)) for edge in ("min", "max")]
            assert limits == [control["min"], control["max"]], name
    live.find("control-expression").fill("0.5")
    live.wait(lambda: session_of(server, live).controls.expression == 0.5)
    live.page.get_by_role("button", name="Reset to defaults").click()
    live.wait(lambda: session_of(server, live).controls.expression == 1)


def test_motion_is_recorded_and_drives_again(live: Person, server: LiveServer, tmp_path: Path):
    button = live.page.locator("#motion-record")
    live.page.locator("details", has=button).evaluate("panel => { panel.open = true; }")
    button.click()
    live.page.get_by_role("button", name="Stop and download").wait_for()
    session, frames = session_of(server, live), len(live.traffic.frames)
    live.wait(lambda: len(live.traffic.frames) > frames + 8)
    with live.page.expect_download() as download:
        button.click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    live.find("template-input").set_input_files(path)
    live.wait(lambda: session.driver == "template" and live.live_tracks() == 0)
    live.see_different(3)
    live.page.locator("label", has_text="Camera").first.click()
    live.wait(lambda: session.driver == "camera" and live.live_tracks() == 1)
    live.see_different(3)


def test_a_connection_that_was_cut_comes_back(live: Person):
    shown = live.traffic.frames[-1]
    live.page.evaluate("window.openedSockets.at(-1).close()")
    live.notice("The connection is back.")
    live.wait(lambda: live.traffic.frames[-1].sequence > shown.sequence)  # the camera drives again
    assert live.traffic.frames[-1].index > shown.index  # in the same session
    live.see_different(3)


def test_the_page_goes_on_after_the_model_had_to_restart(
    live: Person, server: LiveServer, monkeypatch: pytest.MonkeyPatch
):
    generation = live.traffic.frames[-1].generation

    def fail() -> None:
        monkeypatch.undo()
        raise RuntimeError("as if the device were lost")

    monkeypatch.setattr(server.worker._scheduler, "_admit", fail)
    live.wait(lambda: live.traffic.frames[-1].generation > generation)
    live.see_different(3)
    live.page.wait_for_selector("#notices:not(:has([data-key=server]))", state="attached")
    live.reach("live")


# --- who may come in -----------------------------------------------------------------------------------------


def test_all_places_are_served_and_the_next_one_waits_its_turn(
    visit: Callable[..., Person], server: LiveServer, portraits: list[Path]
):
    people = [visit() for _ in range(SESSIONS - len(server.app.state.sessions))]
    for person in people:
        person.start(portraits[1])
    for person in people:
        person.see_different(3)
    late = visit()
    late.expected = "status of 503"
    late.find("portrait-input").set_input_files(portraits[0])
    late.find("start").click()
    late.notice("You are number 1 in line")
    late.reach("queued")
    people[0].find("stop").click()
    late.reach("live")
    late.see_different(3)


def test_stop_lets_go_of_the_camera_the_session_and_the_uploads(
    visit: Callable[..., Person], server: LiveServer, portraits: list[Path]
):
    before, person = len(server.app.state.sessions), visit()
    person.start(portraits[0])
    folder = session_of(server, person).folder
    assert folder.exists()
    assert person.live_tracks() == 1
    person.find("stop").click()
    person.reach("idle")
    assert person.live_tracks() == 0
    wait_for(server, before)
    assert not folder.exists()


def test_a_blocked_camera_is_explained(visit: Callable[..., Person], server: LiveServer):
    person, before = visit(allows=["microphone"]), len(server.app.state.sessions)
    person.find("start").click()
    person.notice("The camera is blocked. Allow it in the browser's site settings")
    person.reach("idle")
    assert len(server.app.state.sessions) == before


def test_webrtc_carries_the_camera_and_the_result(visit: Callable[..., Person], portraits: list[Path]):
    person = visit(connection="webrtc")
    person.start(portraits[1])
    person.page.get_by_text("Connection and keys").click()
    person.wait(lambda: person.find("connection-used").inner_text() == "WebRTC")
    person.see_different(3)
    person.find("control-output_frame").select_option("portrait")
    person.wait(lambda: canvas_px(person) == WIDE_PX)
    assert person.traffic.frames == []  # none came by the socket
    person.find("stop").click()
    person.reach("idle")
    assert person.live_tracks() == 0


# --- without a camera ----------------------------------------------------------------------------------------


def test_the_synthetic_performance_starts_by_one_button(visit: Callable[..., Person], server: LiveServer):
    person = visit()
    person.find("synthetic").get_by_role("button", name="Try the synthetic performance").click()
    person.reach("live")
    person.see_different(3)
    session = session_of(server, person)
    assert session.driver == "clip"
    assert person.live_tracks() == 0
    assert person.find("gallery-item").get_attribute("aria-pressed") == "true"
    person.find("clip-loop").uncheck()
    person.wait(lambda: session.player.loop is False)
    player = session.player
    with person.page.expect_request(lambda request: request.method == "PATCH") as asked:
        person.find("clip-replay").click()
    assert asked.value.post_data_json == {"driver": "clip", "loop": False}
    assert asked.value.response().ok
    assert session.player is player  # not sent again
    person.see_different(3)


def test_the_performance_drives_the_portrait_that_was_chosen_before(
    visit: Callable[..., Person], portraits: list[Path]
):
    person = visit()
    person.find("portrait-input").set_input_files(portraits[0])
    person.find("synthetic").get_by_role("button", name="Try the synthetic performance").click()
    person.reach("live")
    assert person.find("gallery-item").get_attribute("aria-pressed") == "false"


# --- small windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phone", [PHONE, SMALLEST_PHONE], ids=["phone", "smallest"])
def test_a_phone_needs_no_sideways_scrolling(visit: Callable[..., Person], phone: dict[str, Any]):
    person = visit(**phone)
    person.find("gallery-item").wait_for()
    person.page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert person.page.evaluate("document.documentElement.scrollWidth") <= phone["viewport"]["width"]
    person.find("start").tap(trial=True)  # it can be brought into view, and nothing lies over it
    assert person.find("start").bounding_box()["height"] >= 40
