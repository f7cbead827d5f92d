"""What each live control does to a held-out drawn person, measured against the true motion of the driver.

    python benchmarks/controls.py [--weights tiny] [--cases 2] [--frames 96] [--out out]

For every value: how far mouth, eyes and head move (slope of the reading over the driver's true value; 1 where the
result does what the driver does), how well they follow (correlation), and how much the picture flickers. Prints the
table, writes controls.json into --out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

import numpy as np

from personalive import Engine, load_engine
from personalive.engine.controls import Controls
from personalive.evaluation.heldout import BLINKS, Case, angles, readings, run_case
from personalive.evaluation.metrics import correlation, flicker

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
SETTINGS = (
    *(("expression", value) for value in STRENGTHS),
    *((name, value) for name in ("mouth", "eyes") for value in STRENGTHS if value != 1.0),
    *(("head_motion", value) for value in STRENGTHS if value != 1.0),
    *(("smoothing", value) for value in (0.3, 0.6, 0.8)),
    ("pose", "relative"),
)


def main() -> None:
    """Run every setting on the same people and performances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cases", type=int, default=2, help="held-out people")
    parser.add_argument("--frames", type=int, default=96, help="frames per person, a multiple of 4")
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    engine = load_engine(args.weights, device=args.device)
    rows = []
    print("| control | value | mouth | blink | yaw | pitch | flicker |\n|---|---|---|---|---|---|---|")
    for name, value in SETTINGS:
        controls = Controls(**{name: value})
        cases = [run_case(engine, index, args.frames, controls=controls) for index in range(args.cases)]
        row = {"control": name, "value": value, **figures(engine, cases)}
        rows.append(row)
        shown = [f"{row[key][0]:.2f} ({row[key][1]:.2f})" for key in ("mouth", "blink", "yaw", "pitch")]
        print(f"| {name} | {value} | {' | '.join(shown)} | {row['flicker']:.4f} |", flush=True)
    (args.out / "controls.json").write_text(json.dumps({"weights": args.weights, "rows": rows}, indent=2) + "\n")


def figures(engine: Engine, cases: list[Case]) -> dict[str, object]:
    """Slope and correlation of each reading over the driver's true values, means over the cases."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("mouth", "blink", "yaw", "pitch")}
    for case in cases:
        yaw, pitch = angles(engine, case.output)
        jaw, blink = ([m[key] for m in case.motions] for key in ("jawOpen", "eyeBlinkLeft"))
        found["mouth"].append(followed(readings(case, case.output, ("jawOpen",)), jaw))
        found["blink"].append(followed(readings(case, case.output, BLINKS), blink))
        found["yaw"].append(followed(yaw, [m.yaw_deg for m in case.motions]))
        found["pitch"].append(followed(pitch, [m.pitch_deg for m in case.motions]))
    flickers = [fmean(map(flicker, case.output, case.output[1:], case.output[2:])) for case in cases]
    return {name: tuple(np.nanmean(pairs, axis=0)) for name, pairs in found.items()} | {"flicker": fmean(flickers)}


def followed(found: np.ndarray, true: list[float]) -> tuple[float, float]:
    """Slope and correlation; neither is a number where the driver does not move."""
    wanted = np.asarray(true)
    if wanted.std() < 1e-3:
        return float("nan"), float("nan")
    slope = np.polyfit(wanted, found, 1)[0]
    return float(slope), correlation(found, wanted) if found.std() > 0 else 0.0


if __name__ == "__main__":
    main()
