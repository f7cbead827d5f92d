"""Write docs/cli.md from the commands' own help texts: ``python scripts/cli_docs.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from personalive.cli.config import CliConfig
from personalive.cli.main import NAME, app

TARGET = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_INTRO = """# Commands

What `--help` prints, written by `scripts/cli_docs.py`; do not edit by hand.
"""


def render() -> str:
    """The whole page, the same on every machine: fixed width, no colours."""
    return "\n".join([_INTRO, *_sections(typer.main.get_command(app), NAME, None)])


def _sections(command: Any, name: str, parent: typer.Context | None) -> Iterator[str]:
    context = typer.Context(command, info_name=name, parent=parent, terminal_width=CliConfig.docs_width, color=False)
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"## {context.command_path}\n\n```text\n{text}\n```\n"
    for inner in getattr(command, "commands", {}):
        yield from _sections(command.commands[inner], inner, context)


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")
