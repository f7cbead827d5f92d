"""``personalive evaluate``: score the model, and films of other methods, into one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalive.cli.console import clock, loading, preparing, progress, show_rows
from personalive.cli.options import (
    AUTO,
    Backend,
    BackendOption,
    DecoderOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    Framing,
    SeedOption,
    Vram,
    VramOption,
    WeightsOption,
    engine_options,
    names_tiny,
)
from personalive.config import default_metrics_folder
from personalive.evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    from personalive.evaluation.runner import EvaluateOptions, Evaluation, Progress

DEFAULT_DATASET = f"synthetic:{EvaluationConfig.people}"
EPILOG = """
\b
Examples:
  personalive evaluate --output scores --weights tiny
  personalive evaluate synthetic:2 --frames 16 --output quick --weights tiny
  personalive evaluate ~/clips --output scores --weights ~/weights
  personalive evaluate ~/clips --output scores --weights ~/weights --method LivePortrait=~/films/liveportrait
  personalive evaluate synthetic:4 --output scores --weights tiny --inputs for-others
  personalive evaluate ~/clips --output scores --no-model --method A=films_a --method B=films_b

DATASET is synthetic:16 for sixteen drawn heads that training never saw, synthetic:100-115 for those, or a folder of
videos. Self: the first frame is the portrait and its own video drives. Cross: another one drives.

Films of other methods carry the name of the case: CLIP.mp4 for self, DRIVER_by_PORTRAIT.mp4 for cross; person003.mp4
and driver003_by_person003.mp4 for drawn heads. One frame per driving frame, showing the same square.

OUTPUT becomes a folder with evaluation.json (exact), evaluation.md (tables) and evaluation.html (with pictures).
LPIPS, ID-SIM, AED, APD and FVD need files that you download; without them the report says which.
"""


def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="synthetic:NUMBER, synthetic:FIRST-LAST, or a folder of videos."),
    ] = DEFAULT_DATASET,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The report's folder; must not exist yet."),
    ] = Path("evaluation"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--no-overwrite", help="Replace a report that is there already.")
    ] = False,
    self_: Annotated[bool, typer.Option("--self/--no-self", help="Each portrait driven by its own video.")] = True,
    cross: Annotated[bool, typer.Option("--cross/--no-cross", help="Each portrait driven by somebody else.")] = True,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR", help="Also score the films in DIR; may be given again.", show_default="none"
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=f"At most so many frames of each case; drift needs {2 * EvaluationConfig.drift_frames}.",
            show_default=f"{EvaluationConfig.frames} of drawn heads, all of videos",
        ),
    ] = None,
    people: Annotated[
        int | None,
        typer.Option(metavar="N", help="At most so many cases of each kind.", show_default="all"),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Who is driven by whom in cross: lines PORTRAIT,DRIVING of video names without endings.",
            show_default="each by the next one",
        ),
    ] = None,
    model: Annotated[
        bool, typer.Option("--model/--no-model", help="Score the model; without it only films given by --method.")
    ] = True,
    weights: WeightsOption = AUTO,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    vram: VramOption = Vram.AUTO,
    backend: BackendOption = Backend.AUTO,
    decoder: DecoderOption = None,
    seed: SeedOption = 0,
    framing: Annotated[
        Framing,
        typer.Option(
            help="Of videos: 'auto' finds the face; 'center' takes the middle square; 'none' takes square videos as "
            "they are, which other methods' films match best."
        ),
    ] = Framing.AUTO,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="With --no-model: side of the pictures compared.",
            show_default=f"the model's own, else {EvaluationConfig.size_px}",
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write every case's portrait and driving film there, for other methods to work on.",
            show_default="none",
        ),
    ] = None,
    metric_files: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the networks of LPIPS, ID-SIM and the like lie.",
            show_default="~/.local/share/personalive/metrics",
        ),
    ] = None,
) -> None:
    """Score the model on DATASET, and films of any other method beside it."""
    methods = [_method(text) for text in method or []]
    if not model and not methods:
        raise typer.BadParameter("--no-model leaves nothing to score: give films with --method NAME=DIR")
    from personalive.evaluation.datasets import KINDS, check_inputs_folder  # noqa: PLC0415 (imports torch)
    from personalive.evaluation.report import check_report_folder, write_report  # noqa: PLC0415
    from personalive.evaluation.runner import EvaluateOptions  # noqa: PLC0415

    check_report_folder(output, overwrite=overwrite)
    if inputs is not None:
        check_inputs_folder(inputs)
    options = EvaluateOptions(
        dataset=dataset,
        kinds=tuple(kind for kind in KINDS if (self_ if kind == "self" else cross)),
        methods=tuple(methods),
        people=people,
        frames=frames,
        pairs=None if pairs is None else str(pairs),
        framing=framing.value,
        center_fallback=model and names_tiny(weights),
        size_px=size,
        seed=seed,
        metrics_folder=str(metric_files or default_metrics_folder()),
    )
    engine: dict[str, Any] = {"weights": weights} | engine_options(
        device=device, dtype=dtype, vram=vram, backend=backend, decoder=decoder
    )
    found = _evaluate(options, engine if model else None, inputs)
    _show(found, write_report(found, output, overwrite=overwrite))


def _method(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise typer.BadParameter(f"--method {text}: write NAME=FOLDER")
    return name, str(Path(folder).expanduser())


def _evaluate(options: EvaluateOptions, wanted: dict[str, Any] | None, inputs: Path | None) -> Evaluation:
    from personalive.evaluation.runner import evaluate as run  # noqa: PLC0415
    from personalive.runtime.load import load_engine  # noqa: PLC0415
    from personalive.runtime.memory import engine_oom_errors  # noqa: PLC0415

    with progress("evaluating") as show:

        def advance(now: Progress) -> None:
            show(now.frames, now.total, _told(now))

        if wanted is None:
            return run(options, None, progress=advance, inputs=inputs)
        engine = load_engine(**wanted, progress=loading(show), preparing=preparing(show))
        with engine_oom_errors(engine):
            return run(options, engine, progress=advance, inputs=inputs)


def _told(now: Progress) -> str:
    """``120 of 500 frames, 8.1 per second, 0:47 left``."""
    rate = f"{now.fps:.1f} per second"
    if now.total is None:
        return f"{now.frames} frames, {rate}"
    left = max(now.total - now.frames, 0) / max(now.fps, 1e-9)
    return f"{now.frames} of {now.total} frames, {rate}, {clock(left)} left"


def _show(found: Evaluation, files: list[Path]) -> None:
    from personalive.evaluation.metrics.catalog import METRICS, format_value  # noqa: PLC0415
    from personalive.evaluation.report import missing_metrics  # noqa: PLC0415

    for row in found.rows:
        values = ", ".join(f"{METRICS[name].label} {format_value(name, v)}" for name, v in row.metrics.items())
        show_rows([(f"{row.kind}, {row.method}", values)])
    rows = [(path.suffix.removeprefix("."), str(path)) for path in files]
    rows += [("took", clock(found.seconds))]
    rows += [("skipped", line) for line in found.skipped]
    rows += [("not made", line) for line in missing_metrics(found)]
    show_rows(rows)
