"""Photo heads as a training set: the parts it is divided into, other drivers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalive.errors import InputError
from personalive.training.config import TrainConfig
from personalive.training.data.prepare.heads import make_heads
from personalive.training.data.synthetic import PhotoHeadSet
from personalive.training.run import open_set
from support.synthetic_face import synthetic_face

HEADS, SIDE_PX = 12, 64


def heads(folder: Path, count: int) -> Path:
    """A set of ``count`` heads, each a photograph of one colour."""
    (folder / "in").mkdir(parents=True)
    names = [f"{number:02d}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (200, 200), (20 * number, 100, 255 - 20 * number)).save(folder / "in" / name)
    landmarks = np.stack([synthetic_face(number, 200).landmarks_px for number in range(count)])
    np.savez(folder / "landmarks.npz", allow_pickle=False, names=np.array(names), landmarks_px=landmarks)
    make_heads(folder / "in", folder / "set", folder / "landmarks.npz")
    return folder / "set"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return heads(tmp_path_factory.mktemp("heads"), HEADS)


def test_every_tenth_head_is_kept_for_scores(folder: Path):
    config = TrainConfig(stage="motion")
    train, scores = (open_set(str(folder), config, SIDE_PX, held_out=held_out) for held_out in (False, True))
    assert isinstance(train, PhotoHeadSet)
    assert isinstance(scores, PhotoHeadSet)
    assert scores._numbers == [0, 10]
    assert sorted(train._numbers + scores._numbers) == list(range(HEADS))


def test_samples_are_those_of_synthetic_heads(folder: Path):
    data = PhotoHeadSet(folder, SIDE_PX, other_driver=1.0)
    pair, again = (data.pair(np.random.default_rng(3)) for _ in range(2))
    assert pair.target.shape == pair.driving.shape == (SIDE_PX, SIDE_PX, 3)
    assert pair.masks.shape == (3, SIDE_PX, SIDE_PX)
    assert not np.array_equal(pair.driving, pair.target)  # somebody else gives the same performance
    assert pair.truth is not None
    assert pair.truth[1].keypoints.shape == (21, 3)
    np.testing.assert_array_equal(pair.target, again.target)
    clip = data.clip(np.random.default_rng(4), frames=3, stride=2)
    assert clip.target.shape == (3, SIDE_PX, SIDE_PX, 3)


def test_too_few_heads_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="2 heads are too few"):
        PhotoHeadSet(heads(tmp_path, 2), SIDE_PX)
