"""Times and contents of what goes out by WebRTC, and what is taken in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import MediaStreamError

from personalive.live.config import LiveConfig
from personalive.live.errors import RefusedError
from personalive.live.frames import FinishedFrame, FinishedHeader, StageTimes
from personalive.live.session import Session
from personalive.server.webrtc.tracks import AudioRelay, AudioTrack, ResultTrack, receive_video, relay_audio

NOW_S = 100.0


class Given(MediaStreamTrack):
    """Frames as a peer would send them."""

    def __init__(self, kind: str, frames: Iterable[Any]) -> None:
        super().__init__()
        self.kind, self._frames = kind, iter(frames)

    async def recv(self) -> Any:
        for frame in self._frames:
            return frame
        raise MediaStreamError


class Watched:
    """A frame that counts how often its pixels are asked for."""

    width = height = 32
    time_base = Fraction(1, 90_000)

    def __init__(self, pts: int | None) -> None:
        self.pts, self.converted = pts, 0

    def to_ndarray(self, format: str) -> np.ndarray:  # noqa: A002 (PyAV's name)
        assert format == "rgb24"
        self.converted += 1
        return np.zeros((32, 32, 3), np.uint8)


def new_session(**settings) -> Session:
    """On this event loop; its clock stands still."""
    config = LiveConfig(**settings)
    return Session(folder=Path(), loop=asyncio.get_running_loop(), clock=lambda: NOW_S, config=config)


def finished(level: int, show_at_s: float) -> FinishedFrame:
    header = FinishedHeader(0, 0, 1, 0, StageTimes(0, 0, 0, 0))
    return FinishedFrame(header, np.full((32, 32, 3), level, np.uint8), show_at_s, show_at_s)


def audio(pts: int, samples: int = 960) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * samples), np.int16), format="s16", layout="stereo")
    frame.pts, frame.sample_rate, frame.time_base = pts, 48_000, Fraction(1, 48_000)
    return frame


async def all_of(track: ResultTrack, session: Session, frames: list[FinishedFrame]) -> list[av.VideoFrame]:
    """Frames that the track gives for them, after a black one."""
    black = await track.recv()
    assert not black.to_ndarray(format="rgb24").any()
    session.publish(frames, 25.0)
    return [black, *[await track.recv() for _ in frames]]


def test_frames_go_out_at_the_times_they_are_shown():
    async def play() -> None:
        session = new_session()
        track = ResultTrack(session, 32, repeat_s=0.01)
        frames = [finished(10 * place, NOW_S - 0.04 * (3 - place)) for place in range(4)]
        sent = await all_of(track, session, frames)
        assert [int(frame.to_ndarray(format="rgb24").mean()) for frame in sent] == [0, 0, 10, 20, 30]
        again = await track.recv()
        assert int(again.to_ndarray(format="rgb24").mean()) == 30
        track.stop()
        assert not session._viewers
        with pytest.raises(MediaStreamError):
            await track.recv()

    asyncio.run(play())


@pytest.mark.parametrize("encoder", [Vp8Encoder, H264Encoder])
def test_frames_of_one_time_stay_apart_on_the_wire(encoder):
    """Packets of equal time stamps are decoded as one frame, and all frames until the next key frame are lost."""

    async def play() -> list[av.VideoFrame]:
        session = new_session()
        track = ResultTrack(session, 32, repeat_s=0.01)
        return await all_of(track, session, [finished(level, NOW_S) for level in range(0, 80, 10)])

    coder = encoder()
    stamps = [coder.encode(frame)[1] for frame in asyncio.run(play())]
    assert len(set(stamps)) == 9
    assert stamps == sorted(stamps)


def test_the_result_ends_with_the_session():
    async def play() -> None:
        session = new_session()
        track = ResultTrack(session, 32, repeat_s=0.01)
        await track.recv()
        session.end("test")
        with pytest.raises(MediaStreamError):
            await track.recv()

    asyncio.run(play())


def test_driving_frames_are_converted_when_they_are_needed_and_not_before():
    async def play() -> None:
        session = new_session()
        session.driver = "clip"  # ours are offered all the same
        pushed = []
        session.push = lambda frame, driver: pushed.append((frame, driver))
        frames = [Watched(pts) for pts in (0, None, 9_000, 18_000)]
        await receive_video(Given("video", frames), session, 10_000)
        assert [driver for _, driver in pushed] == ["camera"] * 3
        assert [(frame.sequence, frame.capture_us) for frame, _ in pushed] == [(0, 0), (0, 100_000), (0, 200_000)]
        assert {frame.received_s for frame, _ in pushed} == {NOW_S}
        assert [frame.converted for frame in frames] == [0, 0, 0, 0]
        assert pushed[1][0].content().shape == (32, 32, 3)
        assert [frame.converted for frame in frames] == [0, 0, 1, 0]

    asyncio.run(play())


def test_pixels_of_a_video_are_red_green_blue():
    async def play() -> None:
        session, pushed = new_session(), []
        session.driver = "clip"
        session.push = lambda frame, driver: pushed.append(frame)
        image = np.zeros((32, 32, 3), np.uint8)
        image[..., 0], image[..., 2] = 200, 50
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 90_000)
        await receive_video(Given("video", [frame]), session, 10_000)
        assert np.abs(pushed[0].content().astype(int) - image).max() <= 3

    asyncio.run(play())


def test_videos_of_too_many_pixels_are_refused():
    async def play() -> None:
        with pytest.raises(RefusedError) as caught:
            await receive_video(Given("video", [Watched(0)]), new_session(), 32 * 32 - 1)
        assert caught.value.kind == "too_large"

    asyncio.run(play())


def test_audio_runs_on_one_clock_whoever_sends_it():
    async def play() -> None:
        relay, session = AudioRelay(lambda: NOW_S), new_session()
        track = AudioTrack(relay, lambda: NOW_S)
        heard: list[av.AudioFrame] = []

        async def listen() -> None:
            while True:
                heard.append(await track.recv())

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        for begin in (480_000, 0, 96_000):  # three senders, each with a clock of its own
            await relay_audio(Given("audio", [audio(begin + 960 * place) for place in range(5)]), session, relay)
        await asyncio.sleep(0.05)
        listening.cancel()
        assert [frame.pts for frame in heard] == [960 * place for place in range(15)]
        track.stop()
        relay.put(audio(0), 0.0)
        assert len(heard) == 15

    asyncio.run(play())


def test_audio_waits_as_long_as_the_video():
    async def play() -> None:
        now, slept = [NOW_S], []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        relay = AudioRelay(lambda: now[0])
        track = AudioTrack(relay, lambda: now[0])
        relay.add(track)
        track._joined = True
        session = new_session()
        await session.set_controls({"delay_ms": 250.0})
        await relay_audio(Given("audio", [audio(0)]), session, relay)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("personalive.server.webrtc.tracks.asyncio.sleep", sleep)
            await track.recv()
        assert slept == [pytest.approx(0.25)]

    asyncio.run(play())
