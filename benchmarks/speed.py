"""Duration of a call of the engine, whole and stage by stage, for every backend that runs here.

    python benchmarks/speed.py [--backends eager,compile] [--keyframes 0,1,3] [--output out/speed.json]
    python benchmarks/speed.py --weights tiny --device cpu --backends eager,compile,openvino,onnxruntime

The default is the released shape at 512 px, with seeded values that are made on the device; else the bundled model
("tiny") or a weights folder. All candidates are set up one after another, each with networks of its own, then timed
by turns. Among them is a "baseline": the engine as a straightforward reading of the published description has it.
The columns are explained in docs/performance.md.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from personalive.config import FULL as FULL_MEMORY
from personalive.config import PRESETS
from personalive.errors import InputError, PersonaLiveError
from personalive.evaluation.benchmark import Inputs, environment, make_inputs
from personalive.runtime.load import AUTO, DTYPES, choose_device, choose_dtype
from personalive.runtime.registry import BACKENDS
from timing.candidate import (
    BASELINE,
    Candidate,
    Plan,
    Spec,
    attempt,
    calls_to_first_frame,
    dtype_name,
    fitting_dtype,
    set_up,
    take_turns,
)
from timing.inputs import FULL, Model, open_model
from timing.machine import matrix_peak
from timing.reference import Reference, measure
from timing.report import rows, show, write_json

LIMIT_S = 540.0  # a run that ends within ten minutes
OPENING_SHARE = 0.8  # of the limit: afterwards no candidate is set up, so that there is time for the others
WRITE_EVERY = 5  # rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, print. Bad options and unusable weights end in one line."""
    options = parse(arguments)
    try:
        Run(options).run()
    except PersonaLiveError as error:
        print(f"speed.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("speed.py: stopped", file=sys.stderr)
        return 130
    return 0


# --- options -------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Parser that ends in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"{self.prog}: {message}: see --help\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options, each of the right kind."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ", ".join(BACKENDS)
    parser.add_argument("--weights", default=FULL, help=f'"{FULL}" (the default), "tiny", or a weights folder')
    parser.add_argument("--device", default=AUTO)
    parser.add_argument("--dtype", default=AUTO, help=f"{AUTO}, {', '.join(DTYPES)}")
    own = "NAME:DTYPE sets a dtype of its own"
    parser.add_argument("--backends", default="eager,compile", help=f"of {known}; {own}")
    parser.add_argument("--vram", choices=tuple(PRESETS), default=FULL_MEMORY.name, help="memory preset, for all")
    parser.add_argument("--baseline", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keyframes", type=whole_numbers, default=None, help="default 0,1,3")
    parser.add_argument("--rounds", type=positive, help=f"timed calls of each kind, default {Plan.rounds}")
    parser.add_argument("--quick", action="store_true", help="few calls of everything, as a smoke test")
    parser.add_argument("--seed", type=whole_number, default=0, help="of noise, and of seeded weights")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="begin nothing new after this")
    parser.add_argument("--output", type=Path, help="a JSON file, written after every candidate")
    options = parser.parse_args(arguments)
    if not options.limit_s > 0:
        parser.error(f"argument --limit-s: {options.limit_s}: give seconds above 0")
    return options


def whole_number(text: str) -> int:
    """0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 0 up")
    return int(text)


def positive(text: str) -> int:
    """1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 up")
    return int(text)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Several, by commas, each once."""
    return tuple(sorted({whole_number(part.strip()) for part in text.split(",")}))


def chosen_device(options: argparse.Namespace) -> torch.device:
    """The device asked for.

    Raises:
        DeviceError, InputError: not there, or it would take far too long.
    """
    device = choose_device(options.device)
    if options.weights == FULL and device.type == "cpu" and options.device == AUTO:
        raise InputError("the full shape takes minutes a call on a CPU: use --weights tiny, or name --device cpu")
    return device


def chosen_specs(options: argparse.Namespace, device: torch.device) -> list[Spec]:
    """The candidates in order: for each dtype its baseline first.

    Raises:
        InputError, DeviceError: an unknown backend or dtype.
    """
    specs = []
    for part in options.backends.split(","):
        name, _, own = part.strip().partition(":")
        if name not in BACKENDS:
            raise InputError(f"--backends: {name!r} is not known: use {', '.join(BACKENDS)}")
        wanted = own or options.dtype
        dtype = choose_dtype(wanted, device)
        specs.append(Spec(name, fitting_dtype(name, device, dtype) if wanted == AUTO else dtype))
    baselines = [Spec(BASELINE, spec.dtype) for spec in specs] if options.baseline else []
    return list(dict.fromkeys([*baselines, *specs]))


def chosen_plan(options: argparse.Namespace, model: Model) -> Plan:
    """Number of calls of each kind.

    Raises:
        InputError: more keyframes than the model keeps.
    """
    first, most = calls_to_first_frame(model.config), model.config.keyframes.maximum
    keyframes = options.keyframes
    if keyframes is None:
        keyframes = tuple(count for count in ((0, most) if options.quick else Plan.keyframes) if count <= most)
    if keyframes[-1] > most:
        raise InputError(f"--keyframes: {keyframes[-1]}: this model keeps {most} at most")
    kinds: dict[str, Any] = {"keyframes": keyframes, "memory": PRESETS[options.vram]}
    if options.quick:
        return Plan(**kinds, rounds=options.rounds or 2, warm_calls=1, stream_calls=first, repeats=1)
    return Plan(**kinds, rounds=options.rounds or Plan.rounds, stream_calls=max(first, Plan.stream_calls))


# --- the run -------------------------------------------------------------------------------------------------------


class Run:
    """State of one run, and its results so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.begun, self.options = time.perf_counter(), options
        self.device = chosen_device(options)
        self.model = open_model(options.weights, self.device, options.seed)
        self.plan = chosen_plan(options, self.model)
        self.candidates = [Candidate(spec) for spec in chosen_specs(options, self.device)]
        self.peaks: dict[str, float] = {}
        self.reference = Reference()
        self.complete = False
        self.write()

    def run(self) -> None:
        """Measure everything and print the tables."""
        inputs = make_inputs(self.model.config, self.plan.stream_calls, self.options.seed)
        for dtype in dict.fromkeys(candidate.spec.dtype for candidate in self.candidates):
            self.peaks[dtype_name(dtype)] = matrix_peak(self.device, dtype)
        self.report("the stream in float32, and its operations")
        narrowest = min((c.spec.dtype for c in self.candidates), key=lambda dtype: dtype.itemsize)
        self.reference = measure(self.device, self.model, inputs, self.plan, narrowest)
        for candidate in self.candidates:
            self.open(candidate, inputs)
        self.report(f"{self.plan.rounds} rounds")
        take_turns(self.candidates, inputs, self.plan.rounds, self.go_on)
        self.complete = all(candidate.error is None for candidate in self.candidates) and not self.reference.notes
        self.write()
        show(self.result())

    def open(self, candidate: Candidate, inputs: Inputs) -> None:
        """Set one candidate up, if there is time."""
        self.report(f"setting up {candidate.spec}")
        release(self.device)
        if self.elapsed_s > OPENING_SHARE * self.options.limit_s:
            candidate.close(f"not run: {self.elapsed_s:.0f} of {self.options.limit_s:.0f} s were over")
        else:
            wanted = self.reference.frames
            attempt(candidate, lambda: set_up(candidate, self.device, self.model, inputs, self.plan, wanted))
        if candidate.error is not None:
            self.report(f"{candidate.spec}: {candidate.error}")
        self.write()

    def go_on(self, number: int) -> bool:
        """Tell whether there is time for another round; at least one is run."""
        if number and number % WRITE_EVERY == 0:
            self.report(f"{number} of {self.plan.rounds} rounds")
            self.write()
        if number and self.elapsed_s > self.options.limit_s:
            self.reference.notes.append(f"{number} of {self.plan.rounds} rounds: the time was over")
            return False
        return True

    @property
    def elapsed_s(self) -> float:
        """Time since the options were read."""
        return time.perf_counter() - self.begun

    def result(self) -> dict[str, Any]:
        """Results so far, ready for JSON."""
        config, options = self.model.config, self.options
        return {
            "benchmark": "speed",
            "complete": self.complete,
            "elapsed_s": self.elapsed_s,
            "environment": environment(self.device),
            "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()},
            "plan": {**vars(self.plan), "memory": self.plan.memory.name},
            "model": {
                "name": self.model.name,
                "image_size_px": config.image_size_px,
                "chunk_frames": config.chunk_frames,
                "window_frames": config.window_frames,
            },
            "matrix_peak": self.peaks,
            "candidates": rows(self.candidates, self.reference.flops, self.peaks, config.chunk_frames),
            "notes": self.reference.notes,
        }

    def write(self) -> None:
        """Write the results so far."""
        if self.options.output is not None:
            write_json(self.options.output, self.result())

    def report(self, text: str) -> None:
        """Print the progress."""
        print(f"[{self.elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)


def release(device: torch.device) -> None:
    """Free memory that nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
