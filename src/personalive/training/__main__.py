"""Train the bundled model on synthetic heads, stage by stage.

    python -m personalive.training all --run runs/tiny            # everything, about two hours on two cores
    python -m personalive.training motion --run runs/tiny --minutes 60

Each stage reads what the one before it left in the run folder; ``export`` writes the half-precision folder that
ships as ``personalive/assets/tiny``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from personalive.errors import PersonaLiveError
from personalive.training.presets import DataConfig
from personalive.training.run import STEPS, Run


def main(arguments: list[str] | None = None) -> int:
    """Parse and run; errors become one line and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="personalive.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["all", *STEPS])
    parser.add_argument("--run", type=Path, required=True, help="folder for data, weights, logs and sheets")
    parser.add_argument("--minutes", type=_minutes, help="stop each training stage after this long")
    parser.add_argument("--steps", type=_count, help="stop each training stage after so many steps")
    parser.add_argument("--groups", type=_count, default=DataConfig.groups, help="pairs of people to render")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    try:
        run = Run(args.run, args.device, steps=args.steps, minutes=args.minutes, groups=args.groups, say=_say)
        for name in STEPS if args.stage == "all" else [args.stage]:
            run.do(name)
    except PersonaLiveError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 up")
    return int(text)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0")
    return value


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
