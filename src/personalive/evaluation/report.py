"""The report: evaluation.json (exact), evaluation.md (tables), evaluation.html (tables and frames), in one folder.

The folder appears whole or not at all.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader
from PIL import Image

from personalive.errors import OutputError
from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.methods import COPY, TRUTH
from personalive.evaluation.metrics.catalog import INFINITE, METRICS, NO_VALUE, SPEED, format_value
from personalive.evaluation.published import published
from personalive.evaluation.results import Evaluation
from personalive.media.paths import reason, temporary_beside
from personalive.vision.resize import ImageArray

JSON, MARKDOWN, HTML = "evaluation.json", "evaluation.md", "evaluation.html"
PUBLISHED_NOTE = (
    "Published figures (PersonaLive, CVPR 2026): TalkingHead-1KH and LV100 at 512 px, speed on one H100. "
    "Other data and other hardware than above: for orientation, not for comparison."
)
TITLES = {"self": "Self-reenactment", "cross": "Cross-reenactment"}


def check_report_folder(folder: Path, *, overwrite: bool) -> Path:
    """Check that a report can be written to this folder; creates nothing.

    Returns:
        Its absolute path.

    Raises:
        OutputError: it is there already (unless it is a report and ``overwrite``), or cannot be made there.
    """
    target = folder.absolute()
    if not target.parent.is_dir():
        raise OutputError(f"{folder}: the folder {target.parent} does not exist: create it or choose another")
    if not target.exists():
        return target
    if not target.is_dir():
        raise OutputError(f"{folder}: is a file: choose another --output")
    names = {path.name for path in target.iterdir()}
    if not names:
        return target
    if not names <= {JSON, MARKDOWN, HTML}:
        raise OutputError(f"{folder}: holds other things than a report: choose another --output")
    if not overwrite:
        raise OutputError(f"{folder}: holds a report already: use --overwrite, or choose another --output")
    return target


def write_report(evaluation: Evaluation, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the three files of a report, which appear together.

    Returns:
        The files: JSON, Markdown, HTML.

    Raises:
        OutputError: as ``check_report_folder``, or the disk is full.
    """
    target = check_report_folder(folder, overwrite=overwrite)
    fresh, old = temporary_beside(target), temporary_beside(target)
    contents = {JSON: to_json(evaluation), MARKDOWN: to_markdown(evaluation), HTML: to_html(evaluation)}
    try:
        fresh.mkdir()
        for name, content in contents.items():
            (fresh / name).write_text(content, encoding="utf-8")
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        raise OutputError(
            f"{folder}: the report could not be written ({reason(error)}): choose another --output"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return [target / name for name in contents]


def to_json(evaluation: Evaluation) -> str:
    """Exact values, all options, and the reasons for missing metrics."""
    record = {
        "what": "personalive evaluate",
        "options": evaluation.options,
        "model": evaluation.model,
        "versions": evaluation.versions,
        "metrics": {name: asdict(info) for name, info in METRICS.items()},
        "results": [asdict(row) for row in evaluation.rows],
        "missing": evaluation.missing,
        "pretrained": evaluation.files,
        "skipped": evaluation.skipped,
        "notes": evaluation.notes,
        "published": {"note": PUBLISHED_NOTE, **{kind: published(kind) for kind in TITLES}},
        "seconds": round(evaluation.seconds, 2),
    }
    return json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """JSON has no infinity and no not-a-number: as text they stay readable, for ``float`` too."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- content ------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """Cells as text."""

    headings: list[str]
    rows: list[list[str]]


def tables(evaluation: Evaluation) -> Iterator[tuple[str, Table, Table]]:
    """For each kind its title, the table of results, and that of published figures."""
    for kind, title in TITLES.items():
        rows = {row.method: row.metrics for row in evaluation.rows if row.kind == kind}
        if rows:
            counts = {row.method: len(row.cases) for row in evaluation.rows if row.kind == kind}
            yield title, _table(rows, counts), _table(published(kind), None)


def _table(rows: dict[str, dict[str, float]], counts: dict[str, int] | None) -> Table:
    names = [name for name in METRICS if any(name in values for values in rows.values())]
    names = [name for name in names if counts is None or name not in SPEED]
    headings = ["method", *([] if counts is None else ["cases"]), *(METRICS[name].heading for name in names)]
    lines = []
    for method, values in rows.items():
        count = [] if counts is None else [str(counts[method])]
        lines.append([method, *count, *(format_value(name, values.get(name)) for name in names)])
    return Table(headings, lines)


def speed_table(evaluation: Evaluation) -> Table | None:
    """Speed of each kind; None where nothing was timed."""
    timed = [row for row in evaluation.rows if any(name in row.metrics for name in SPEED)]
    if not timed:
        return None
    lines = [[TITLES[row.kind], *(format_value(name, row.metrics.get(name)) for name in SPEED)] for row in timed]
    return Table(["run", *(METRICS[name].heading for name in SPEED)], lines)


def facts(evaluation: Evaluation) -> list[str]:
    """Dataset, model and versions, in short sentences."""
    options, model = evaluation.options, evaluation.model
    found = [f"Dataset: {options['dataset']}, images compared at {options['size_px']} px, seed {options['seed']}."]
    if model:
        found.append(f"Model: {model['weights']} on {model['device']} in {model['dtype']} by {model['backend']}.")
    versions = ", ".join(f"{name} {number}" for name, number in evaluation.versions.items())
    return [*found, f"Versions: {versions}."]


def missing_metrics(evaluation: Evaluation) -> list[str]:
    """Reasons why metrics are missing, those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for name, why in evaluation.missing.items():
        reasons.setdefault(why, []).append(METRICS[name].label)
    return [f"{', '.join(labels)}: {why}" for why, labels in reasons.items()]


def _lists(evaluation: Evaluation) -> list[tuple[str, list[str]]]:
    there = {name for row in evaluation.rows for name in row.metrics}
    lists = [
        ("Metrics", [f"{info.label}: {info.about}" for name, info in METRICS.items() if name in there]),
        ("Missing metrics", missing_metrics(evaluation)),
        (
            "Pretrained networks used",
            [f"{f['file']}: SHA-256 {f['sha256']} ({f['check']}); licence: {f['licence']}" for f in evaluation.files],
        ),
        ("Skipped", evaluation.skipped),
        ("Notes", evaluation.notes),
    ]
    return [(title, entries) for title, entries in lists if entries]


# --- Markdown and HTML --------------------------------------------------------------------------------------


def to_markdown(evaluation: Evaluation) -> str:
    """The tables as GitHub shows them."""
    lines = ["# Evaluation", "", *(f"- {fact}" for fact in facts(evaluation))]
    for title, results, paper in tables(evaluation):
        lines += ["", f"## {title}", "", *_markdown(results)]
        lines += ["", PUBLISHED_NOTE, "", *_markdown(paper)]
    speed = speed_table(evaluation)
    if speed is not None:
        lines += ["", "## Speed", "", *_markdown(speed)]
    for title, entries in _lists(evaluation):
        lines += ["", f"## {title}", "", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"


def _markdown(table: Table) -> list[str]:
    rows = [table.headings, ["---"] * len(table.headings), *table.rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def to_html(evaluation: Evaluation) -> str:
    """One page that needs nothing else: images as JPEG inside, light and dark."""
    environment = Environment(
        loader=PackageLoader("personalive.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_url"] = _data_url
    return environment.get_template("report.html.j2").render(
        facts=facts(evaluation),
        tables=tables(evaluation),
        best_cells=_best_cells,
        published_note=PUBLISHED_NOTE,
        speed=speed_table(evaluation),
        lists=_lists(evaluation),
        previews=evaluation.previews,
    )


def _best_cells(table: Table) -> set[tuple[int, int]]:
    """Cells of the best method per metric, where there are several; baselines do not compete."""
    rivals = [row for row, cells in enumerate(table.rows) if cells[0] not in (COPY, TRUTH)]
    best = set()
    for column, heading in enumerate(table.headings):
        values = {
            row: float(table.rows[row][column])
            for row in rivals
            if heading[-1] in "↓↑" and table.rows[row][column] not in (NO_VALUE, INFINITE)
        }
        if len(values) > 1:
            target = min(values.values()) if heading.endswith("↓") else max(values.values())
            best |= {(row, column) for row, value in values.items() if value == target}
    return best


def _data_url(image: ImageArray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=EvaluationConfig.jpeg_quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
