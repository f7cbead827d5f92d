"""The simulation of a cluster's day, against what is known without it."""

from __future__ import annotations

import pytest

import capacity


def day(**changes: float) -> capacity.Day:
    given = {"places": 4, "peak": 20, "session_s": 600.0, "start_s": 60.0} | changes
    return capacity.simulate(capacity.Assumptions(**given))


def test_the_day_streams_as_much_as_its_arrivals_say():
    """The rate is that of the peak times the mean of its course, 0.6."""
    found = day(peak=50)
    assert found.streamed_h == pytest.approx(50 * 0.6 * 24, rel=0.1)
    assert found.sessions == pytest.approx(found.streamed_h * 6, rel=0.1)


def test_there_are_places_for_all_who_stream():
    found = day()
    assert found.devices_h * 4 > found.streamed_h
    assert 20 / 4 < found.most_devices < 24
    assert found.waited < 0.05


def test_slow_starts_let_more_clients_wait():
    assert day(start_s=1800.0).waited > day(start_s=15.0).waited


@pytest.mark.parametrize(("frames_per_s", "places"), [(4.9, 1), (5.0, 1), (10.2, 2), (61.0, 12)])
def test_a_device_has_places_for_those_who_still_get_their_rate(frames_per_s: float, places: int):
    assert capacity.places_of(frames_per_s, 5.0) == places
