"""docs/cli.md is what ``--help`` prints today, and ``--help`` says the same of the same option everywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from personalive.cli.main import app

SCRIPT = Path(__file__).parents[2] / "scripts" / "cli_docs.py"


def test_the_page_is_up_to_date_on_any_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    spec = importlib.util.spec_from_file_location("cli_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.render() == script.TARGET.read_text(encoding="utf-8"), "run python scripts/cli_docs.py"
    assert script.render().count("\n## personalive") == 31


def commands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from commands(inner)


@pytest.mark.parametrize(
    ("option", "count"),
    [
        ("--device", 17),
        ("--vram", 7),
        ("--backend", 7),
        ("--seed", 3),
        ("--steps", 6),
        ("--start", 3),
        ("--end", 3),
        ("--mirror", 4),
        ("--expression", 3),
        ("--mouth", 3),
        ("--eyes", 3),
        ("--head-motion", 3),
        ("--smoothing", 3),
    ],
)
def test_an_option_of_several_commands_reads_the_same_in_all(option: str, count: int):
    every = [one for command in commands(typer.main.get_command(app)) for one in command.params if option in one.opts]
    assert len(every) == count
    assert len({(one.help, one.metavar) for one in every}) == 1
