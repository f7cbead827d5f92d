"""Cost and capacity of a cluster of live servers, from measured speeds and stated assumptions.

    personalive benchmark --json device.json
    python benchmarks/capacity.py device.json --price-per-hour 1.0

A device serves as many sessions as still get ``--min-fps`` each; of those places ``busy_share`` are used before
another device is asked for, as `personalive serve --cluster` does. The simulation lets streamers come and go:
arrivals by chance (Poisson) whose rate follows the day, from a fifth of the peak at night to the peak; lengths of
sessions by chance too (exponential). Devices are added after the time that one takes to start, and removed when they
are not needed; who finds no place waits in line.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from personalive.cluster.config import ServeClusterConfig
from personalive.cluster.serve import replicas_for
from personalive.server.config import ServerConfig

DAY_S, TICK_S, NIGHT_SHARE = 86_400.0, 15.0, 0.2


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Inputs of a simulation."""

    places: int  # sessions of one device
    peak: int  # streamers at once at the busiest hour, on average
    session_s: float
    start_s: float  # from the order of a device to its first session
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Day:
    """Outcome of a simulated day."""

    sessions: int
    streamed_h: float
    devices_h: float
    most_devices: int
    waited: float  # share of the sessions
    wait_p95_s: float  # of those that waited


def simulate(given: Assumptions) -> Day:
    """Simulate one day, from a night's load on."""
    chance = random.Random(given.seed)
    arrivals = deque(_arrivals(given, chance))
    ends: list[float] = []  # of the sessions that run
    queue: deque[float] = deque()  # arrivals without a place
    starting: deque[float] = deque()  # when a device that was ordered is there
    low_since = 0.0
    devices = most = replicas_for(given.peak * NIGHT_SHARE, given.places)
    sessions, streamed_s, device_s, waits = 0, 0.0, 0.0, []
    for tick in range(int(DAY_S / TICK_S)):
        now = tick * TICK_S
        while ends and ends[0] <= now:
            heapq.heappop(ends)
        while starting and starting[0] <= now:
            starting.popleft()
            devices += 1
        while arrivals and arrivals[0] <= now:
            queue.append(arrivals.popleft())
        while queue and len(ends) < devices * given.places:
            waited_s = max(0.0, now - queue.popleft() - TICK_S)
            waits += [waited_s] if waited_s else []
            length_s = chance.expovariate(1 / given.session_s)
            heapq.heappush(ends, now + length_s)
            sessions, streamed_s = sessions + 1, streamed_s + length_s
        wanted = replicas_for(len(ends) + len(queue), given.places)
        starting.extend([now + given.start_s] * (wanted - devices - len(starting)))
        if wanted >= devices:
            low_since = now
        elif now - low_since >= ServeClusterConfig.downscale_delay_s:
            devices = wanted  # the sessions of those that go are moved
        most = max(most, devices)
        device_s += (devices + len(starting)) * TICK_S
    waits.sort()
    return Day(
        sessions=sessions,
        streamed_h=streamed_s / 3600,
        devices_h=device_s / 3600,
        most_devices=most,
        waited=len(waits) / max(1, sessions),
        wait_p95_s=waits[int(0.95 * len(waits))] if waits else 0.0,
    )


def _arrivals(given: Assumptions, chance: random.Random) -> list[float]:
    """Times of a day's arrivals, and of those who are there when it begins."""
    rate = given.peak / given.session_s
    times = [0.0] * round(given.peak * NIGHT_SHARE)
    now = 0.0
    while (now := now + chance.expovariate(rate)) < DAY_S:
        share = NIGHT_SHARE + (1 - NIGHT_SHARE) * (1 - math.cos(2 * math.pi * now / DAY_S)) / 2
        if chance.random() < share:
            times.append(now)
    return times


def places_of(frames_per_s: float, min_fps: float) -> int:
    """Sessions that a device keeps up with."""
    return max(1, int(frames_per_s / min_fps))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="of `personalive benchmark --json`")
    parser.add_argument("--price-per-hour", type=float, default=1.0, help="of one device, in any currency")
    parser.add_argument("--min-fps", type=float, default=ServerConfig.min_session_fps)
    parser.add_argument("--session-minutes", type=float, default=30.0, help="assumed mean length")
    parser.add_argument("--start-s", type=float, default=60.0, help="until an ordered device serves")
    parser.add_argument("--streamers", type=int, nargs="+", default=[10, 100, 10_000], help="at the peak, at once")
    options = parser.parse_args()
    price, found_places = options.price_per_hour, set[int]()
    print(
        "| device | model | steps | frames/s | sessions | price of a full session-hour |\n|---|---|---|---|---|---|"
    )
    for path in options.reports:
        found = json.loads(path.read_text(encoding="utf-8"))
        rates = {row["steps"]: row["frames_per_s"] for row in found["rows"] if row["keyframes"] == 0}
        for steps, rate in rates.items():
            places = places_of(rate, options.min_fps)
            found_places.add(places)
            device = found["environment"]["device_name"]
            print(f"| {device} | {found['model']} | {steps or '-'} | {rate} | {places} | {price / places:.3f} |")
    print(
        "\n| sessions of a device | streamers at once | devices, most | device-hours a day | places used | waited | ",
        end="",
    )
    print("95 % of them within | price per streamed hour |\n|---|---|---|---|---|---|---|---|")
    for places in sorted(found_places):
        for peak in options.streamers:
            day = simulate(
                Assumptions(places=places, peak=peak, session_s=60 * options.session_minutes, start_s=options.start_s)
            )
            used = day.streamed_h / (day.devices_h * places)
            cost = price * day.devices_h / day.streamed_h
            print(
                f"| {places} | {peak:,} | {day.most_devices:,} | {day.devices_h:,.0f} | {used:.0%} | "
                f"{day.waited:.1%} | {day.wait_p95_s:.0f} s | {cost:.3f} |"
            )


if __name__ == "__main__":
    main()
