"""Frames of a chunk, spread over the time until the next one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.live.config import LiveConfig
from personalive.live.pacer import Pacer

COUNT = 4
CONFIG = LiveConfig()


def test_at_a_steady_rate_all_frames_are_evenly_apart():
    pacer, shown = Pacer(COUNT, CONFIG), []
    for call in range(60):
        shown += pacer.times(call * 0.4, call * 0.4 + 0.15)
    gaps = [later - earlier for earlier, later in pairwise(shown[-40:])]
    assert gaps == pytest.approx([0.1] * 39, rel=0.01)


@given(st.lists(st.tuples(st.floats(0.001, 0.5), st.floats(0.0, 2.0)), min_size=1, max_size=60))
def test_no_frame_is_early_and_none_is_held_for_a_chunk_longer_than_it_must(calls):
    """``calls``: how long each took, and how long the worker then was elsewhere."""
    pacer, now = Pacer(COUNT, CONFIG), 0.0
    for took, elsewhere in calls:
        begun, done = now, now + took
        shown = pacer.times(begun, done)
        period = pacer.period_s or took / COUNT
        assert shown[0] >= done
        assert all(later - earlier == pytest.approx(period, abs=1e-9) for earlier, later in pairwise(shown))
        assert shown[0] - done <= period * COUNT / 2 + 1e-9
        for place, time in enumerate(shown):  # its own place within the chunk, and less than a chunk besides
            assert time - done - place * period < period * COUNT
        now = done + elsewhere


def test_the_first_frames_of_all_are_spread_over_the_time_that_their_call_took():
    assert Pacer(COUNT, CONFIG).times(1.0, 1.4) == pytest.approx([1.4, 1.5, 1.6, 1.7])


def test_a_long_silence_is_no_rate():
    pacer = Pacer(COUNT, CONFIG)
    for call in range(40):
        pacer.times(call * 0.4, call * 0.4 + 0.1)
    steady = pacer.period_s
    pacer.times(40 * 0.4 + CONFIG.silent_s + 10.0, 40 * 0.4 + CONFIG.silent_s + 10.1)
    assert pacer.period_s == steady


def test_the_delay_of_one_slow_call_is_worked_off():
    pacer = Pacer(COUNT, CONFIG)
    for call in range(40):
        pacer.times(call * 0.4, call * 0.4 + 0.1)
    late = pacer.times(16.0, 16.35)  # a quarter of a second later than usual
    assert late[0] == pytest.approx(16.35)
    waits = []
    for call in range(41, 50):
        done = call * 0.4 + 0.1
        waits.append(pacer.times(call * 0.4, done)[0] - done)
    assert waits[0] > 0.1
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(waits))
    assert waits[-1] < 0.005


def test_a_slower_device_is_followed():
    pacer = Pacer(COUNT, CONFIG)
    for call in range(40):
        pacer.times(call * 0.4, call * 0.4 + 0.1)
    for call in range(60):
        pacer.times(20 + call * 0.8, 20 + call * 0.8 + 0.7)
    assert pacer.period_s == pytest.approx(0.2, rel=0.02)
