"""Streams of half an hour: duration of a call and memory, from the beginning to the end.

    python benchmarks/long_stream.py [--weights tiny] [--backends auto] [--minutes 30] [--out out]

A synthetic head drives portraits that change every two minutes; the keyframe threshold is low, so that each of them
gets all its keyframes. Several backends (``compile,openvino``) take turns, call by call. Prints a line a minute for
each: median and 95th percentile of a call, keyframes, memory of the process, and the number of graphs that torch's
compiler has made in all; a change of the last after the first minute is a bug and ends the run with code 1. Writes
long_stream.json into --out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from torch._dynamo.utils import counters

from personalive import Engine, StreamState, load_engine
from personalive.synthetic import Identity, Motion, Performance, render

SIDE_PX, FRAMES, FIRST_SEED = 256, 160, 10_000_000
PORTRAIT_S, THRESHOLD = 120.0, 1.0  # threshold: far below the usual one


def main() -> None:
    """Stream, and print a line a minute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backends", default="auto")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    engines = [load_engine(args.weights, device=args.device, backend=name) for name in args.backends.split(",")]
    rows = list(stream(engines, args.minutes))
    result = {"weights": args.weights, "device": str(engines[0].device), "minutes": rows}
    (args.out / "long_stream.json").write_text(json.dumps(result, indent=2) + "\n")
    if len({row["graphs"] for row in rows}) > 1:
        raise SystemExit("graphs were compiled while the streams ran")


def stream(engines: Sequence[Engine], minutes: float) -> Iterator[dict[str, object]]:
    """A row for each minute and engine."""
    windows, begun, changed, minute, count = driving_windows(engines[0]), time.monotonic(), -PORTRAIT_S, 1, 0
    states: list[StreamState] = []
    times: list[list[float]] = [[] for _ in engines]
    while minute <= minutes:
        now = time.monotonic() - begun
        if now - changed >= PORTRAIT_S:
            states = [engine.start(portrait(round(now)), keyframe_threshold=THRESHOLD) for engine in engines]
            changed = now
        for number, engine in enumerate(engines):
            at = time.perf_counter()
            states[number], _ = engine.step(states[number], windows[count % len(windows)])
            times[number].append(1e3 * (time.perf_counter() - at))
        count += 1
        if now >= 60 * minute:
            for engine, state, took in zip(engines, states, times, strict=True):
                row = {
                    "minute": minute,
                    "backend": engine.backend.name,
                    "calls": len(took),
                    "median_ms": round(median(took), 1),
                    "p95_ms": round(float(np.percentile(took, 95)), 1),
                    "keyframes": state.keyframes,
                    "memory_mb": memory_mb(),
                    "graphs": counters["stats"]["unique_graphs"] + counters["inductor"]["fxgraph_cache_miss"],
                }
                print(json.dumps(row), flush=True)
                yield row
            times, minute = [[] for _ in engines], minute + 1


def driving_windows(engine: Engine) -> list[np.ndarray]:
    """Windows of a synthetic performance, in a circle."""
    who, performance = Identity.sample(FIRST_SEED), Performance.sample(FIRST_SEED + 1)
    frames = np.stack([render(who, performance.at(index), SIDE_PX).image for index in range(FRAMES)])
    step = engine.chunk_frames
    return [frames[start : start + step] for start in range(0, FRAMES - step + 1, step)]


def portrait(seed: int) -> np.ndarray:
    """Synthetic person with a neutral face."""
    return render(Identity.sample(FIRST_SEED + 10 + seed), Motion.neutral(), SIDE_PX).image


def memory_mb() -> float:
    """Resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1e3, 1)


if __name__ == "__main__":
    main()
