"""``personalive benchmark``: speed of a model on this machine, as a table to paste."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personalive.cli.console import progress, show_rows
from personalive.cli.options import ModelOptions, StepsOption, with_groups

EPILOG = """
\b
Examples:
  personalive benchmark
  personalive benchmark --weights tiny --json tiny.json
  personalive benchmark --weights ~/weights --backend eager --steps 2

Rows are timed by turns, each call from the same state: four driving frames in, four finished frames out. The delay is
that from a whole chunk of four driving frames to its finished frames at this rate; camera and network come on top.
"""


@with_groups
def benchmark(
    model: ModelOptions = ModelOptions(),
    steps: StepsOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed calls of each row.")] = 20,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write all figures to this file.", show_default="none"),
    ] = None,
) -> None:
    """Measure frames per second and delay, by denoising steps and keyframes; without --steps for every number."""
    from personalive.evaluation.benchmark import Memory, measure_speed, report, table, write_report  # noqa: PLC0415
    from personalive.media.paths import check_output  # noqa: PLC0415
    from personalive.runtime.load import choose_device, load_engine  # noqa: PLC0415 (imports torch)
    from personalive.runtime.memory import engine_oom_errors  # noqa: PLC0415

    target = None if json_file is None else check_output(json_file, [], suffix=".json")
    memory = Memory(choose_device(model.device))
    with progress("timing") as display:
        engine = load_engine(
            model.weights, **model.engine_options(), progress=display.loading, preparing=display.preparing
        )
        numbers = range(engine.max_steps, 0, -1) if steps is None else [engine.check_steps(steps)]
        with engine_oom_errors(engine):
            rows = measure_speed(
                engine, steps=numbers, rounds=rounds, on_progress=lambda share: display.step("timing", share)
            )
    found = report(engine, rows, memory)
    print(table(found))
    if target is not None:
        write_report(found, target)
        show_rows([("json", str(target))])
