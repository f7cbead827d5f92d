"""Score the bundled model on held-out synthetic people, and its speed on this machine.

    python benchmarks/tiny_heldout.py [--weights tiny] [--cases 8] [--frames 96] [--out out]

Prints a table, writes heldout.json and two sheets into --out.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import torch

from personalive import Engine, load_engine
from personalive.evaluation.heldout import Case, run_case, score, sheet
from personalive.media import save_png

SPEED_CALLS, SPEED_WARMUP = 20, 3


def main() -> None:
    """Run self- and cross-reenactment and the speed measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cases", type=int, default=8, help="held-out people")
    parser.add_argument("--frames", type=int, default=96, help="frames per person, a multiple of 4")
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    engine = load_engine(args.weights, device=args.device, dtype=args.dtype)
    result = {"weights": args.weights, "device": str(engine.device), "dtype": str(engine.dtype)}
    result["threads"] = torch.get_num_threads()
    for kind in ("self", "cross"):
        cases = [run_case(engine, index, args.frames, cross=kind == "cross") for index in range(args.cases)]
        result[kind] = asdict(score(engine, cases))
        save_png(args.out / f"heldout_{kind}.png", sheet(cases, columns=8))
        print_table(kind, result[kind])
    result["speed"] = speed(engine, cases[0])
    print(f"speed: {result['speed']['fps']:.1f} frames/s (median call {result['speed']['call_ms']:.0f} ms)")
    (args.out / "heldout.json").write_text(json.dumps(result, indent=2) + "\n")


def speed(engine: Engine, case: Case) -> dict[str, float]:
    """Median time of whole steps: condition, denoise, decode."""
    state, seconds = engine.start(case.portrait), []
    for call in range(SPEED_WARMUP + SPEED_CALLS):
        at = (call * engine.chunk_frames) % (len(case.driving) - engine.chunk_frames)
        window = np.ascontiguousarray(case.driving[at : at + engine.chunk_frames])
        begun = time.perf_counter()
        state, _ = engine.step(state, window)
        seconds.append(time.perf_counter() - begun)
    call_s = median(seconds[SPEED_WARMUP:])
    return {"call_ms": 1000 * call_s, "fps": engine.chunk_frames / call_s, "calls": SPEED_CALLS}


def print_table(kind: str, scores: dict[str, float]) -> None:
    """One line per figure."""
    print(f"{kind}-reenactment")
    for name, value in scores.items():
        print(f"  {name:<16} {value:8.4f}")


if __name__ == "__main__":
    main()
