"""The drawn training set: what is on the pictures, the boxes, and the same person for the same draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from personalive.training.recipe.material import mask_tensor
from personalive.training.recipe.samples import CELLS, SyntheticSet, box_coverage


@pytest.fixture(scope="module")
def drawn() -> SyntheticSet:
    return SyntheticSet(64, people=5, other_driver=1.0, min_gap_frames=30)


def test_a_pair_shows_one_person_twice_and_another_driver(drawn: SyntheticSet):
    pair = drawn.pair(np.random.default_rng(3))
    assert pair.reference.shape == pair.target.shape == pair.driving.shape == (64, 64, 3)
    corner = np.s_[:6, :6]  # the background is the person's
    assert np.abs(pair.reference[corner].astype(int) - pair.target[corner]).mean() < 3
    assert np.abs(pair.driving.astype(int) - pair.target).mean() > 5
    again = drawn.pair(np.random.default_rng(3))
    assert all(
        np.array_equal(getattr(pair, n), getattr(again, n)) for n in ("reference", "target", "driving", "masks")
    )


def test_without_another_driver_the_target_drives(drawn: SyntheticSet):
    alone = SyntheticSet(64, people=5, other_driver=0.0, min_gap_frames=30).pair(np.random.default_rng(0))
    assert alone.driving is alone.target


def test_boxes_hold_eyes_and_mouth_inside_the_face(drawn: SyntheticSet):
    face, eyes, mouth = drawn.pair(np.random.default_rng(1)).masks / 255
    assert 0.03 < face.mean() < 0.6
    for part in (eyes, mouth):
        assert 0 < part.sum() < 0.5 * face.sum()
        assert (part * (face > 0)).sum() > 0.9 * part.sum()
    assert np.argmax(eyes.sum(axis=1)) < np.argmax(mouth.sum(axis=1))  # eyes are above


def test_a_clip_moves_step_by_step(drawn: SyntheticSet):
    clip = drawn.clip(np.random.default_rng(0), frames=6, stride=4)
    assert clip.target.shape == (6, 64, 64, 3)
    assert clip.masks.shape == (6, 3, CELLS, CELLS)
    near = np.abs(clip.target[1:].astype(int) - clip.target[:-1]).mean()
    far = np.abs(clip.target[-1].astype(int) - clip.target[0]).mean()
    assert 0 < near < far


def test_held_out_people_are_others(drawn: SyntheticSet):
    other = SyntheticSet(64, people=5, other_driver=1.0, min_gap_frames=30, held_out=True)
    seeds = [{s._person(np.random.default_rng(i)) for i in range(50)} for s in (drawn, other)]
    assert seeds[0] == set(range(5))
    assert seeds[0].isdisjoint(seeds[1])


def test_coverage_of_a_box_by_hand():
    grid = box_coverage(np.array([[0, 0, 16, 32], [1, 0, 2, 1], [5, 5, 5, 5]]), 32)  # cells of half a pixel
    assert grid[0, :, :32].min() == 255
    assert grid[0, :, 32:].max() == 0
    assert grid[1].astype(int).sum() == 4 * 255
    assert grid[2].max() == 0
    half = box_coverage(np.array([[0, 0, 1, 128]] * 3), 128)  # half of the first column of cells
    assert set(half[0, :, 0].tolist()) == {128}


def test_masks_may_be_coverage_or_bool():
    bits = np.eye(4, dtype=bool)[None]
    device = torch.device("cpu")
    assert torch.equal(mask_tensor(bits, device), mask_tensor(bits.astype(np.uint8) * 255, device))
