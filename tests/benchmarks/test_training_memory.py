"""Memory of training: the table of docs/training.md is what the script computes."""

from __future__ import annotations

from pathlib import Path

import pytest

import training_memory
from personalive.training.presets import PAPER_STAGES

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.mark.full
def test_the_documented_memory_is_what_is_computed():
    networks = training_memory.full_networks()
    computed = {stage: training_memory.stage_memory(networks, stage) for stage in PAPER_STAGES}
    table = DOCS.read_text(encoding="utf-8").partition("computed and not measured")[2]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    documented = {cells[0]: cells[1:] for cells in lines if cells[0] in PAPER_STAGES}
    assert documented == {stage: [f"{value:.1f}" for value in row.values()] for stage, row in computed.items()}


def test_the_optimisers_state_alone_is_shared():
    row = {"weights": 1.0, "gradients": 2.0, "optimiser": 8.0, "activations": 3.0, "on 1": 14.0, "on 2": 10.0}
    row |= {"on 8": 7.0}
    assert training_memory.table({"motion": row}).splitlines()[-1].endswith("| 1: 24 GB; 2: 24 GB; 8: 24 GB |")
