"""Our engine and other methods' films: the right picture for every driving frame, and honest times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.evaluation.contenders import COPY, TRUTH, CallTimes, FilmFolder, OurEngine, Yardstick, reenact, speed
from personalive.evaluation.datasets import Case, Moment


def as_moments(pictures: np.ndarray) -> Iterator[Moment]:
    return (Moment(picture, picture) for picture in pictures)


def case_of(pictures: np.ndarray, name: str = "clip") -> Case:
    return Case(name, "self", lambda: pictures[0], lambda: as_moments(pictures), len(pictures), truth_id=name)


def stepped_by_hand(engine, portrait: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """The engine called window by window; ``pictures`` fill whole windows."""
    state, chunks = engine.start(portrait), []
    for first in range(0, len(pictures), 4):
        state, chunk = engine.step(state, pictures[first : first + 4])
        chunks.append(chunk.numpy())
    return np.concatenate([*chunks, *(chunk.numpy() for chunk in engine.flush(state))])[12:]


@pytest.mark.parametrize("count", [1, 4, 6, 21])
def test_every_driving_frame_gets_the_stream_s_picture_of_it(small_engine, moving, count):
    pictures = moving(count)
    padded = np.concatenate([pictures, np.repeat(pictures[-1:], -count % 4, axis=0)])
    expected = stepped_by_hand(small_engine, pictures[0], padded)
    played = list(reenact(small_engine, pictures[0], as_moments(pictures)))
    assert len(played) == count
    for index, (moment, output) in enumerate(played):
        assert moment.driver is pictures[index] or np.array_equal(moment.driver, pictures[index])
        assert np.array_equal(output, expected[index])


def test_no_more_is_held_than_is_in_flight(small_engine, moving):
    pictures, read = moving(40), 0

    def counted() -> Iterator[Moment]:
        nonlocal read
        for moment in as_moments(pictures):
            read += 1
            yield moment

    for done, _ in enumerate(reenact(small_engine, pictures[0], counted())):
        assert read - done <= 16


def test_a_new_shot_reaches_the_engine(small_engine, moving):
    pictures = np.concatenate([moving(6, 1), moving(6, 2)])
    plain = [output for _, output in reenact(small_engine, pictures[0], as_moments(pictures))]
    cut = (Moment(picture, cut=index == 6) for index, picture in enumerate(pictures))
    moved = [output for _, output in reenact(small_engine, pictures[0], cut)]
    differs = [not np.array_equal(one, other) for one, other in zip(plain, moved, strict=True)]
    assert any(differs[6:])


def test_speed_of_known_times():
    """Calls of 1, 1, 2, 2, 4, 4 s; two are warm-up, and a picture leaves three calls after its frames came."""
    times = CallTimes()
    for seconds in (1, 1, 2, 2, 4, 4):
        times.add(seconds)
    found = speed([times], chunk_frames=4, warmup_frames=12, warmup_calls=2)
    assert found["fps"] == pytest.approx(16 / 12)
    assert found["chunk_ms"] == pytest.approx(10_000 / 3)
    assert found["photon_ms"] == pytest.approx(12_000)  # entered at 2 s, left at 14 s
    assert speed([CallTimes()], 4, 12, 2) == {}


def test_the_engine_is_timed_while_it_works_and_not_while_pictures_are_scored(small_engine, moving):
    ours = OurEngine(small_engine, seed=0, warmup_calls=1)
    assert ours.figures() == {}
    assert len(list(ours.play(case_of(moving(24))))) == 24
    figures = ours.figures()
    assert set(figures) == {"fps", "chunk_ms", "photon_ms", "photon_p95_ms"}
    assert figures["fps"] > 0
    assert figures["photon_ms"] > figures["chunk_ms"]


def test_yardsticks_copy_the_portrait_and_show_the_truth(moving):
    case = case_of(moving(5))
    assert all(np.array_equal(output, moving(5)[0]) for _, output in Yardstick(COPY).play(case))
    assert all(np.array_equal(output, moment.truth) for moment, output in Yardstick(TRUTH).play(case))
    without = Case("a", "cross", case.portrait, case.moments)
    assert Yardstick(COPY).has(case)
    assert not Yardstick(COPY).has(without)


def test_films_are_found_by_name_and_brought_to_size(tmp_path: Path, write_film, moving):
    write_film(tmp_path / "clip.mp4", moving(5, side=128))
    films = FilmFolder("theirs", tmp_path, 64)
    assert films.has(case_of(moving(5)))
    assert not films.has(case_of(moving(5), "other"))
    played = list(films.play(case_of(moving(5))))
    assert len(played) == 5
    for index, (_, output) in enumerate(played):
        assert output.shape == (64, 64, 3)
        assert np.abs(output.astype(int) - moving(5)[index]).mean() < 3  # the same waves at twice the size
    assert films.notes == []
    assert films.figures() == {}


@pytest.mark.parametrize(
    ("frames", "played", "said"), [(3, 3, "has 3 frames, fewer"), (8, 5, "more than the 5 frames")]
)
def test_films_of_another_length_are_compared_as_far_as_both_go(tmp_path, write_film, moving, frames, played, said):
    write_film(tmp_path / "clip.mp4", moving(frames))
    films = FilmFolder("theirs", tmp_path, 64)
    assert len(list(films.play(case_of(moving(5))))) == played
    (note,) = films.notes
    assert said in note


def test_films_that_are_not_square_are_refused(tmp_path: Path, write_film, moving):
    write_film(tmp_path / "clip.mp4", moving(3)[:, :48])
    with pytest.raises(InputError, match="is 64x48, not square"):
        list(FilmFolder("theirs", tmp_path, 64).play(case_of(moving(3))))
