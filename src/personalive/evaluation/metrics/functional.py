"""Metrics as pure functions of images, features, parameters or time stamps.

Images are uint8 RGB, (..., H, W, 3); N images or clips, D width of a feature. L1, PSNR, SSIM and the features'
distances are those of the paper's evaluation protocol; flicker, colour distance and drift are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Series = Sequence[float] | np.ndarray
_FULL_SCALE = 255.0
_PER_MILLE = 1000.0
_STILL = 1e-9  # a side that varies less than this does not vary


# --- images -------------------------------------------------------------------------------------------------


def l1(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference, in [0, 1]; 0 is best.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(one, other)
    return float(np.abs(one.astype(np.int16) - other).mean() / _FULL_SCALE)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all values given; infinite for equal images.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(one, other)
    mean_square = float(np.square(one.astype(np.float64) - other).mean())
    return 10 * math.log10(_FULL_SCALE**2 / mean_square) if mean_square else math.inf


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two (H, W, 3) images, at most 1, which is best; torchmetrics' with its defaults.

    Those are Wang et al.'s: a Gaussian window of 11 px and sigma 1.5, k1 = 0.01, k2 = 0.03, per channel, over
    the whole image, mirrored at its borders.

    Raises:
        ValueError: the shapes differ.
    """
    import torch  # noqa: PLC0415
    from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415 (takes a second)

    _check_shapes(one, other)
    tensors = [
        torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1)))[None].float() / _FULL_SCALE for p in (one, other)
    ]
    return float(structural_similarity_index_measure(*tensors, data_range=1.0))  # pyright: ignore[reportArgumentType]


def flicker(before: np.ndarray, now: np.ndarray, after: np.ndarray) -> float:
    """Deviation of ``now`` from its neighbours in time, in [0, 1]: mean |before - 2 now + after| / 2.

    Steady motion and slow changes count little, single odd frames in full. Ground truth has some too:
    compare with it.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(before, now)
    _check_shapes(now, after)
    bend = before.astype(np.int16) - 2 * now.astype(np.int16) + after
    return float(np.abs(bend).mean() / (2 * _FULL_SCALE))


def colour_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Distance between the mean colours of two images of any sizes: mean over RGB, in [0, 1]."""
    means = [p.reshape(-1, 3).mean(axis=0, dtype=np.float64) for p in (one, other)]
    return float(np.abs(means[0] - means[1]).mean() / _FULL_SCALE)


def _check_shapes(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape:
        raise ValueError(f"images of different shapes cannot be compared: {one.shape} and {other.shape}")


# --- features of pretrained networks ------------------------------------------------------------------------


def tlp(distances: np.ndarray, true_distances: np.ndarray) -> float:
    """Temporal LPIPS, times 1000; 0 is best: mean |LPIPS(out t, out t+1) - LPIPS(true t, true t+1)|.

    Source: Chu et al., TecoGAN, ACM TOG 2020.

    Args:
        distances, true_distances: (N,) LPIPS of neighbouring frames, of the output and of the true (or driving)
            video.

    Raises:
        ValueError: different lengths, or none.
    """
    _check_pair(distances, true_distances)
    return float(_PER_MILLE * np.abs(np.asarray(distances, np.float64) - true_distances).mean())


def id_sim(embedding: np.ndarray, other: np.ndarray) -> float:
    """Cosine of two face embeddings (D,), in [-1, 1]; 1 is the same direction. 0 where one of them is zero.

    Source: Deng et al., ArcFace, CVPR 2019.
    """
    one, two = np.asarray(embedding, np.float64).ravel(), np.asarray(other, np.float64).ravel()
    lengths = np.linalg.norm(one) * np.linalg.norm(two)
    return float(one @ two / lengths) if lengths else 0.0


def parameter_distance(one: np.ndarray, other: np.ndarray) -> float:
    """AED and APD: mean absolute difference of expression or pose parameters of the same shape; 0 is best.

    Raises:
        ValueError: different shapes, or nothing in them.
    """
    _check_pair(one, other)
    return float(np.abs(np.asarray(one, np.float64) - other).mean())


def frechet_distance(features: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features (N, D) and (M, D); 0 is best.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), the trace of the root taken from the eigenvalues of
    S1^1/2 S2 S1^1/2, which is symmetric. With I3D features of clips this is FVD. Few clips bias it upwards.

    Source: Unterthiner et al., FVD, 2019.

    Raises:
        ValueError: different widths, or fewer than two of a set.
    """
    one, two = (np.atleast_2d(np.asarray(part, np.float64)) for part in (features, other))
    if one.shape[1] != two.shape[1] or min(len(one), len(two)) < 2:
        raise ValueError(f"features of shapes {one.shape} and {two.shape}: two of each set and one width are needed")
    shift = one.mean(axis=0) - two.mean(axis=0)
    cov_one, cov_two = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (one, two))
    root = _root(cov_one)
    mixed = np.linalg.eigvalsh(root @ cov_two @ root)
    trace = np.trace(cov_one) + np.trace(cov_two) - 2 * np.sqrt(mixed.clip(min=0)).sum()
    return float(max(shift @ shift + trace, 0.0))


def _root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def _check_pair(one: np.ndarray, other: np.ndarray) -> None:
    if np.shape(one) != np.shape(other) or not np.size(one):
        raise ValueError(f"values of shapes {np.shape(one)} and {np.shape(other)} cannot be compared")


# --- series over frames, and time stamps --------------------------------------------------------------------


def correlation(one: Series, other: Series) -> float:
    """Pearson's correlation of two equally long series, in [-1, 1]; 0 where a side does not vary."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if len(one) < 2 or one.std() < _STILL or other.std() < _STILL:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def drift(values: Series, span: int) -> float:
    """Mean of the last ``span`` values minus mean of the first ``span``; not a number for fewer than twice as many.

    Of an error per frame, a positive drift means that long runs get worse (ours).
    """
    if span < 1 or len(values) < 2 * span:
        return math.nan
    series = np.asarray(values, np.float64)
    return float(series[-span:].mean() - series[:span].mean())


def fps(frames: int, seconds: float) -> float:
    """Frames per second; not a number where no time has passed."""
    return frames / seconds if seconds > 0 else math.nan


def inter_chunk_latency_ms(left_s: Series) -> float:
    """Mean time in milliseconds between chunks that leave (the paper's "latency"); not a number for fewer than two.

    Args:
        left_s: when each chunk left, in order.
    """
    if len(left_s) < 2:
        return math.nan
    return float(1000 * np.diff(np.asarray(left_s, np.float64)).mean())


def motion_to_photon_ms(entered_s: Series, left_s: Series) -> np.ndarray:
    """Milliseconds from each driving frame's (or chunk's) arrival to the departure of the image it made.

    Args:
        entered_s, left_s: equally long; the n-th of both belong to the same frame.

    Raises:
        ValueError: different lengths, or an image that left before its driving frame came.
    """
    entered, left = np.asarray(entered_s, np.float64), np.asarray(left_s, np.float64)
    if entered.shape != left.shape:
        raise ValueError(f"{entered.size} arrivals and {left.size} departures do not belong together")
    if (left < entered).any():
        raise ValueError("an image left before the frame that drives it came")
    return 1000 * (left - entered)


def percentiles(values: Series, shares: Sequence[float]) -> tuple[float, ...]:
    """The values below which the given percentages (0..100) lie, linear in between; not a number without values."""
    if not len(values):
        return (math.nan,) * len(shares)
    return tuple(float(value) for value in np.percentile(np.asarray(values, np.float64), shares))
