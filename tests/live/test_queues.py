"""Queues that hold the newest frames and never a backlog."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.live.config import LiveConfig
from personalive.live.frames import DrivingFrame, FinishedFrame, FinishedHeader, StageTimes
from personalive.live.queues import AckWindow, DrivingQueue, Viewer


def driving(number: int, capture_us: int | None = None) -> DrivingFrame:
    return DrivingFrame(number, number if capture_us is None else capture_us, 0.0, None)


def finished(index: int, show_at_s: float = 0.0, generation: int = 1) -> FinishedFrame:
    header = FinishedHeader(index, 0, generation, index, StageTimes(0.0, 0.0, 0.0, 0.0))
    return FinishedFrame(header, np.zeros((1, 1, 3), np.uint8), 0.0, show_at_s)


class FakeClock:
    """Clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# --- driving frames -------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.lists(st.one_of(st.integers(0, 20), st.none()), max_size=40))
def test_a_driving_queue_gives_the_newest_of_rising_frames(limit, moves):
    """Whatever comes (numbers are capture times; None empties the queue), against a plain list."""
    inbox, kept, newest, refused = DrivingQueue(limit), [], -1, 0
    for number, capture_us in enumerate(moves):
        if capture_us is None:
            assert [frame.sequence for frame in inbox.take()] == kept
            kept = []
            continue
        inbox.put(driving(number, capture_us))
        if capture_us < newest:
            refused += 1
        else:
            refused += len(kept) == limit
            kept, newest = [*kept, number][-limit:], capture_us
        assert len(inbox) == len(kept) <= limit
    assert inbox.dropped == refused
    assert inbox.received == sum(move is not None for move in moves)
    assert [frame.sequence for frame in inbox.take()] == kept


def test_a_driving_queue_forgets_a_driver_and_its_clock():
    inbox = DrivingQueue(4)
    inbox.put(driving(1, 1000))
    inbox.restart()
    inbox.put(driving(1, 5))
    assert [frame.capture_us for frame in inbox.take()] == [5]


# --- finished frames ------------------------------------------------------------------------------------------


def test_a_viewer_keeps_the_newest_and_counts_what_it_dropped():
    async def watch():
        viewer = Viewer(asyncio.get_running_loop())
        viewer.put([finished(index) for index in range(5)], limit=3)
        viewer.put([finished(5)], limit=3)
        return [(await viewer.get(FakeClock())).header.index for _ in range(3)], viewer.dropped

    assert asyncio.run(watch()) == ([3, 4, 5], 3)


def test_a_viewer_forgets_frames_of_older_portraits_alone():
    async def watch():
        viewer = Viewer(asyncio.get_running_loop())
        viewer.put([finished(0, generation=1), finished(1, generation=2), finished(2, generation=3)], limit=8)
        viewer.drop_before(2)
        return [(await viewer.get(FakeClock())).header.index for _ in range(2)]

    assert asyncio.run(watch()) == [1, 2]


def test_a_cleared_viewer_has_nothing_and_takes_new_frames():
    async def watch():
        viewer = Viewer(asyncio.get_running_loop())
        viewer.put([finished(0), finished(1)], limit=8)
        viewer.clear()
        viewer.put([finished(2)], limit=8)
        return (await viewer.get(FakeClock())).header.index

    assert asyncio.run(watch()) == 2


def test_a_frame_waits_for_its_time():
    async def watch():
        clock, viewer = FakeClock(), Viewer(asyncio.get_running_loop())
        viewer.put([finished(0, show_at_s=100.0)], limit=8)
        getting = asyncio.create_task(viewer.get(clock))
        for _ in range(5):
            await asyncio.sleep(0)
        early = getting.done()
        clock.now = 100.0
        viewer.put([finished(1, show_at_s=200.0)], limit=8)  # something changed: it looks again
        return early, (await asyncio.wait_for(getting, 30)).header.index

    assert asyncio.run(watch()) == (False, 0)


def test_a_frame_that_is_dropped_while_it_waits_is_not_shown():
    async def watch():
        clock, viewer = FakeClock(), Viewer(asyncio.get_running_loop())
        viewer.put([finished(0, show_at_s=100.0)], limit=1)
        getting = asyncio.create_task(viewer.get(clock))
        await asyncio.sleep(0)
        viewer.put([finished(1, show_at_s=0.0)], limit=1)
        return (await asyncio.wait_for(getting, 30)).header.index

    assert asyncio.run(watch()) == 1


def test_a_frame_from_another_thread_wakes_a_waiting_get():
    async def watch():
        viewer = Viewer(asyncio.get_running_loop())
        getting = asyncio.create_task(viewer.get(FakeClock()))
        await asyncio.sleep(0)
        await asyncio.to_thread(viewer.put, [finished(4)], 8)
        return (await asyncio.wait_for(getting, 30)).header.index

    assert asyncio.run(watch()) == 4


def test_closing_wakes_a_waiting_get_and_gives_nothing_more():
    async def watch():
        viewer, full = (Viewer(asyncio.get_running_loop()) for _ in range(2))
        full.put([finished(0, show_at_s=1e9)], limit=8)
        getting = [asyncio.create_task(who.get(FakeClock())) for who in (viewer, full)]
        await asyncio.sleep(0)
        for who in (viewer, full):
            await asyncio.to_thread(who.close)
        return [await asyncio.wait_for(task, 30) for task in getting], await viewer.get(FakeClock())

    assert asyncio.run(watch()) == ([None, None], None)


def test_a_get_that_is_cancelled_just_as_the_viewer_closes_does_end():
    """Else its socket would never be let go."""

    async def watch():
        viewer = Viewer(asyncio.get_running_loop())
        viewer.put([finished(0, show_at_s=1e9)], limit=8)

        async def show():
            while await viewer.get(FakeClock()) is not None:
                pass
            await asyncio.Event().wait()

        showing = asyncio.create_task(show())
        for _ in range(5):
            await asyncio.sleep(0)
        viewer.closed = True
        viewer._arrived.set()
        await asyncio.sleep(0)  # it is about to wake
        showing.cancel()
        done, _ = await asyncio.wait([showing], timeout=5)
        return bool(done)

    assert asyncio.run(watch())


def test_frames_that_come_after_the_loop_has_ended_are_ignored():
    async def make():
        return Viewer(asyncio.get_running_loop())

    viewer = asyncio.run(make())
    viewer.put([finished(0)], limit=8)
    viewer.close()
    assert viewer.closed


def test_an_image_is_encoded_once_for_all_viewers():
    frame, calls = finished(0), []

    def encode(image: np.ndarray) -> bytes:
        calls.append(image.shape)
        return b"jpeg"

    assert [frame.jpeg(encode) for _ in range(3)] == [b"jpeg"] * 3
    assert len(calls) == 1


# --- unacknowledged frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reads_every_s", "oldest_s"), [(0.04, 0.6), (0.4, 1.7), (1.0, 3.1)])
def test_frames_that_a_client_reads_are_a_few_of_its_own_frames_old(reads_every_s: float, oldest_s: float):
    """A server of 25 frames a second; the network keeps all that was sent until the client reads it."""
    window, network, lags, next_read_s = AckWindow(LiveConfig()), [], [], 0.0
    for frame in range(2_000):
        now = frame / 25
        if window.has_room:
            network.append((frame, now))
            window.sent(frame, now)
        if now >= next_read_s and network:
            index, sent_s = network.pop(0)
            lags.append(now - sent_s)
            window.acknowledged(index, now)
            next_read_s = now + reads_every_s
    assert len(lags) > 70 / max(reads_every_s, 1 / 25) * 0.9
    assert max(lags) <= oldest_s


def test_a_client_far_away_that_answers_in_time_gets_every_frame():
    window, answers, skipped = AckWindow(LiveConfig()), [], 0
    for frame in range(500):
        now = frame / 25
        while answers and answers[0][1] <= now:
            window.acknowledged(*answers.pop(0))
        if window.has_room:
            window.sent(frame, now)
            answers.append((frame, now + 0.25))
        else:
            skipped += frame > 50
    assert skipped == 0
