"""``personalive benchmark`` as a user runs it."""

from __future__ import annotations

import json

import pytest


def test_a_table_is_printed_and_all_figures_are_written(run, place, small_weights):
    done = run("benchmark", "--weights", small_weights, "--device", "cpu", "--rounds", 1, "--json", "speed.json")
    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0] for line in rows] == [f"| {steps}" for steps in (4, 4, 3, 3, 2, 2, 1, 1)]
    found = json.loads((place / "speed.json").read_text())
    assert (found["backend"], found["environment"]["device"]) == ("eager", "cpu")
    assert [row["keyframes"] for row in found["rows"]] == [0, 3] * 4


def test_the_model_for_photographs_has_one_row(run, place):
    done = run("benchmark", "--weights", "photo", "--rounds", 1)
    assert done.code == 0, done.err
    assert len([line for line in done.out.splitlines() if line.startswith("| - | 0 |")]) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--weights photo --steps 2", "steps 2: this model has no denoising steps"),
        ("--json speed.txt", "speed.txt"),
        ("--json nowhere/speed.json", "nowhere"),
        ("--rounds 0", "--rounds"),
    ],
)
def test_what_cannot_be_measured_ends_in_one_line(run, place, options: str, says: str):
    done = run("benchmark", *options.split())
    assert done.code in (1, 2)
    assert done.err.count("\n") == 1 and says in done.err
    assert not list(place.iterdir())
