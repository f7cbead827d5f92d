"""``personalive evaluate``: scores of the model, and of videos by other methods, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.console import clock, progress, show_rows
from personalive.cli.options import Framing, ModelOptions, OnCluster, SeedOption, StepsOption, with_groups
from personalive.config import default_metrics_folder, expand_user
from personalive.evaluation.config import EvaluationConfig
from personalive.progress import Progress

if TYPE_CHECKING:
    from personalive.cluster.tasks import ClusterOptions
    from personalive.evaluation.results import EvaluateOptions, Evaluation
    from personalive.evaluation.results import Progress as Scored

DEFAULT_DATASET = f"synthetic:{EvaluationConfig.people}"
EPILOG = """
\b
Examples:
  personalive evaluate --output scores --weights tiny
  personalive evaluate synthetic:2 --frames 16 --output quick --weights tiny
  personalive evaluate ~/clips --output scores --weights ~/weights
  personalive evaluate ~/clips --output scores --weights ~/weights --method LivePortrait=~/videos/liveportrait
  personalive evaluate /shared/clips --output scores --weights /shared/weights --cluster 10.0.0.1:6379
  personalive evaluate synthetic:4 --output scores --weights tiny --inputs for-others
  personalive evaluate ~/clips --output scores --no-model --method A=videos_a --method B=videos_b

DATASET is synthetic:16 for sixteen synthetic heads that training never saw, synthetic:100-115 for those numbers, or a
folder of videos. Self: the first frame is the portrait and its own video drives. Cross: another one drives.

Videos of other methods are named after the case: CLIP.mp4 for self, DRIVER_by_PORTRAIT.mp4 for cross; person003.mp4
and driver003_by_person003.mp4 for synthetic heads. One frame per driving frame, showing the same square.

OUTPUT becomes a folder with evaluation.json (exact), evaluation.md (tables) and evaluation.html (with images).
LPIPS, ID-SIM, AED, APD and FVD need files that you download; without them the report says which.
"""


@dataclass(frozen=True, kw_only=True)
class _Cases:
    """Cases to score, and other methods' videos of them."""

    self_: Annotated[bool, typer.Option("--self/--no-self", help="Each portrait driven by its own video.")] = True
    cross: Annotated[bool, typer.Option("--cross/--no-cross", help="Each portrait driven by somebody else.")] = True
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Also score the videos of another method, in DIR; can be repeated.",
            show_default="none",
        ),
    ] = None
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=f"Most frames of each case; the drift metric needs {2 * EvaluationConfig.drift_frames}.",
            show_default=f"{EvaluationConfig.frames} of synthetic heads, all of videos",
        ),
    ] = None
    people: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most cases of each kind, self and cross.", show_default="all"),
    ] = None
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of pairs for cross: lines PORTRAIT,DRIVING of video names without suffixes.",
            show_default="each by the next one",
        ),
    ] = None


@with_groups
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
    cases: _Cases = _Cases(),
    model: Annotated[
        bool,
        typer.Option("--model/--no-model", help="Score the model; without it only the videos given by --method."),
    ] = True,
    network: ModelOptions = ModelOptions(),
    cluster: OnCluster = OnCluster(),
    seed: SeedOption = 0,
    steps: StepsOption = None,
    framing: Annotated[
        Framing,
        typer.Option(
            help="How the square around the head is cut out of videos: 'auto' finds the face; 'center' takes the "
            "middle; 'none' takes square videos as they are, which other methods' videos match best."
        ),
    ] = Framing.AUTO,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="With --no-model: side at which frames are compared.",
            show_default=f"the model's own, else {EvaluationConfig.size_px}",
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write every case's portrait and driving video to this new folder, for other methods.",
            show_default="none",
        ),
    ] = None,
    metric_files: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with the networks of LPIPS, ID-SIM, AED, APD and FVD.",
            show_default="~/.local/share/personalive/metrics",
        ),
    ] = None,
) -> None:
    """Score the model on DATASET, and videos of other methods beside it."""
    methods = [_method(text) for text in cases.method or []]
    if not model and not methods:
        raise typer.BadParameter("--no-model leaves nothing to score: give videos with --method NAME=DIR")
    from personalive.evaluation.datasets import KINDS, check_inputs_folder  # noqa: PLC0415 (imports torch)
    from personalive.evaluation.report import check_report_folder, write_report  # noqa: PLC0415
    from personalive.evaluation.results import EvaluateOptions  # noqa: PLC0415

    check_report_folder(output, overwrite=overwrite)
    if inputs is not None:
        check_inputs_folder(inputs)
    options = EvaluateOptions(
        dataset=dataset,
        kinds=tuple(kind for kind in KINDS if (cases.self_ if kind == "self" else cases.cross)),
        methods=tuple(methods),
        people=cases.people,
        frames=cases.frames,
        pairs=None if cases.pairs is None else str(cases.pairs),
        framing=framing.value,
        center_fallback=model and network.is_tiny,
        size_px=size,
        seed=seed,
        steps=steps,
        metrics_folder=str(metric_files or default_metrics_folder()),
    )
    found = _evaluate(options, network if model else None, cluster.to_options(network.device), inputs)
    _show(found, write_report(found, output, overwrite=overwrite))


def _method(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise typer.BadParameter(f"--method {text}: write NAME=FOLDER")
    return name, str(expand_user(folder))


def _evaluate(
    options: EvaluateOptions, model: ModelOptions | None, cluster: ClusterOptions | None, inputs: Path | None
) -> Evaluation:
    from personalive.evaluation.runner import evaluate as run  # noqa: PLC0415
    from personalive.runtime.load import load_engine  # noqa: PLC0415
    from personalive.runtime.memory import engine_oom_errors  # noqa: PLC0415

    with progress("evaluating") as display:

        def show(now: Scored) -> None:
            display.show(Progress(now.frames, now.total, now.fps))

        if cluster is not None:
            from personalive.cluster.evaluate import evaluate_on_cluster  # noqa: PLC0415

            chosen = None if model is None else (model.weights, model.engine_options())
            return evaluate_on_cluster(options, chosen, cluster, progress=show, inputs=inputs)
        if model is None:
            return run(options, None, progress=show, inputs=inputs)
        engine = load_engine(
            model.weights,
            **model.engine_options(),
            progress=display.loading,
            preparing=display.preparing,
        )
        with engine_oom_errors(engine):
            return run(options, engine, progress=show, inputs=inputs)


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
