"""Boxes of eyes and mouth against synthetic heads whose true regions are known, smoothing, and masks."""

from __future__ import annotations

import numpy as np
import pytest

from personalive.synthetic import Identity, Performance, render
from personalive.training.data.prepare.boxes import box_masks, fill_and_smooth, part_boxes
from personalive.vision.faces import FaceBox, HaarDetector

SIZE_PX = 192


def covered(true: np.ndarray, mask: np.ndarray) -> float:
    return float((true & mask).sum() / max(true.sum(), 1))


def test_boxes_cover_the_true_regions_and_little_else():
    detector, shares, areas = HaarDetector(), [], []
    for seed in range(8):
        frame = render(Identity.sample(seed), Performance.sample(seed, intensity=0.3).at(20), SIZE_PX, supersample=1)
        (face, *_) = detector.detect(frame.image)
        masks = box_masks(part_boxes(face), SIZE_PX)
        truth = (frame.face_mask, frame.eyes_mask, frame.mouth_mask)
        shares.append([covered(true, mask) for true, mask in zip(truth, masks, strict=True)])
        areas.append(masks.mean(axis=(1, 2)))
    assert np.median(shares, axis=0).min() > 0.85
    face_area, eyes_area, mouth_area = np.median(areas, axis=0)
    assert eyes_area < 0.15 * face_area
    assert mouth_area < 0.15 * face_area


def test_landmarks_are_used_where_they_are_known():
    points = ((30.0, 40.0), (70.0, 50.0), (50.0, 60.0), (35.0, 80.0), (65.0, 84.0))
    face, eye, other, mouth = part_boxes(FaceBox(10, 10, 80, 100, 1.0, points))
    assert face.tolist() == [10, 10, 90, 110]
    unit = np.hypot(40, 10)
    assert (eye[2] - eye[0]) == pytest.approx(0.72 * unit)
    assert (eye[0] + eye[2]) / 2 == pytest.approx(30)
    assert other - eye == pytest.approx([40, 10, 40, 10])
    assert (mouth[0] + mouth[2]) / 2 == pytest.approx(50)
    assert mouth[1] < 82 < mouth[3]


def test_a_head_turned_away_keeps_boxes_of_a_sensible_size():
    points = ((50.0, 40.0), (52.0, 40.0), (50.0, 60.0), (50.0, 80.0), (52.0, 80.0))
    _, eye, _, _ = part_boxes(FaceBox(10, 10, 80, 100, 1.0, points))
    assert eye[2] - eye[0] == pytest.approx(0.72 * 0.35 * 80)


def test_unknown_boxes_are_filled_in_between_and_noise_is_smoothed():
    rng = np.random.default_rng(0)
    true = np.linspace(0, 100, 101)[:, None, None] + np.arange(16).reshape(1, 4, 4)
    noisy = true + rng.normal(0, 2, true.shape)
    noisy[1::2] = np.nan
    smooth = fill_and_smooth(noisy, 1.5)
    assert smooth.shape == true.shape
    assert np.abs(smooth - true)[5:-5].std() < 0.75 * 2
    still = np.full((7, 4, 4), np.nan)
    still[3] = 5.0
    assert fill_and_smooth(still, 1.5) == pytest.approx(5.0)


def test_masks_hold_the_pixels_whose_middle_is_in_the_box():
    boxes = np.array([[0, 0, 8, 8], [1.4, 1, 3, 2], [5, 1, 6.6, 2], [2, 5, 6, 6.5]], np.float32)
    face, eyes, mouth = box_masks(boxes, 8)
    assert face.all()
    assert np.argwhere(eyes).tolist() == [[1, 1], [1, 2], [1, 5], [1, 6]]
    assert np.argwhere(mouth)[:, 0].tolist() == [5] * 4  # 6.5 is exclusive
    assert box_masks(np.stack([boxes] * 3), 8).shape == (3, 3, 8, 8)
