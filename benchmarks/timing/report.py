"""Results of a run, as JSON and as tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from personalive.errors import OutputError
from personalive.runtime.registry import EAGER
from timing.candidate import BASELINE, Candidate, dtype_name
from timing.stages import STAGES, Call

Flops = Mapping[int, Mapping[str, int]]  # of a call by stage, by number of keyframes
TABLE_WIDTH = 170  # characters, where the output is no terminal
STAGE_NAMES = {"copy_out": "copy out"}
GIGA, TERA = 1e9, 1e12


def rows(
    candidates: Sequence[Candidate],
    flops: Mapping[str, Flops],
    peaks: Mapping[str, float],
    chunk_frames: int,
) -> list[dict[str, Any]]:
    """One row per candidate, ready for JSON.

    Args:
        flops: of "engine", which every backend runs, and of "baseline".
        peaks: operations per second of a matrix product, by dtype.
        chunk_frames: frames that a call gives.
    """
    found = []
    for candidate in candidates:
        own = flops.get(BASELINE if candidate.spec.name == BASELINE else "engine", {})
        dtype = dtype_name(candidate.spec.dtype)
        calls = {
            str(count): _summary(taken, own.get(count), peaks.get(dtype), chunk_frames)
            for count, taken in candidate.calls.items()
        }
        found.append(
            {
                "name": candidate.spec.name,
                "dtype": dtype,
                "error": candidate.error,
                **candidate.figures,
                "by_turns": candidate.by_turns,
                "calls": calls,
            }
        )
    for row in found:
        _compare(row, found)
    return found


def _summary(calls: Sequence[Call], flops: Mapping[str, int] | None, peak: float | None, frames: int) -> dict:
    ms = [call.ms for call in calls]
    summary: dict[str, Any] = {
        "ms_median": median(ms),
        "ms_p95": float(np.percentile(ms, 95)),
        "frames_per_s": 1e3 * frames / median(ms),
        "stages_ms": {stage: median(call.stages[stage] for call in calls) for stage in STAGES},
        "samples_ms": [round(value, 3) for value in ms],
    }
    if flops:
        summary["flops"] = {**flops, "call": sum(flops.values())}
        if peak:
            summary["peak_share"] = sum(flops.values()) / (median(ms) / 1e3) / peak
    return summary


def _compare(row: dict[str, Any], others: Sequence[Mapping[str, Any]]) -> None:
    """Add the speed relative to the baseline and to eager torch, in the same dtype where there is one."""
    for name in (BASELINE, EAGER):
        named = (other for other in others if other["name"] == name)
        alike = sorted(named, key=lambda other: other["dtype"] != row["dtype"])
        for count, summary in row["calls"].items():
            if alike and count in alike[0]["calls"]:
                summary[f"times_{name}"] = alike[0]["calls"][count]["ms_median"] / summary["ms_median"]


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write it whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}): give another --output") from error


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    console = Console() if os.isatty(1) else Console(width=TABLE_WIDTH)
    where, model = result["environment"], result["model"]
    peaks = ", ".join(f"{peak / TERA:.4g} TFLOP/s in {dtype}" for dtype, peak in result["matrix_peak"].items())
    console.print(
        f"{model['name']} at {model['image_size_px']} px on {where['device_name']} ({where['device']}, "
        f"{where['threads']} threads), torch {where['torch']}, matrix products at {peaks}"
    )
    console.print(_calls_table(result["candidates"]))
    console.print(_once_table(result["candidates"]))
    for note in result["notes"]:
        console.print(note)


def _calls_table(candidates: Sequence[Mapping[str, Any]]) -> Table:
    titles = ("backend", "dtype", "keyframes", "ms", "p95", "frames/s", "x baseline", "x eager")
    stages = [STAGE_NAMES.get(stage, stage) for stage in STAGES]
    table = Table(*titles, *stages, "TFLOP", "of peak", title="A call of four frames; stages in ms")
    for row in candidates:
        for count, summary in row["calls"].items():
            flops, share = summary.get("flops"), summary.get("peak_share")
            table.add_row(
                row["name"],
                row["dtype"],
                count,
                f"{summary['ms_median']:.1f}",
                f"{summary['ms_p95']:.1f}",
                f"{summary['frames_per_s']:.2f}",
                *(_number(summary.get(f"times_{name}"), ".2f") for name in (BASELINE, EAGER)),
                *(f"{summary['stages_ms'][stage]:.1f}" for stage in STAGES),
                _number(flops["call"] if flops else None, ".3g", TERA),
                _number(share, ".1%"),
            )
    return table


def _once_table(candidates: Sequence[Mapping[str, Any]]) -> Table:
    titles = ("backend", "dtype", "load s", "set-up s", "first frame s", "keyframe ms")
    table = Table(*titles, "peak GB", "reserved GB", "PSNR dB", Column("", overflow="fold"), title="Once")
    for row in candidates:
        table.add_row(
            row["name"],
            row["dtype"],
            _number(row.get("load_s"), ".1f"),
            _number(row.get("setup_s"), ".1f"),
            _number(row.get("first_frame_s"), ".2f"),
            _number(row.get("keyframe_ms"), ".1f"),
            *(_number(row.get(f"peak_{kind}_bytes"), ".2f", GIGA) for kind in ("memory", "reserved")),
            "equal" if row.get("largest_difference_levels") == 0 else _number(row.get("psnr_db"), ".1f"),
            row["error"] or "",
        )
    return table


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "" if value is None else format(value / unit, form)
