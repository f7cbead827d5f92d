"""Speed of a model: every number of steps, with and without keyframes, and a table to paste."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from personalive.engine.engine import Engine
from personalive.errors import InputError
from personalive.evaluation.benchmark import Memory, Speed, make_inputs, measure_speed, report, table, with_keyframes
from support.small_engine import small_engine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return small_engine()


def test_every_row_is_timed_from_the_same_state_by_turns(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    asked, shares, step = [], [], engine.step

    def watched(state, window, **named):
        asked.append((state.warmup_frames // 4 + 1, state.keyframes, state.call))
        return step(state, window, **named)

    monkeypatch.setattr(engine, "step", watched)
    rows = measure_speed(engine, steps=[2, 1], rounds=2, on_progress=shares.append)
    assert [(row.steps, row.keyframes) for row in rows] == [(2, 0), (2, 3), (1, 0), (1, 3)]
    each = [(2, 0, 1), (2, 3, 10), (1, 0, 1), (1, 3, 10)]
    assert asked == [(2, 0, 0), (1, 0, 0), *each * 4]  # two rounds to warm up
    assert shares == [0.25, 0.5, 0.75, 1.0]
    for row in rows:
        assert row.frames_per_s == pytest.approx(4e3 / row.call_ms, rel=0.01)
        assert row.delay_ms == pytest.approx(row.steps * row.call_ms, rel=0.01)
        assert 0 < row.call_ms <= row.call_p95_ms


def test_keyframes_are_attended_to(engine: Engine):
    inputs = make_inputs(engine.config, 1, seed=0)
    state = engine.start(inputs.portrait, steps=1)
    more = with_keyframes(engine, state, 3)
    assert more.keyframes == 3
    for block, kv in more.reference.kv.items():
        assert kv.key.shape[1] == 4 * state.reference.kv[block].key.shape[1]
    assert more.call == engine.config.keyframes.first_call


def test_steps_that_the_model_lacks_are_refused(engine: Engine):
    with pytest.raises(InputError, match="from 1 to 4"):
        measure_speed(engine, steps=[5], rounds=1)


def test_the_table_says_what_was_measured_on_what(engine: Engine):
    row = Speed(steps=2, keyframes=3, call_ms=125.0, call_p95_ms=150.0, frames_per_s=32.0, delay_ms=250.0)
    photo = dataclasses.replace(row, steps=0, keyframes=0)
    found = report(engine, [row, photo], Memory(engine.device))
    assert found["peak_memory_bytes"] > 1e8
    assert found["environment"]["torch"] == torch.__version__
    heading, _, _, _, first, second = table(found).splitlines()
    assert heading.startswith("small at 64 px on ") and f"torch {torch.__version__}" in heading
    assert first == "| 2 | 3 | 32.0 | 125.0 | 150.0 | 250.0 |"
    assert second.startswith("| - | 0 |")
