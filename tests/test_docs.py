"""README and docs against the code: links, commands, tables, quoted errors and examples."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import personalive
from personalive.checkpoints.layout import CONFIGS, PARTS
from personalive.cli.main import NAME, app
from personalive.config import FACE_DETECTOR, ModelConfig
from personalive.engine.backend import Backend, NetworkCall
from personalive.engine.engine import Engine
from personalive.engine.state import Conditioning, DenoisedChunk, Motion, Reference, StreamState
from personalive.models.networks import Networks
from personalive.training.overrides import resolve
from personalive.training.presets import PRESETS, STAGES
from personalive.training.shapes import TINY

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN_BY_HAND = [page for page in PAGES if page.name != "cli.md"]
FORBIDDEN = re.compile(r"(?<![\w.~])/(work|root|home|Users|tmp|opt)/|[A-Z]:\\")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAX_IMAGE_BYTES = 1_000_000

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_written_page = pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=lambda page: page.name)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    """Contents of the fenced blocks in one of ``languages``."""
    return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", page, re.M | re.S) if kind in languages]


def rows(page: str) -> Iterator[list[str]]:
    """Cells of every table row, code marks removed."""
    for line in page.splitlines():
        if line.strip().startswith("|"):
            yield [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- links and words ----------------------------------------------------------------------------------------


@each_page
def test_links_lead_somewhere(page: Path):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_lists_every_page():
    linked = {(ROOT / "docs" / link).resolve() for link in LINK.findall(text("docs/index.md"))}
    assert {page.resolve() for page in PAGES} - linked == {ROOT / "docs" / "index.md"}


@each_page
def test_no_page_names_a_place_on_one_machine(page: Path):
    assert not FORBIDDEN.search(page.read_text(encoding="utf-8").replace("/path/to/", ""))


def test_forbidden_places_are_recognised():
    assert all(FORBIDDEN.search(f"see {place}") for place in ("/root/x", "/home/me/x", "C:\\x", "`/tmp/y`"))
    assert not FORBIDDEN.search("~/weights and docs/work/x and .venv\\Scripts\\pip")


@pytest.mark.parametrize("image", sorted((ROOT / "docs" / "images").iterdir()), ids=lambda path: path.name)
def test_images_are_small_and_used(image: Path):
    assert image.stat().st_size < MAX_IMAGE_BYTES
    assert any(f"images/{image.name}" in page.read_text(encoding="utf-8") for page in PAGES)


# --- commands -----------------------------------------------------------------------------------------------


def command_lines(page: str) -> Iterator[str]:
    """Every command of ours in shell blocks and in code within sentences."""
    shells = [line.partition(" #")[0] for block in blocks(page, "sh", "powershell") for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S))
    for line in (*shells, *spans):
        if match := re.match(rf"(?:\S*[/\\])?{NAME}(?= [\w-])", line.strip()):
            yield line.strip()[match.end() :]


def unknown_words(line: str) -> list[str]:
    """Commands and options in a line that the command line does not have."""
    command: Any = typer.main.get_command(app)
    unknown = []
    for word in shlex.split(line):
        if word in ("...", "--help"):
            continue
        if word.startswith("-"):
            known = [name for option in command.params for name in (*option.opts, *option.secondary_opts)]
            unknown += [] if word.partition("=")[0] in known else [word]
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return [*unknown, word]
            command = command.commands[word]
    return unknown


@each_written_page
def test_commands_and_options_exist(page: Path):
    for line in command_lines(page.read_text(encoding="utf-8")):
        assert not unknown_words(line), line


def test_options_named_in_sentences_exist():
    command: Any = typer.main.get_command(app)
    groups = [command.commands[name].commands.values() for name in ("weights", "motion", "train")]
    every = [command, *command.commands.values(), *(one for group in groups for one in group)]
    known = {name for one in every for option in one.params for name in (*option.opts, *option.secondary_opts)}
    for name in ("README.md", "docs/streaming.md", "docs/checkpoints.md"):
        for option in re.findall(r"`(--[a-z-]+)", text(name)):
            assert option in known, f"{name}: {option}"


def test_wrong_commands_are_noticed():
    assert list(command_lines("run `personalive fly --high` now")) == [" fly --high"]
    assert unknown_words(" fly --high") == ["fly"]
    assert unknown_words(" animate a.png b.mp4 --high") == ["--high"]
    assert not unknown_words(" weights convert a b --dtype float16")


def test_readme_has_both_make_commands_and_make_has_them():
    targets = set(re.findall(r"^(\w+):", text("Makefile"), re.M))
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "sh"):
            assert set(re.findall(r"^make (\w+)", block, re.M)) <= targets, page.name
    assert {"make demo", "make test"} <= set(re.findall(r"^make \w+", text("README.md"), re.M))


def test_quoted_errors_are_those_of_the_code():
    source = text("Makefile") + "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    _, _, table = text("README.md").partition("## When something goes wrong")
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    assert len(quoted) == 8
    for line in quoted:
        assert line in source, line


# --- tables -------------------------------------------------------------------------------------------------


def dependency_names(group: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", line)[0] for line in group}  # pyright: ignore[reportOptionalSubscript]


def test_every_dependency_has_a_reason_and_a_licence():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    runtime = dependency_names(project["dependencies"])
    development = {n for group in project["optional-dependencies"].values() for n in dependency_names(group)}
    reasons = {cells[0]: cells[1] for cells in rows(text("docs/decisions.md")) if len(cells) == 2}
    explained = {name for name, reason in reasons.items() if len(reason) > 10}
    assert runtime | development <= explained
    assert explained <= runtime | development  # and none is explained that is gone
    licences = text("docs/licences.md")
    assert runtime <= {cells[0] for cells in rows(licences)}
    assert all(name in licences for name in development)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def test_config_table_is_that_of_the_code():
    released, tiny = (flat(config.to_json()) for config in (ModelConfig(), TINY.model))
    table = {cells[0]: cells[1:3] for cells in rows(text("docs/checkpoints.md")) if cells[0] in released}
    assert table == {key: [shown(released[key]), shown(tiny[key])] for key in released}


def test_layout_names_every_file():
    _, _, layout = text("docs/checkpoints.md").partition("## Layout")
    layout = blocks(layout, "text")[0]
    for name in (*CONFIGS, FACE_DETECTOR, *(file.stem for files in PARTS.values() for file in files)):
        folder, _, file = name.partition("/")
        assert f"{folder}/" in layout
        assert file in layout


def test_training_table_is_that_of_the_code():
    stages, _, _ = text("docs/training.md").partition("### As in use")
    table = {cells[0]: cells[-2:] for cells in rows(stages) if cells[0] in STAGES}
    assert list(table) == list(STAGES)
    for stage, steps in table.items():
        stated = [n.replace(",", "") for n in steps]
        assert stated == [_steps("full", stage), _steps("tiny", stage)]


def _steps(preset: str, stage: str) -> str:
    """Steps of a stage that the preset has; a hyphen for the others."""
    return str(resolve(stage, preset).steps) if stage in PRESETS[preset].stages else "-"


def test_folders_named_in_the_architecture_are_those_of_the_package():
    package = ROOT / "src" / "personalive"
    named = {cells[0].rstrip("/") for cells in rows(text("docs/architecture.md")) if cells[0].endswith("/")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders | {"assets"} == named


def test_a_frame_crosses_at_most_25_files():
    _, _, section = text("docs/architecture.md").partition("## A frame's path, file by file")
    files = re.findall(r"`([\w/]+\.py)`", section.partition("That is")[0])
    assert 20 < len(files) == len(set(files)) <= 25
    assert all((ROOT / "src" / "personalive" / file).is_file() for file in files)


# --- Python examples ----------------------------------------------------------------------------------------


def test_the_readme_makes_a_video_with_options_that_exist(monkeypatch: pytest.MonkeyPatch):
    example, _ = blocks(text("README.md"), "python")
    signature, made = inspect.signature(personalive.animate), []

    def animate(*arguments: Any, **named: Any) -> None:
        bound = signature.bind(*arguments, **named).arguments
        personalive.AnimateOptions(**bound.get("options", {}))
        made.append(bound["output"])

    monkeypatch.setattr(personalive, "animate", animate, raising=False)
    monkeypatch.setattr(personalive, "load_engine", lambda: None, raising=False)
    exec(compile(example, "README.md", "exec"), {})
    assert made == ["video.mp4"]


class RecordedEngine:
    """Stands in for an engine, with its very signatures."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        signature = inspect.signature(getattr(Engine, name))
        results = {"start": "state", "step": ("state", torch.zeros(4)), "flush": [torch.zeros(4)] * 3}

        def call(*arguments: Any, **named: Any) -> Any:
            signature.bind(self, *arguments, **named)
            self.calls.append(name)
            return results[name]

        return call


def test_the_readme_streams_with_calls_that_exist():
    _, example = blocks(text("README.md"), "python")
    engine = RecordedEngine()
    windows = [np.zeros((4, 8, 8, 3), np.uint8)] * 2
    exec(compile(example, "README.md", "exec"), {"engine": engine, "portrait": windows[0][0], "windows": windows})
    assert engine.calls == ["start", "step", "step", "flush"]


def test_the_python_page_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: Engine):
    """Its examples run as they stand, by a small engine."""
    monkeypatch.setattr(personalive, "load_engine", lambda _: engine, raising=False)
    _, whole, by_hand = blocks(text("docs/python.md"), "python")
    exec(compile(whole + by_hand, "docs/python.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["torch.Size([4, 64, 64, 3])"] * 7  # four windows; three in flight


def test_the_python_page_names_what_is_public():
    named = set(re.findall(r"`(\w+)[`(]", text("docs/python.md")))
    assert set(personalive.__all__) - {"__version__"} <= named
    signature = inspect.signature(Engine.stream).parameters
    told = {"seed", "keyframe_threshold", "steps", "controls", "on_step"}
    assert set(signature) - {"self", "portrait", "windows"} == told


@each_written_page
def test_python_examples_parse(page: Path):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        ast.parse(block)


def test_types_in_the_middle_are_described_by_their_names():
    _, _, section = text("docs/architecture.md").partition("## The types in the middle")
    described = {cells[0] for cells in rows(section.partition("\n## ")[0])} - {"type", "---"}
    kinds = (Networks, NetworkCall, Reference, StreamState, Motion, Conditioning, DenoisedChunk, Backend, Engine)
    assert described == {kind.__name__ for kind in kinds}
    for method in re.findall(r"engine\.(\w+)", section):
        assert hasattr(Engine, method)
