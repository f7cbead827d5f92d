"""Effect of each live control on held-out synthetic heads, measured against the true motion of the driver.

    python benchmarks/controls.py [--weights tiny] [--cases 2] [--frames 96] [--out out]

For every value: how far mouth, eyes and head move (slope of the estimate over the driver's true value; 1 where the
result does what the driver does), how well they follow (correlation), and how much the frames flicker. Prints the
table, writes controls.json into --out.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from personalive import Engine, load_engine
from personalive.engine.controls import Controls
from personalive.evaluation.datasets import Case, DatasetOptions, SyntheticHeads
from personalive.evaluation.methods import EngineMethod
from personalive.evaluation.metrics.accumulators import AngleTracking, ExpressionTracking, Metric, Stability
from personalive.evaluation.metrics.functional import correlation
from personalive.evaluation.runner import score

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
SETTINGS = (
    *(("expression", value) for value in STRENGTHS),
    *((name, value) for name in ("mouth", "eyes") for value in STRENGTHS if value != 1.0),
    *(("head_motion", value) for value in STRENGTHS if value != 1.0),
    *(("smoothing", value) for value in (0.3, 0.6, 0.8)),
    ("pose", "relative"),
)
TRACKED = ("mouth", "blink", "yaw", "pitch")
STILL = 1e-3  # standard deviation of a driver's value that does not vary


def main() -> None:
    """Run every setting on the same people and performances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cases", type=int, default=2, help="held-out people")
    parser.add_argument("--frames", type=int, default=96, help="frames per person")
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    engine = load_engine(args.weights, device=args.device)
    options = DatasetOptions(size_px=engine.image_size, frames=args.frames)
    cases = SyntheticHeads(f"synthetic:{args.cases}", options).cases("self")
    rows = []
    print("| control | value | mouth | blink | yaw | pitch | flicker |\n|---|---|---|---|---|---|---|")
    for name, value in SETTINGS:
        row = {"control": name, "value": value, **evaluate(engine, cases, Controls(**{name: value}))}
        rows.append(row)
        shown = [f"{row[key][0]:.2f} ({row[key][1]:.2f})" for key in TRACKED]
        print(f"| {name} | {value} | {' | '.join(shown)} | {row['flicker']:.4f} |", flush=True)
    (args.out / "controls.json").write_text(json.dumps({"weights": args.weights, "rows": rows}, indent=2) + "\n")


class Slopes:
    """Slope and correlation of a tracking metric's estimates over the driver's true values."""

    def __init__(self, tracking: AngleTracking | ExpressionTracking) -> None:
        self.tracking, self.update = tracking, tracking.update

    def compute(self) -> dict[str, float]:
        """Values by metric, without those of a driver that does not move."""
        values = {}
        for name, (found, true) in self.tracking.pairs().items():
            if true.std() >= STILL:
                values[f"{name} slope"] = float(np.polyfit(true, found, 1)[0])
                values[f"{name} correlation"] = correlation(found, true)
        return values


def evaluate(engine: Engine, cases: list[Case], controls: Controls) -> dict[str, Any]:
    """Slope and correlation of each tracked value, and flicker: means over the cases."""

    def metrics(case: Case) -> list[Metric]:
        assert case.person is not None
        return [Stability(case.portrait()), Slopes(AngleTracking(engine)), Slopes(ExpressionTracking(case.person))]

    found = score(EngineMethod(engine, controls=controls), cases, metrics)
    parts = ("slope", "correlation")
    pairs = {name: tuple(found.get(f"{name} {part}", math.nan) for part in parts) for name in TRACKED}
    return {**pairs, "flicker": found["flicker"]}


if __name__ == "__main__":
    main()
