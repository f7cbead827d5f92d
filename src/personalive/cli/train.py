"""``personalive train``: stages of training, one at a time or all of a preset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.console import progress, show_rows
from personalive.cli.options import AUTO, WEIGHTS_METAVAR, DeviceOption
from personalive.training.presets import PRESETS, SCRATCH, STAGES, Preset, Stage

if TYPE_CHECKING:
    from personalive.training.config import TrainConfig

_HELP = {
    "autoencoder": """Images to latents and back, for a model from nothing.

    Trains the VAE by errors of images and of their edges, and measures the latents' scale.
    """,
    "extractor": """Head pose and keypoints, for a model from nothing.

    Trains the motion extractor on the ground truth of rendered heads; DATA has to be 'synthetic'.
    """,
    "motion_encoder": """Motion tokens, for a model from nothing.

    Trains the motion encoder so that its tokens give the expression and not the person: two rendered people give the
    same performance. DATA has to be 'synthetic'.
    """,
    "motion": """The paper's stage 1: motion on single frames.

    Trains the denoiser without its temporal modules, the motion encoder, the pose guider and the reference net
    (all but its last level) to predict a clean frame of DATA from one noisy frame, an image of the same person,
    and the driver's face and pose.
    """,
    "distill": """The paper's stage 2: appearance in four steps.

    Trains the networks of stage 1 to make a frame from pure noise in one to four steps, by errors of the decoded
    pixels: squared, perceptual, and a discriminator's.
    """,
    "stream": """The paper's stage 3: continuity on clips.

    Trains the temporal modules alone, on windows that slide over a clip and go on from what the model itself made
    of the window before.
    """,
    "detail": """The detail head, for models that have one.

    Trains it on frames that the model itself made: where they are in the portrait, and how far to trust the pixels
    found there.
    """,
}
_ALL_HELP = """All stages of the preset, one after another.

Each has a folder of its own in --run and begins with the weights of the one before. 'full' has the paper's three
stages and begins with the released weights; 'tiny' begins with nothing and makes the bundled model: hours on a CPU.
"""
app = typer.Typer(
    help="Train the networks: one stage at a time, or all stages of a preset.",
    epilog="""
\b
Examples:
  personalive train motion my-set --run runs/motion                 released weights, the paper's numbers
  personalive train distill my-set --run runs/distill --weights runs/motion/weights
  personalive train all --preset tiny --run runs/tiny                the bundled model, from nothing
  torchrun --nproc_per_node 8 -m -- personalive train motion my-set --run runs/motion
  personalive animate --demo --weights runs/tiny/7-detail/weights

The same command again resumes where it stopped, also on another number of processes. A run folder holds config.json,
log.jsonl, TensorBoard scalars, sheets/*.png to look at, checkpoints, and at the end weights.
""",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


_Data = Annotated[
    str,
    typer.Argument(
        metavar="[DATA]",
        help="A folder by `personalive data prepare` or `data heads`, or 'synthetic' for heads rendered as needed.",
        show_default="of the preset: synthetic for tiny",
    ),
]
_Run = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The run's folder; needed but for --dry-run.", show_default=False)
]
_Preset = Annotated[
    str,
    typer.Option(
        metavar="|".join(PRESETS),
        help="Named set of values: 'full' is the published recipe for the released weights on large GPUs, 'tiny' the "
        "bundled model's on a CPU.",
    ),
]
_Weights = Annotated[
    str,
    typer.Option(
        metavar=f"{WEIGHTS_METAVAR}|{SCRATCH}",
        help="What to start from: a weights folder, as in `animate`, or 'scratch' for fresh networks of the preset's "
        "shape.",
        show_default="of the preset",
    ),
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


def _command(stage: Stage | None) -> Callable[..., None]:
    """The command of one stage, or of all; they have the same options."""

    def command(
        data: _Data = "",
        run: _Run = None,
        preset: _Preset = "full",
        weights: _Weights = "",
        config: _Config = None,
        values: _Values = None,
        device: DeviceOption = AUTO,
        dry_run: _DryRun = False,
    ) -> None:
        from personalive.training.overrides import as_json, preset_named, resolve  # noqa: PLC0415 (imports pydantic)

        chosen: Preset = preset_named(preset)
        stages = chosen.stages if stage is None else (stage,)
        resolved = [resolve(one, preset, config, values or ()) for one in stages]
        if dry_run:
            print("\n".join(map(as_json, resolved)))
            return
        if run is None:
            raise typer.BadParameter("give --run DIR, the folder that this run lives in")
        if not (data or chosen.data):
            raise typer.BadParameter("give DATA, a folder by `personalive data prepare`, or 'synthetic'")
        start = weights or (chosen.weights if stage is not None else chosen.all_weights)
        _train(resolved, data or str(chosen.data), run, start, device, together=stage is None)

    command.__doc__ = _ALL_HELP if stage is None else _HELP[stage]
    return command


def _train(configs: list[TrainConfig], data: str, run: Path, weights: str, device: str, *, together: bool) -> None:
    from personalive.training.run import train, train_all  # noqa: PLC0415 (imports torch)

    with progress("training") as display:
        options = {
            "data": data,
            "weights": weights,
            "device": device,
            "on_progress": display.show,
            "on_message": print,
        }
        report = train_all(configs, run=run, **options)[-1] if together else train(configs[0], run=run, **options)
    show_rows(
        [
            ("steps", f"{report.steps} ({report.steps_now} now)"),
            ("weights", str(report.weights)),
            ("look at", str(report.weights.with_name("sheets"))),
            ("next", f"personalive animate PORTRAIT DRIVING --weights {report.weights}"),
        ]
    )


for _stage in STAGES:
    app.command(name=_stage)(_command(_stage))
app.command(name="all")(_command(None))
