"""``personalive train``: the three stages of the published recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.console import progress, show_rows
from personalive.cli.options import AUTO, WEIGHTS_METAVAR, DeviceOption
from personalive.training.recipe.presets import PRESETS, STAGES, Stage

if TYPE_CHECKING:
    from personalive.training.recipe.settings import TrainConfig

_HELP = {
    "motion": """Stage 1: teach motion on single frames.

    Trains the denoiser without its temporal modules, the motion encoder, the pose guider and the reference net
    (all but its last level) to predict a clean frame of DATA from one noisy frame, an image of the same person,
    and the driver's face and pose.
    """,
    "distill": """Stage 2: teach appearance in four steps.

    Trains the networks of stage 1 to make a frame from pure noise in one to four steps, by errors of the decoded
    pixels: squared, perceptual, and a discriminator's.
    """,
    "stream": """Stage 3: teach continuity on clips.

    Trains the temporal modules alone, on windows that slide over a clip and go on from what the model itself made
    of the window before.
    """,
}
app = typer.Typer(
    help="Train the networks in three stages: motion, distill, stream.",
    epilog="""
\b
Examples:
  personalive train motion synthetic --run runs/motion --preset tiny --weights tiny
  personalive train distill synthetic --run runs/distill --preset tiny --weights runs/motion/weights
  personalive train stream synthetic --run runs/stream --preset tiny --weights runs/distill/weights
  personalive animate --demo --weights runs/stream/weights

Each stage starts from the weights of the one before. The same command again resumes where it stopped. A run folder
holds config.json, log.jsonl, TensorBoard scalars, sheets/*.png to look at, checkpoints, and at the end weights.
""",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


_Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A prepared folder, or 'synthetic' for synthetic heads made as needed.")
]
_Run = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The run's folder; needed but for --dry-run.", show_default=False)
]
_Preset = Annotated[
    str,
    typer.Option(
        metavar="|".join(PRESETS),
        help="Named set of values: 'full' is the published recipe for the released weights on a large GPU, 'tiny' "
        "shows it all on a CPU with the bundled model.",
    ),
]
_Weights = Annotated[
    str, typer.Option(metavar=WEIGHTS_METAVAR, help="What to start from: a weights folder, or as in `animate`.")
]
_Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="JSON with values over the preset's; --dry-run prints one.", show_default="none"
    ),
]
_Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One value over all others, as in --set optimiser.lr=2e-5; may be repeated.",
        show_default="none",
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run/--no-dry-run", help="Print the resolved config as JSON and do nothing.")
]


def _command(stage: Stage) -> Callable[..., None]:
    """The command of one stage; all have the same options."""

    def command(
        data: _Data,
        run: _Run = None,
        preset: _Preset = "full",
        weights: _Weights = AUTO,
        config: _Config = None,
        values: _Values = None,
        device: DeviceOption = AUTO,
        dry_run: _DryRun = False,
    ) -> None:
        from personalive.training.recipe.overrides import as_json, resolve  # noqa: PLC0415 (imports pydantic)

        resolved = resolve(stage, preset, config, values or ())
        if dry_run:
            print(as_json(resolved))
        elif run is None:
            raise typer.BadParameter("give --run DIR, the folder that this run lives in")
        else:
            _train(resolved, data, run, weights, device)

    command.__doc__ = _HELP[stage]
    return command


def _train(config: TrainConfig, data: str, run: Path, weights: str, device: str) -> None:
    from personalive.runtime.load import find_weights  # noqa: PLC0415 (imports torch)
    from personalive.training.recipe.run import train  # noqa: PLC0415

    start = str(find_weights()) if weights == AUTO else weights
    with progress("training") as display:
        report = train(config, data=data, run=run, weights=start, device=device, show=display.show, say=print)
    show_rows(
        [
            ("steps", f"{report.steps} ({report.steps_now} now)"),
            ("weights", str(report.weights)),
            ("look at", str(run / "sheets")),
            ("next", f"personalive animate PORTRAIT DRIVING --weights {report.weights}"),
        ]
    )


for _stage in STAGES:
    app.command(name=_stage)(_command(_stage))
