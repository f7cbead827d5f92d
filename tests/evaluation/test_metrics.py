"""Metrics against values worked out by hand, properties, other libraries and heads whose motion is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.image import peak_signal_noise_ratio

from personalive.evaluation.config import EvaluationConfig
from personalive.evaluation.datasets import Sample
from personalive.evaluation.metrics.accumulators import AngleTracking, ExpressionTracking
from personalive.evaluation.metrics.functional import (
    colour_distance,
    correlation,
    drift,
    flicker,
    fps,
    frechet_distance,
    id_sim,
    inter_chunk_latency_ms,
    l1,
    motion_to_photon_ms,
    parameter_distance,
    percentiles,
    psnr,
    ssim,
    tlp,
)
from personalive.evaluation.metrics.synthetic import PROBES, estimate, head_angles, with_expressions
from personalive.synthetic import Identity, Performance, render
from personalive.training.data.synthetic import HELD_OUT_SEED

IMAGES = arrays(np.uint8, (12, 12, 3))
SERIES = arrays(np.float64, 12, elements=st.floats(-100, 100))


def flat(level: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def noise(seed: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


# --- images -----------------------------------------------------------------------------------------------------


def test_l1_and_psnr_of_a_known_difference():
    assert l1(flat(10), flat(61)) == pytest.approx(51 / 255)
    assert psnr(flat(10), flat(61)) == pytest.approx(20 * math.log10(5))  # 255 / 51
    assert psnr(flat(7), flat(7)) == math.inf
    half = flat(0)
    half[:8] = 255
    assert l1(half, flat(0)) == pytest.approx(0.5)


def test_psnr_is_torchmetrics():
    one, other = noise(1), noise(2)
    given_ = [torch.from_numpy(p.astype(np.float64)) for p in (one, other)]
    assert psnr(one, other) == pytest.approx(peak_signal_noise_ratio(*given_, data_range=255.0).item())


def ssim_by_hand(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, window by window, with the image mirrored at its borders."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    x, y = (np.pad(p / 255.0, ((5, 5), (5, 5), (0, 0)), mode="reflect") for p in (one, other))
    values = []
    for row in range(one.shape[0]):
        for column in range(one.shape[1]):
            for channel in range(3):
                a, b = (p[row : row + 11, column : column + 11, channel] for p in (x, y))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
                both = (window * a * b).sum() - mean_a * mean_b
                c1, c2 = 0.01**2, 0.03**2
                top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
                values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


def test_ssim_is_that_of_its_inventors():
    one = noise(3, 20)
    other = np.clip(one.astype(int) + np.random.default_rng(4).integers(-40, 41, one.shape), 0, 255).astype(np.uint8)
    assert ssim(one, other) == pytest.approx(ssim_by_hand(one, other), abs=1e-5)
    assert ssim(one, one) == pytest.approx(1)
    assert ssim(flat(0), flat(255)) == pytest.approx(1e-4 / (1 + 1e-4), abs=1e-5)


def test_flicker_counts_odd_frames_and_not_steady_change():
    assert flicker(flat(0), flat(255), flat(0)) == 1
    assert flicker(flat(10), flat(20), flat(30)) == 0
    assert flicker(flat(10), flat(20), flat(20)) == pytest.approx(10 / 2 / 255)


def test_colour_distance_is_of_means_of_any_sizes():
    assert colour_distance(flat(0, 8), flat(51, 16)) == pytest.approx(0.2)
    red = flat(0)
    red[..., 0] = 255
    assert colour_distance(red, flat(0)) == pytest.approx(1 / 3)


@given(IMAGES, IMAGES, IMAGES)
def test_image_measures_are_symmetric_bounded_and_zero_for_equals(a, b, c):
    assert l1(a, b) == l1(b, a)
    assert 0 <= l1(a, b) <= 1
    assert l1(a, a) == 0
    assert l1(a, c) <= l1(a, b) + l1(b, c) + 1e-12
    assert psnr(a, b) == psnr(b, a)
    assert 0 <= flicker(a, b, c) <= 1
    assert flicker(a, b, c) == flicker(c, b, a)
    assert 0 <= colour_distance(a, b) <= l1(a, b) + 1e-12


@pytest.mark.parametrize("measure", [l1, psnr, ssim])
def test_images_of_different_shapes_are_refused(measure):
    with pytest.raises(ValueError, match="shapes"):
        measure(flat(0, 16), flat(0, 17))


# --- series -------------------------------------------------------------------------------------------------------


@given(SERIES, SERIES, st.floats(0.1, 10), st.floats(-10, 10))
def test_correlation_does_not_depend_on_scale_and_shift(one, other, scale, shift):
    value = correlation(one, other)
    assert -1.0001 <= value <= 1.0001
    assert correlation(other, one) == pytest.approx(value)
    if min(one.std(), other.std()) > 1e-3:
        assert correlation(scale * one + shift, other) == pytest.approx(value, abs=1e-6)


def test_correlation_is_pearsons_and_zero_where_nothing_varies():
    values = np.array([0.0, 1.0, 4.0, 2.0])
    assert correlation(values, 3 * values + 1) == pytest.approx(1)
    assert correlation(values, -values) == pytest.approx(-1)
    assert correlation(values, np.full(4, 0.3)) == 0
    assert correlation(np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1])) == pytest.approx(0)


def test_drift_is_last_minus_first():
    assert drift([1, 2, 3, 10, 11, 12], span=2) == 10
    assert drift(np.arange(300.0), span=100) == 200
    assert math.isnan(drift([1, 2, 3], span=2))


def test_speed_from_time_stamps():
    left = [1.0, 1.2, 1.6]
    assert inter_chunk_latency_ms(left) == pytest.approx(300)
    assert math.isnan(inter_chunk_latency_ms([1.0]))
    assert motion_to_photon_ms([0.0, 0.5], [1.0, 1.2]).tolist() == pytest.approx([1000, 700])
    assert fps(12, 1.5) == 8
    assert math.isnan(fps(12, 0.0))
    assert percentiles([0, 10, 20, 30, 40], (0, 50, 95)) == pytest.approx((0, 20, 38))
    assert all(math.isnan(value) for value in percentiles([], (50, 95)))
    with pytest.raises(ValueError, match="before"):
        motion_to_photon_ms([1.0], [0.5])
    with pytest.raises(ValueError, match="belong"):
        motion_to_photon_ms([1.0, 2.0], [3.0])


# --- features -----------------------------------------------------------------------------------------------------


def test_tlp_parameters_and_identity_by_hand():
    assert tlp(np.array([0.01, 0.03]), np.array([0.02, 0.01])) == pytest.approx(15)
    assert parameter_distance(np.array([1.0, -2, 0]), np.array([0.0, 0, 3])) == 2
    assert id_sim(np.array([3.0, 4]), np.array([6.0, 8])) == pytest.approx(1)
    assert id_sim(np.array([1.0, 0]), np.array([0.0, 5])) == 0
    assert id_sim(np.array([1.0, 1]), np.array([1.0, 0])) == pytest.approx(math.sqrt(0.5))
    assert id_sim(np.zeros(2), np.ones(2)) == 0
    for measure in (tlp, parameter_distance):
        with pytest.raises(ValueError, match="cannot be compared"):
            measure(np.zeros(2), np.zeros(3))


def with_moments(mean: list[float], deviations: list[float]) -> np.ndarray:
    """Points whose sample mean is ``mean`` and whose sample covariance is diagonal with these deviations squared."""
    points = []
    for axis, deviation in enumerate(deviations):
        step = np.zeros(len(mean))
        step[axis] = deviation * math.sqrt((2 * len(mean) - 1) / 2)
        points += [step, -step]
    return np.array(points) + mean


def test_frechet_distance_of_diagonal_gaussians_by_hand():
    one, other = with_moments([0, 0], [1, 2]), with_moments([3, 4], [2, 5])
    assert np.cov(one, rowvar=False) == pytest.approx(np.diag([1, 4]))
    assert frechet_distance(one, other) == pytest.approx(25 + (2 - 1) ** 2 + (5 - 2) ** 2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_full_gaussians_by_the_roots_of_the_product():
    rng = np.random.default_rng(5)
    one, other = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(30, 6)) + 1
    covs = [np.cov(part, rowvar=False) for part in (one, other)]
    roots = np.sqrt(np.linalg.eigvals(covs[0] @ covs[1]).astype(complex)).real.sum()
    shift = one.mean(axis=0) - other.mean(axis=0)
    expected = shift @ shift + np.trace(covs[0]) + np.trace(covs[1]) - 2 * roots
    assert frechet_distance(one, other) == pytest.approx(expected)


@given(arrays(np.float64, (7, 3), elements=st.floats(-5, 5)), arrays(np.float64, (5, 3), elements=st.floats(-5, 5)))
def test_frechet_distance_is_symmetric_never_negative_and_counts_shifts(one, other):
    value = frechet_distance(one, other)
    assert value >= 0
    assert frechet_distance(other, one) == pytest.approx(value, abs=1e-4)
    assert frechet_distance(one, one + 2) == pytest.approx(12, abs=1e-4)


def test_frechet_distance_needs_two_clips_and_one_width():
    for one, other in ((np.zeros((1, 3)), np.zeros((4, 3))), (np.zeros((4, 2)), np.zeros((4, 3)))):
        with pytest.raises(ValueError, match="two of each set"):
            frechet_distance(one, other)


# --- synthetic heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mouth", "blink"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_estimates_on_true_images_recover_the_truth(name: str, index: int):
    """The motion given to the estimate lacks the value that it has to find."""
    person, performance = Identity.sample(HELD_OUT_SEED + index), Performance.sample(index)
    probe = PROBES[name]
    for number, value in enumerate((0.0, 0.2, 0.45, 0.7, 1.0)):
        motion = with_expressions(performance.at(30 * number), probe.expressions, value)
        unknown = with_expressions(motion, probe.expressions, 0.5)
        frame = render(person, motion, 128).image
        assert estimate(person, unknown, frame, probe) == pytest.approx(value, abs=0.1)


def tracked(values: list[float], shown: list[float]) -> dict[str, float]:
    """Tracking of a head whose mouth truly opens by ``values``, on images where it opens by ``shown``."""
    person, motion = Identity.sample(HELD_OUT_SEED), Performance.frontal_neutral()
    metric = ExpressionTracking(person)
    for true, visible in zip(values, shown, strict=True):
        sample = Sample(np.empty(0), motion=with_expressions(motion, ("jawOpen",), true))
        output = render(person, with_expressions(motion, ("jawOpen",), visible), 64).image
        for _ in range(EvaluationConfig.estimate_every_frames):  # all but the first are not looked at
            metric.update(sample, output)
    return metric.compute()


def test_an_expression_is_tracked_where_it_varies_and_only_there():
    opening, still = [0.0, 0.3, 0.6, 0.9], [0.2] * 4
    assert tracked(opening, opening)["mouth"] > 0.99
    assert tracked(opening, opening[::-1])["mouth"] < -0.99
    assert tracked(opening, still)["mouth"] == 0
    assert "mouth" not in tracked(still, opening)
    assert not {"blink", "gaze_x"} & set(tracked(opening, opening))


def test_angles_are_the_extractors_whatever_the_batch(small_engine, moving):
    images, motions = moving(6), [Performance.sample(1).at(20 * index) for index in range(6)]
    metric = AngleTracking(small_engine)
    for image, motion in zip(images, motions, strict=True):
        metric.update(Sample(image, motion=motion), image)
    for name, found in zip(("yaw", "pitch"), head_angles(small_engine, images), strict=True):
        true = np.array([getattr(motion, f"{name}_deg") for motion in motions])
        np.testing.assert_allclose(metric.pairs()[name], (found, true), atol=1e-3)
        assert metric.compute()[name] == pytest.approx(correlation(found, true), abs=1e-3)
