"""Our engine and other methods' videos: the right image for every driving frame, and honest times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.evaluation.datasets import Case, Sample
from personalive.evaluation.methods import (
    COPY,
    TRUTH,
    Baseline,
    CallTimes,
    EngineMethod,
    VideoMethod,
    reenact,
    speed,
)


def as_samples(images: np.ndarray) -> Iterator[Sample]:
    return (Sample(image, image) for image in images)


def case_of(images: np.ndarray, name: str = "clip") -> Case:
    return Case(name, "self", lambda: images[0], lambda: as_samples(images), len(images), truth_id=name)


def stepped_by_hand(engine, portrait: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The engine called window by window; ``images`` fill whole windows."""
    state, chunks = engine.start(portrait), []
    for first in range(0, len(images), 4):
        state, chunk = engine.step(state, images[first : first + 4])
        chunks.append(chunk.numpy())
    return np.concatenate([*chunks, *(chunk.numpy() for chunk in engine.flush(state))])[12:]


@pytest.mark.parametrize("count", [1, 4, 6, 21])
def test_every_driving_frame_gets_the_stream_s_image_of_it(small_engine, moving, count):
    images = moving(count)
    padded = np.concatenate([images, np.repeat(images[-1:], -count % 4, axis=0)])
    expected = stepped_by_hand(small_engine, images[0], padded)
    played = list(reenact(small_engine, images[0], as_samples(images)))
    assert len(played) == count
    for index, (sample, output) in enumerate(played):
        assert sample.driver is images[index] or np.array_equal(sample.driver, images[index])
        assert np.array_equal(output, expected[index])


def test_no_more_is_held_than_is_in_flight(small_engine, moving):
    images, read = moving(40), 0

    def counted() -> Iterator[Sample]:
        nonlocal read
        for sample in as_samples(images):
            read += 1
            yield sample

    for done, _ in enumerate(reenact(small_engine, images[0], counted())):
        assert read - done <= 16


def test_a_new_shot_reaches_the_engine(small_engine, moving):
    images = np.concatenate([moving(6, 1), moving(6, 2)])
    plain = [output for _, output in reenact(small_engine, images[0], as_samples(images))]
    cut = (Sample(image, cut=index == 6) for index, image in enumerate(images))
    moved = [output for _, output in reenact(small_engine, images[0], cut)]
    differs = [not np.array_equal(one, other) for one, other in zip(plain, moved, strict=True)]
    assert any(differs[6:])


def test_speed_of_known_times():
    """Calls of 1, 1, 2, 2, 4, 4 s; two are warm-up, and an image leaves three calls after its frames came."""
    times = CallTimes()
    for seconds in (1, 1, 2, 2, 4, 4):
        times.add(seconds)
    found = speed([times], chunk_frames=4, warmup_frames=12, warmup_calls=2)
    assert found["fps"] == pytest.approx(16 / 12)
    assert found["chunk_ms"] == pytest.approx(10_000 / 3)
    assert found["photon_ms"] == pytest.approx(12_000)  # entered at 2 s, left at 14 s
    assert speed([CallTimes()], 4, 12, 2) == {}


def test_the_engine_is_timed_while_it_works_and_not_while_images_are_scored(small_engine, moving):
    ours = EngineMethod(small_engine, warmup_calls=1)
    assert ours.speed() == {}
    assert len(list(ours.reenact(case_of(moving(24))))) == 24
    figures = ours.speed()
    assert set(figures) == {"fps", "chunk_ms", "photon_ms", "photon_p95_ms"}
    assert figures["fps"] > 0
    assert figures["photon_ms"] > figures["chunk_ms"]


def test_baselines_copy_the_portrait_and_show_the_truth(moving):
    case = case_of(moving(5))
    assert all(np.array_equal(output, moving(5)[0]) for _, output in Baseline(COPY).reenact(case))
    assert all(np.array_equal(output, sample.truth) for sample, output in Baseline(TRUTH).reenact(case))
    without = Case("a", "cross", case.portrait, case.samples)
    assert Baseline(COPY).covers(case)
    assert not Baseline(COPY).covers(without)


def test_videos_are_found_by_name_and_brought_to_size(tmp_path: Path, write_video, moving):
    write_video(tmp_path / "clip.mp4", moving(5, side=128))
    videos = VideoMethod("theirs", tmp_path, 64)
    assert videos.covers(case_of(moving(5)))
    assert not videos.covers(case_of(moving(5), "other"))
    played = list(videos.reenact(case_of(moving(5))))
    assert len(played) == 5
    for index, (_, output) in enumerate(played):
        assert output.shape == (64, 64, 3)
        assert np.abs(output.astype(int) - moving(5)[index]).mean() < 3  # the same waves at twice the size
    assert videos.notes == []
    assert videos.speed() == {}


@pytest.mark.parametrize(
    ("frames", "played", "said"), [(3, 3, "has 3 frames, fewer"), (8, 5, "more than the 5 frames")]
)
def test_videos_of_another_length_are_compared_as_far_as_both_go(tmp_path, write_video, moving, frames, played, said):
    write_video(tmp_path / "clip.mp4", moving(frames))
    videos = VideoMethod("theirs", tmp_path, 64)
    assert len(list(videos.reenact(case_of(moving(5))))) == played
    (note,) = videos.notes
    assert said in note


def test_videos_that_are_not_square_are_refused(tmp_path: Path, write_video, moving):
    write_video(tmp_path / "clip.mp4", moving(3)[:, :48])
    with pytest.raises(InputError, match="is 64x48, not square"):
        list(VideoMethod("theirs", tmp_path, 64).reenact(case_of(moving(3))))
