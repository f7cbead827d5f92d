"""Speed of a loaded model on this machine: frames a second and delay by denoising steps and keyframes.

What `personalive benchmark` shows; the scripts in ``benchmarks/`` share its inputs, clock and memory.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from personalive import __version__
from personalive.config import ModelConfig
from personalive.device import HostCopy
from personalive.engine.base import BaseEngine
from personalive.engine.engine import Engine
from personalive.engine.keyframes import extend
from personalive.engine.state import StreamState
from personalive.errors import OutputError

PACKAGES = ("numpy", "diffusers", "transformers", "triton", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt")
TURN_DEG, SHIFT, PERIOD_FRAMES = 8.0, 0.03, 32  # how far the driver leans and moves (image sides), how fast
WARM_ROUNDS = 2  # before the rounds that count


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One row: the same stream, call by call by turns with the others."""

    steps: int  # of denoising; 0 where the model has none
    keyframes: int
    call_ms: float  # median of one call: four driving frames in, four finished frames out
    call_p95_ms: float
    frames_per_s: float
    delay_ms: float  # from a whole chunk of driving frames to its finished frames, at this rate


def measure_speed(
    engine: BaseEngine,
    *,
    steps: Sequence[int],
    rounds: int,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Speed]:
    """Time ``Engine.step`` with each number of steps, without and with all keyframes that the model keeps.

    Args:
        steps: numbers of denoising steps; of no effect on a model without.
        rounds: timed calls of each row, at least 1.
        on_progress: called after every round with the share done.

    Raises:
        InputError: steps that the model does not have.
    """
    inputs = make_inputs(engine.config, PERIOD_FRAMES // engine.chunk_frames, seed=0)
    states: dict[tuple[int, int], Any] = {}
    for number in steps if engine.max_steps else (0,):
        plain = engine.start(inputs.portrait, keyframe_threshold=math.inf, steps=number or None)
        plain, _ = engine.step(plain, inputs.windows[0])
        states[number, 0] = plain
        if isinstance(engine, Engine):
            most = engine.config.keyframes.maximum
            states[number, most] = with_keyframes(engine, plain, most)
    times: dict[tuple[int, int], list[float]] = {row: [] for row in states}
    total = WARM_ROUNDS + rounds
    for done in range(total):
        window = inputs.windows[done % len(inputs.windows)]
        for row, state in states.items():  # always from the same state, whatever the number of rounds
            settle(engine.device)
            begun = time.perf_counter()
            engine.step(state, window)
            times[row].append(time.perf_counter() - begun)
        on_progress((done + 1) / total)
    return [_speed(engine.chunk_frames, *row, taken[WARM_ROUNDS:]) for row, taken in times.items()]


def _speed(chunk_frames: int, steps: int, keyframes: int, seconds: list[float]) -> Speed:
    median, p95 = (float(value) for value in np.percentile(seconds, (50, 95)))
    return Speed(
        steps=steps,
        keyframes=keyframes,
        call_ms=round(1e3 * median, 1),
        call_p95_ms=round(1e3 * p95, 1),
        frames_per_s=round(chunk_frames / median, 2),
        delay_ms=round(1e3 * median * max(steps, 1), 1),
    )


def report(engine: BaseEngine, rows: Sequence[Speed], memory: Memory) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, ready for JSON."""
    return {
        "benchmark": "personalive benchmark",
        "model": Path(engine.name).name,
        "image_size_px": engine.image_size,
        **engine.facts,
        "environment": environment(engine.device),
        "peak_memory_bytes": memory.peak_bytes(),
        "reserved_memory_bytes": memory.reserved_bytes(),
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def write_report(found: dict[str, Any], path: Path) -> None:
    """Write the report.

    Raises:
        OutputError: the disk refuses.
    """
    try:
        path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error.strerror}): choose another --json file") from error


def table(found: dict[str, Any]) -> str:
    """The report as a Markdown table, to paste."""
    where, peak = found["environment"], found["peak_memory_bytes"]
    threads = "" if where["device"] != "cpu" else f" (threads: {where['threads']})"
    versions = f"personalive {where['personalive']}, torch {where['torch']}"
    lines = [
        f"{found['model']} at {found['image_size_px']} px on {where['device_name']}{threads}: {found['backend']}, "
        f"{found['dtype']}, --vram {found['vram']}, {found['decoder']}; {versions}, {where['system']}"
        + ("" if peak is None else f"; {peak / 1e9:.2f} GB at most"),
        "",
        "| steps | keyframes | frames/s | ms a call | 95 % within | delay ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        figures = (row["frames_per_s"], row["call_ms"], row["call_p95_ms"], row["delay_ms"])
        lines.append(f"| {row['steps'] or '-'} | {row['keyframes']} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)


# --- inputs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """Portrait and driving windows of a stream."""

    portrait: np.ndarray  # (S, S, 3) uint8
    windows: tuple[np.ndarray, ...]  # (4, S, S, 3) uint8 each
    seed: int


def make_inputs(config: ModelConfig, calls: int, seed: int) -> Inputs:
    """The demo's portrait at the model's size, and it swaying as the driver."""
    size = (config.image_size_px, config.image_size_px)
    path = resources.files("personalive") / "assets" / "demo" / "portrait.png"
    with path.open("rb") as file:
        image = Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    corner = image.getpixel((0, 0))
    frames = []
    for number in range(calls * config.chunk_frames):
        sway = math.sin(2 * math.pi * number / PERIOD_FRAMES)
        shift = (round(SHIFT * sway * size[0]), 0)
        turned = image.rotate(TURN_DEG * sway, Image.Resampling.BICUBIC, translate=shift, fillcolor=corner)
        frames.append(np.asarray(turned))
    windows = np.stack(frames).reshape(calls, config.chunk_frames, *size, 3)
    return Inputs(np.array(image), tuple(windows), seed)


@torch.no_grad()
def with_keyframes(engine: Engine, state: StreamState, count: int) -> StreamState:
    """The state with so many keyframes, old enough to look for more; each is the portrait, shifted."""
    state = dataclasses.replace(state, call=max(state.call, engine.config.keyframes.first_call))
    portrait = state.reference
    for number in range(1, count + 1):
        kv = engine.backend.project(portrait.latent.roll(number, dims=-1), portrait.context)
        bank = (*state.bank, HostCopy(portrait.motion))
        state = dataclasses.replace(state, reference=extend(state.reference, kv), bank=bank)
    return state


# --- the machine ----------------------------------------------------------------------------------------------


def settle(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type not in ("cpu", "meta"):
        getattr(torch, device.type).synchronize()


def environment(device: torch.device) -> dict[str, Any]:
    """Device, versions and settings."""
    found: dict[str, Any] = {
        "device": str(device),
        "device_name": device_name(device),
        "personalive": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "packages": dict(_versions()),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
    if device.type == "cuda":
        found["device_memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
    return found


def device_name(device: torch.device) -> str:
    """Name by its maker, where the system has it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processors = Path("/proc/cpuinfo")
    if device.type == "cpu" and processors.is_file():
        for line in processors.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Memory:
    """The most memory taken since it was made: on CUDA above what was taken then, elsewhere by the whole process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        on_cuda = device.type == "cuda"
        self.before = torch.cuda.memory_allocated(device) if on_cuda else 0
        self.reserved_before = torch.cuda.memory_reserved(device) if on_cuda else 0
        self.reset()

    def reset(self) -> None:
        """Forget the peak so far, where the system can."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # then the peak is that of the whole run

    def peak_bytes(self) -> int | None:
        """Bytes, or None where nobody knows."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        status = Path("/proc/self/status")
        if status.is_file():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM"):
                    return 1024 * int(line.split()[1])
        return _most_resident_bytes()

    def reserved_bytes(self) -> int | None:
        """On CUDA, what torch took from the device at most: more than ``peak_bytes`` by what it keeps for later."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_reserved(self.device) - self.reserved_before


def _most_resident_bytes() -> int | None:
    try:
        import resource  # noqa: PLC0415 (not on Windows)
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
