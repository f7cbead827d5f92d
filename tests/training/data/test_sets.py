"""Samples of prepared sets and of synthetic heads, and sets that cannot be opened."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.synthetic import Identity, Performance, render
from personalive.training.data.sets import PreparedSet, TrainingSet, draw_clip, draw_pair
from personalive.training.data.synthetic import HELD_OUT_SEED, SyntheticSet
from support.prepared import SIZE_PX, Made

SMALL_PX = 32


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def synthetic_set(**options: Any) -> SyntheticSet:
    return SyntheticSet(5, 3, SMALL_PX, **options)


def check(source: TrainingSet, frames: int, stride: int) -> None:
    """Check the promises of both kinds."""
    size = source.size_px
    pair, again = source.pair(rng()), source.pair(rng())
    for name in ("reference", "driving", "target"):
        assert getattr(pair, name).shape == (size, size, 3)
        assert getattr(pair, name).dtype == np.uint8
        assert (getattr(pair, name) == getattr(again, name)).all()
    assert pair.masks.shape == (3, size, size)
    assert pair.masks.dtype == bool
    face, eyes, mouth = pair.masks.mean(axis=(1, 2))
    assert 0.05 < face < 0.8
    assert 0 <= eyes < 0.2 * face
    assert 0 < mouth < 0.2 * face
    clip = source.clip(rng(), frames=frames, stride=stride)
    assert clip.reference.shape == (size, size, 3)
    assert clip.driving.shape == clip.target.shape == (frames, size, size, 3)
    assert clip.masks.shape == (frames, 3, size, size)
    assert any((source.pair(rng(seed)).driving != pair.driving).any() for seed in range(1, 4))


def test_prepared_sets_give_samples(made: Made):
    source = PreparedSet(made.out)
    assert source.size_px == SIZE_PX
    assert sum(clip["frames"] for clip in source.clips) == made.report.frames
    check(source, frames=7, stride=3)


def test_synthetic_sets_give_samples():
    check(synthetic_set(), frames=3, stride=4)
    check(synthetic_set(other_driver=1.0), frames=3, stride=4)


def test_a_pair_is_two_frames_of_one_clip_and_its_masks_are_those_of_the_driver(made: Made):
    source = PreparedSet(made.out)
    for seed in range(6):
        pair = source.pair(rng(seed))
        (clip,) = [clip for clip in source.clips if clip["clip"] == pair.name]
        boxes = source._content(clip)["boxes"]
        full = made.out / "clips" / f"{pair.name}.mov"
        images = _images(full)
        at = [nearest(images, image) for image in (pair.reference, pair.driving)]
        assert at[0] != at[1]
        left, top, right, bottom = boxes[at[1]][0].round().astype(int)
        rows, columns = np.nonzero(pair.masks[0])
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [left, top, right, bottom]
        assert pair.target is pair.driving


def nearest(images: list[np.ndarray], image: np.ndarray) -> int:
    return min(range(len(images)), key=lambda k: np.abs(images[k] - image).sum())


def _images(video: Path) -> list[np.ndarray]:
    import av

    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def test_every_video_is_as_likely_as_another(made: Made):
    source = PreparedSet(made.out)
    videos = {clip["clip"]: clip["video"] for clip in source.clips}
    names = [videos[source._draw(generator, least=2)["clip"]] for generator in [rng()] for _ in range(400)]
    counts = [names.count(video) for video in set(videos.values())]
    assert len(counts) == 5
    assert 50 < min(counts) <= max(counts) < 115


# --- drawing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "gap"), [(2, 1), (64, 1), (65, 30), (300, 30)])
def test_frames_of_a_pair_keep_their_distance_and_reach_everywhere(frames: int, gap: int):
    generator = rng()
    pairs = np.array([draw_pair(generator, frames) for _ in range(4000)])
    distance = np.abs(pairs[:, 0] - pairs[:, 1])
    assert distance.min() == gap
    assert distance.max() > 0.9 * (frames - 1)
    assert pairs.min() == 0
    assert pairs.max() == frames - 1
    assert 0.4 < (pairs[:, 0] < pairs[:, 1]).mean() < 0.6
    # uniform over all allowed pairs
    distances = np.arange(gap, frames)
    assert distance.mean() == pytest.approx(np.average(distances, weights=frames - distances), rel=0.05)


def test_frames_of_a_clip_are_a_stride_apart_and_reach_both_ends():
    generator = rng()
    starts, references = set(), set()
    for _ in range(300):
        numbers, reference = draw_clip(generator, 20, 4, 5)
        assert np.diff(numbers).tolist() == [5, 5, 5]
        starts.add(int(numbers[0]))
        references.add(reference)
    assert starts == set(range(5))
    assert references == set(range(20))


def test_clips_too_long_for_the_set_are_refused(made: Made):
    with pytest.raises(InputError, match="no clip has 157 frames, the longest has 33: ask for fewer frames"):
        PreparedSet(made.out).clip(rng())
    with pytest.raises(InputError, match="have 100 frames only"):
        synthetic_set(length_frames=100).clip(rng())
    with pytest.raises(InputError, match="stride 0: give numbers from 1 up"):
        synthetic_set().clip(rng(), stride=0)


# --- synthetic heads -----------------------------------------------------------------------------------------------


def test_with_cross_another_person_gives_the_same_performance():
    pair = synthetic_set(other_driver=1.0, length_frames=20).pair(rng(3))
    person, driver = (int(word) for word in pair.name.split() if word.isdigit())
    assert person != driver
    assert {person, driver} <= {5, 6, 7}
    performance = Performance.sample(person)
    frames = [k for k in range(20) if _same(person, performance, k, pair.target)]
    assert len(frames) == 1
    assert _same(driver, performance, frames[0], pair.driving)
    truth = render(Identity.sample(person), performance.at(frames[0]), SMALL_PX)
    assert (pair.masks == [truth.face_mask, truth.eyes_mask, truth.mouth_mask]).all()


def _same(person: int, performance: Performance, frame: int, image: np.ndarray) -> bool:
    return bool((render(Identity.sample(person), performance.at(frame), SMALL_PX).image == image).all())


def test_held_out_people_are_refused_unless_asked_for():
    last = {"first_seed": HELD_OUT_SEED - 2, "size_px": SMALL_PX}
    SyntheticSet(people=2, **last)
    with pytest.raises(InputError, match="from 10000000 on they are kept for scores"):
        SyntheticSet(people=3, **last)
    assert SyntheticSet(people=3, held_out=True, **last).pair(rng()).target.any()


@pytest.mark.parametrize(
    "options", [{"first_seed": -1}, {"people": 0}, {"people": 1, "other_driver": 1.0}, {"length_frames": 1}]
)
def test_synthetic_sets_that_cannot_be(options: dict[str, Any]):
    with pytest.raises(InputError, match="use a seed from 0 up"):
        SyntheticSet(**options)


# --- sets that cannot be opened -----------------------------------------------------------------------------------


def changed(change: Callable[[str], str]) -> Callable[[Path], object]:
    """Spoils the index."""
    return lambda out: (out / "index.jsonl").write_text(change((out / "index.jsonl").read_text()))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda out: (out / "index.jsonl").unlink(), "is not finished; run `personalive data prepare"),
        (shutil.rmtree, "holds no training set; run `personalive data prepare"),
        (changed(lambda text: text.replace('"version": 1', '"version": 2')), "is of version 2, this program reads 1"),
        (changed(lambda text: text[: len(text) * 2 // 3]), "is damaged or cut off; run"),
        (changed(lambda text: text.rstrip().rpartition("\n")[0]), "is damaged or cut off; run"),
        (changed(lambda text: "[]\n"), "is damaged or cut off; run"),
        (
            changed(lambda text: re.sub('"clip": "[^"]*"', '"clip": "../../etc/passwd"', text)),
            "is damaged or cut off",
        ),
        (changed(lambda text: re.sub('"clips": [0-9]+}.*', '"clips": 0}', text, flags=re.S)), "holds no clip"),
        (lambda out: next((out / "clips").glob("*.mov")).unlink(), "mov: is missing; run"),
        (
            lambda out: cut(next((out / "clips").glob("*.safetensors"))),
            "safetensors: has .* bytes instead of .*; run",
        ),
    ],
    ids=range(10),
)
def test_sets_that_cannot_be_opened(made: Made, tmp_path: Path, spoil, says: str):
    out = tmp_path / "set"
    shutil.copytree(made.out, out)
    spoil(out)
    with pytest.raises(InputError, match=says) as caught:
        PreparedSet(out)
    assert "\n" not in str(caught.value)


def test_damage_inside_a_file_is_one_line_too(made: Made, tmp_path: Path):
    out = tmp_path / "set"
    shutil.copytree(made.out, out)
    for path in (out / "clips").glob("*.mov"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(InputError, match="is damaged at byte"):
        PreparedSet(out).pair(rng())
    for path in (out / "clips").glob("*.safetensors"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(InputError, match="is missing or damaged"):
        PreparedSet(out).pair(rng())


def test_a_prepared_set_is_divided_into_training_and_scores(made: Made):
    whole, train, scores = (PreparedSet(made.out, held_out=part) for part in (None, False, True))
    names = [{clip["clip"] for clip in part.clips} for part in (whole, train, scores)]
    assert names[1]
    assert names[2]
    assert not names[1] & names[2]
    assert names[1] | names[2] == names[0]
    assert not {clip["video"] for clip in train.clips} & {clip["video"] for clip in scores.clips}
    assert train.pair(rng()).name in names[1]
