"""docs/cli.md is what ``--help`` prints today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

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
    assert script.render().count("\n## personalive") == 19
