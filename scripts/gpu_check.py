"""A GPU's first quarter of an hour: three parts of at most four minutes, each a list of commands with a time limit.

    python scripts/gpu_check.py 1    right numbers, a video, a live session, every card
    python scripts/gpu_check.py 2    speed and memory of the released shape by torch, and its time by kernel
    python scripts/gpu_check.py 3    the same by torch.compile

Needs no weights. On a machine without a GPU, ``--device cpu`` runs the same commands on the bundled model, where that
shows anything. Ends with what to enter where, and with exit code 1 where a command failed. Files are left in --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "src" / "personalive" / "assets" / "demo"
LIMIT_S = 240.0  # of a part
PERSONALIVE = (sys.executable, "-m", "personalive")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command, and where its result belongs."""

    name: str
    command: Sequence[str]
    enter: str


def steps(part: int, device: str, out: Path) -> Iterator[Step]:
    """Commands of a part for this device."""
    on_cuda = device.startswith("cuda")
    if part == 1:
        yield from _first(device, out, on_cuda=on_cuda)
        return
    backends = "eager" if part == 2 else "eager,compile"
    report = out / f"speed_{backends.replace(',', '_')}.json"
    speed = [sys.executable, "benchmarks/speed.py", "--backends", backends, "--keyframes", "0,3", "--no-baseline"]
    speed += ["--device", device, "--output", str(report), "--limit-s", "140", "--rounds", "8" if on_cuda else "1"]
    speed += [] if on_cuda else ["--weights", "tiny"]
    yield Step(
        name=f"speed by {backends}",
        command=speed,
        enter="docs/performance.md, 'On a GPU': frames/s, peak and reserved GB",
    )
    if part == 2:
        profile = [sys.executable, __file__, "profile", "--device", device, "--out", str(out)]
        yield Step(name="time by kernel", command=profile, enter="docs/decisions.md: what takes the time of a call")


def _first(device: str, out: Path, *, on_cuda: bool) -> Iterator[Step]:
    model = ("--weights", "tiny", "--device", device)
    portrait, driving = str(DEMO / "portrait.png"), str(DEMO / "driving.mp4")
    if on_cuda:
        tests = [sys.executable, "-m", "pytest", "-q", "tests/cuda", "-k", "not compile"]
        yield Step(name="numbers", command=tests, enter="docs/performance.md: strike 'never ran' of half precision")
    for card in _cards() if on_cuda else [device]:
        made = str(out / f"video_{card.replace(':', '_')}.mp4")
        video = [
            *PERSONALIVE,
            "animate",
            portrait,
            driving,
            "-o",
            made,
            "--end",
            "1",
            "--framing",
            "none",
            "--weights",
            "tiny",
            "--device",
            card,
        ]
        yield Step(name=f"a video on {card}", command=video, enter="docs/performance.md: devices that made a video")
    live = [
        *PERSONALIVE,
        "camera",
        portrait,
        "--from",
        driving,
        "--to",
        str(out / "live.mp4"),
        "--seconds",
        "5",
        *model,
    ]
    yield Step(name="a live session", command=live, enter="docs/live.md, 'Measured': frames per second and delay")
    table = [*PERSONALIVE, "benchmark", *model, "--rounds", "5", "--json", str(out / "tiny.json")]
    yield Step(name="the bundled model", command=table, enter="docs/performance.md: the table, as it is printed")


def _cards() -> list[str]:
    import torch  # noqa: PLC0415 (seconds)

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def run(part: int, device: str, out: Path, limit_s: float = LIMIT_S) -> list[dict[str, object]]:
    """Run a part's commands one after another, as far as the time goes; the results so far are always on the disk."""
    begun, results = time.monotonic(), list[dict[str, object]]()
    for step in steps(part, device, out):
        left_s = limit_s - (time.monotonic() - begun)
        print(f"== {step.name} ({left_s:.0f} s left)", flush=True)
        started = time.monotonic()
        try:
            code = subprocess.run(step.command, cwd=ROOT, timeout=max(left_s, 0.0), check=False).returncode
            state = "done" if code == 0 else f"failed, exit code {code}"
        except subprocess.TimeoutExpired:
            state = "stopped: the time was over"
        took_s = round(time.monotonic() - started, 1)
        results.append({"name": step.name, "state": state, "took_s": took_s, "enter": step.enter})
        (out / f"part_{part}.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def profile(device: str, out: Path) -> None:
    """Print the operations that take most of a call's time, with the released shape on a GPU and "tiny" elsewhere."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import torch  # noqa: PLC0415
    from torch.profiler import ProfilerActivity  # noqa: PLC0415

    from personalive.engine.engine import Engine  # noqa: PLC0415
    from personalive.evaluation.benchmark import make_inputs  # noqa: PLC0415
    from personalive.runtime.load import choose_device, choose_dtype  # noqa: PLC0415
    from personalive.runtime.registry import EAGER, open_backend  # noqa: PLC0415
    from timing.inputs import FULL, open_model  # noqa: PLC0415

    place = choose_device(device)
    on_cuda, dtype = place.type == "cuda", choose_dtype("auto", place)
    model = open_model(FULL if on_cuda else "tiny", place, seed=0)
    networks = model.load(place, dtype)
    engine = Engine(networks, backend=open_backend(EAGER, networks, precision=dtype, identity=model.identity))
    inputs = make_inputs(model.config, 2, seed=0)
    state, _ = engine.step(engine.start(inputs.portrait), inputs.windows[0])
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with torch.profiler.profile(activities=activities) as found:
        engine.step(state, inputs.windows[1])
    order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    text = found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60)
    (out / "kernels.txt").write_text(text)
    print(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, print what to enter where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("1", "2", "3", "profile"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.part == "profile":
        profile(options.device, out)
        return 0
    results = run(int(options.part), options.device, out)
    for result in results:
        print(f"{result['name']}: {result['state']} in {result['took_s']} s -> {result['enter']}")
    return 0 if all(result["state"] == "done" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
