"""The measures: what they give where the answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from personalive.engine.engine import Engine
from personalive.evaluation import heldout
from personalive.evaluation.heldout import (
    Case,
    correlation,
    l1,
    play,
    readings,
    run_case,
    score,
    sheet,
)
from personalive.synthetic import EXPRESSION_NAMES, Identity, Motion, Performance, render
from personalive.training.presets import HELD_OUT_SEED
from support.small_engine import small_engine
from support.small_model import SMALL_SIZE_PX

FRAMES, SIDE_PX = 8, 128
BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return small_engine()


@pytest.fixture(scope="module")
def case(engine: Engine) -> Case:
    return run_case(engine, 0, FRAMES)


def test_l1_is_the_mean_share_of_full_scale():
    dark, light = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 255, np.uint8)
    half = light.copy()
    half[1] = 0
    assert (l1(dark, light), l1(light, dark), l1(dark, half), l1(half, half)) == (1, 1, 0.5, 0)
    with pytest.raises(ValueError, match="shapes"):
        l1(dark, dark[:1])


def test_correlation_is_pearsons_and_zero_where_nothing_varies():
    values = np.array([0.0, 1.0, 4.0, 2.0])
    assert correlation(values, 3 * values + 1) == pytest.approx(1)
    assert correlation(values, -values) == pytest.approx(-1)
    assert correlation(values, np.full(4, 0.3)) == 0
    assert correlation(np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1])) == pytest.approx(0)


def with_expression(motion: Motion, names: tuple[str, ...], value: float) -> Motion:
    expression = motion.expression.copy()
    expression[[EXPRESSION_NAMES.index(name) for name in names]] = value
    return dataclasses.replace(motion, expression=expression)


@pytest.mark.parametrize("names", [("jawOpen",), BLINKS], ids=["mouth", "eyes"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_readings_of_true_pictures_recover_the_truth(names: tuple[str, ...], index: int):
    """The motion given to the reader lacks the value that it has to find."""
    person, performance = Identity.sample(HELD_OUT_SEED + index), Performance.sample(index)
    values = np.array([0.0, 0.2, 0.45, 0.7, 1.0])
    motions = [with_expression(performance.at(30 * i), names, value) for i, value in enumerate(values)]
    frames = np.stack([render(person, motion, SIDE_PX).image for motion in motions])
    unknown = [with_expression(motion, names, 0.5) for motion in motions]
    film = {"driving": frames, "truth": frames, "output": frames}
    given = Case(person=person, motions=unknown, portrait=frames[0], keyframes=0, **film)
    assert np.abs(readings(given, frames, names) - values).max() < 0.1


def test_a_case_is_of_held_out_people_and_has_as_many_frames_as_asked(engine: Engine, case: Case):
    shape = (FRAMES, SMALL_SIZE_PX, SMALL_SIZE_PX, 3)
    assert case.output.shape == case.truth.shape == case.driving.shape == shape
    assert case.portrait.shape == shape[1:]
    assert len(case.motions) == FRAMES
    assert np.array_equal(case.driving, case.truth)  # the person drives their own picture
    assert heldout.FIRST_SEED >= HELD_OUT_SEED
    cross = run_case(engine, 0, 4, cross=True)
    assert np.array_equal(cross.truth, case.truth[:4])
    assert np.abs(cross.driving.astype(int) - cross.truth).mean() > 5


def test_frames_are_those_of_the_stream_without_its_ease_in(engine: Engine, case: Case):
    made, _ = play(engine, case.portrait, case.driving)
    state = engine.start(case.portrait)
    chunks = []
    for first in range(0, FRAMES, 4):
        state, chunk = engine.step(state, case.driving[first : first + 4])
        chunks.append(chunk.numpy())
    chunks += [chunk.numpy() for chunk in engine.flush(state)]
    assert np.array_equal(made, np.concatenate(chunks)[12:])


def test_scores_of_the_truth_itself_are_perfect(engine: Engine, case: Case):
    perfect = score(engine, [dataclasses.replace(case, output=case.truth)])
    assert perfect.l1 == 0
    assert perfect.gain == 1
    assert perfect.copy_l1 > 0.001
    np.testing.assert_equal(  # not a number where a figure does not apply
        (perfect.yaw, perfect.mouth, perfect.blink),
        (perfect.yaw_of_truth, perfect.mouth_of_truth, perfect.blink_of_truth),
    )


def test_what_never_moves_has_no_say(engine: Engine, case: Case):
    talking = [with_expression(m, ("jawOpen",), 0.1 * i) for i, m in enumerate(case.motions)]
    silent = [with_expression(m, ("jawOpen",), 0.2) for m in case.motions]
    frames = np.stack([render(case.person, m, SMALL_SIZE_PX).image for m in talking])
    speaks = dataclasses.replace(case, motions=talking, truth=frames, output=frames)
    is_silent = dataclasses.replace(case, motions=silent)
    assert score(engine, [speaks, is_silent]).mouth == score(engine, [speaks]).mouth > 0.9
    assert np.isnan(score(engine, [is_silent]).mouth)


def test_scores_of_a_still_picture_are_those_of_copying(engine: Engine, case: Case):
    still = np.broadcast_to(case.portrait, case.truth.shape).copy()
    scores = score(engine, [dataclasses.replace(case, output=still)])
    assert scores.l1 == scores.copy_l1
    assert scores.gain == pytest.approx(0)
    assert scores.yaw == 0


def test_scores_are_means_over_cases(engine: Engine, case: Case):
    perfect, own = dataclasses.replace(case, output=case.truth), case
    both, one = score(engine, [perfect, own]), score(engine, [own])
    assert both.l1 == pytest.approx(one.l1 / 2)
    assert all(np.isfinite(getattr(both, name)) for name in ("gain", "yaw", "pitch", "yaw_of_truth"))


def test_a_sheet_has_three_rows_per_case_and_the_portrait_in_front(case: Case):
    page = sheet([case, case], columns=3)
    assert page.shape == (6 * SMALL_SIZE_PX, 4 * SMALL_SIZE_PX, 3)
    s = SMALL_SIZE_PX
    for row, frames in enumerate((case.driving, case.truth, case.output)):
        assert np.array_equal(page[row * s : (row + 1) * s, :s], case.portrait)
        assert np.array_equal(page[row * s : (row + 1) * s, s : 2 * s], frames[0])
        assert np.array_equal(page[row * s : (row + 1) * s, -s:], frames[-1])
