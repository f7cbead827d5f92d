"""The report as one page that needs nothing else: tables, pictures as JPEG inside, light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape

from PIL import Image

from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.contenders import COPY, TRUTH
from personalive.evaluation.figures import INFINITE, NONE
from personalive.evaluation.strips import Strip
from personalive.vision.resize import ImageArray

_CONFIG = EvaluationConfig()
Table = tuple[list[str], list[list[str]]]

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c1e21; --soft: #5d636b; --line: #d8dce1; --best: #e4f3e6; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --text: #e6e8ea; --soft: #9aa1a9; --line: #343a41; --best: #21402a; }
}
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6em; margin: 0 0 .4em; } h2 { font-size: 1.25em; margin: 1.8em 0 .5em; }
h3 { font-size: 1em; margin: 1.4em 0 .4em; }
p, li { color: var(--soft); margin: .2em 0; } ul { padding-left: 1.2em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; } td.best { background: var(--best); }
.aside table { color: var(--soft); font-size: .92em; } .aside { margin-top: 1em; }
.case { display: grid; grid-template-columns: max-content 1fr; gap: 4px 12px; align-items: center; }
.case span { color: var(--soft); font-size: .9em; text-align: right; max-width: 11em; }
.case img { display: block; max-width: 100%; height: auto; border-radius: 3px; }
"""
_YARDSTICKS = (COPY, TRUTH)


def render_html(
    *,
    facts: Sequence[str],
    tables: Sequence[tuple[str, Table, Table]],
    published_note: str,
    speed: Table | None,
    legend: Sequence[tuple[str, str]],
    remarks: Sequence[tuple[str, list[str]]],
    strips: Sequence[Strip],
) -> str:
    """The whole page; every text is escaped."""
    parts = ["<h1>Evaluation</h1>", *(f"<p>{escape(fact)}</p>" for fact in facts)]
    for title, results, paper in tables:
        parts += [f"<h2>{escape(title)}</h2>", *_table(results, mark=True)]
        parts += ['<div class="aside">', f"<p>{escape(published_note)}</p>", *_table(paper), "</div>"]
    if speed is not None:
        parts += ["<h2>Speed</h2>", *_table(speed)]
    if strips:
        parts += ["<h2>Pictures</h2>", *(line for strip in strips for line in _strip(strip))]
    parts += ["<h2>What the figures say</h2>", *_list(f"{label}: {about}" for label, about in legend)]
    for title, entries in remarks:
        parts += [f"<h2>{escape(title)}</h2>", *_list(entries)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>PersonaLive evaluation</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _table(table: Table, *, mark: bool = False) -> Iterator[str]:
    headings, lines = table
    best = _best(table) if mark else set()
    yield '<div class="wide"><table>'
    yield "<tr>" + "".join(f"<th>{escape(heading)}</th>" for heading in headings) + "</tr>"
    for row, cells in enumerate(lines):
        marked = (
            f'<td class="best">{escape(c)}</td>' if (row, i) in best else f"<td>{escape(c)}</td>"
            for i, c in enumerate(cells)
        )
        yield "<tr>" + "".join(marked) + "</tr>"
    yield "</table></div>"


def _best(table: Table) -> set[tuple[int, int]]:
    """Cells of the best contender per figure, where there are several; yardsticks do not compete."""
    headings, lines = table
    rivals = [row for row, cells in enumerate(lines) if cells[0] not in _YARDSTICKS]
    found = set()
    for column, heading in enumerate(headings):
        values = {
            row: float(lines[row][column])
            for row in rivals
            if heading[-1] in "↓↑" and lines[row][column] not in (NONE, INFINITE)
        }
        if len(values) > 1:
            wanted = min(values.values()) if heading.endswith("↓") else max(values.values())
            found |= {(row, column) for row, value in values.items() if value == wanted}
    return found


def _list(entries: Iterator[str] | Sequence[str]) -> list[str]:
    return ["<ul>", *(f"<li>{escape(entry)}</li>" for entry in entries), "</ul>"]


def _strip(strip: Strip) -> Iterator[str]:
    yield f"<h3>{escape(strip.case)} ({strip.kind})</h3>"
    yield '<div class="case">'
    if strip.portrait is not None:
        yield f"<span>portrait</span>{_image(strip.portrait, f'portrait of {strip.case}')}"
    for name, page in strip.pages().items():
        yield f"<span>{escape(name)}</span>{_image(page, f'{name}: moments of {strip.case}')}"
    yield "</div>"


def _image(picture: ImageArray, alt: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=_CONFIG.jpeg_quality)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = picture.shape[:2]
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'
