"""How far pictures are from each other. All pictures are uint8 RGB, (..., H, W, 3); H and W height and width.

L1, PSNR and SSIM are those of the paper's evaluation protocol; flicker and colour distance are ours.
"""

from __future__ import annotations

import math

import numpy as np

_FULL_SCALE = 255.0


def l1(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference, in [0, 1]; 0 is best.

    Raises:
        ValueError: the shapes differ.
    """
    _check(one, other)
    return float(np.abs(one.astype(np.int16) - other).mean() / _FULL_SCALE)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all values given; infinite for equal pictures.

    Raises:
        ValueError: the shapes differ.
    """
    _check(one, other)
    mean_square = float(np.square(one.astype(np.float64) - other).mean())
    return 10 * math.log10(_FULL_SCALE**2 / mean_square) if mean_square else math.inf


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two (H, W, 3) pictures, at most 1, which is best; torchmetrics' with its defaults.

    Those are Wang et al.'s: a Gaussian window of 11 px and sigma 1.5, k1 = 0.01, k2 = 0.03, per channel, over
    the whole picture, mirrored at its borders.

    Raises:
        ValueError: the shapes differ.
    """
    import torch  # noqa: PLC0415
    from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415 (takes a second)

    _check(one, other)
    tensors = [
        torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1)))[None].float() / _FULL_SCALE for p in (one, other)
    ]
    return float(structural_similarity_index_measure(*tensors, data_range=1.0))  # pyright: ignore[reportArgumentType]


def flicker(before: np.ndarray, now: np.ndarray, after: np.ndarray) -> float:
    """How much ``now`` sticks out between its neighbours in time, in [0, 1]: mean |before - 2 now + after| / 2.

    Steady motion and slow changes count little, single odd frames in full. The true pictures have some too:
    compare with theirs.

    Raises:
        ValueError: the shapes differ.
    """
    _check(before, now)
    _check(now, after)
    bend = before.astype(np.int16) - 2 * now.astype(np.int16) + after
    return float(np.abs(bend).mean() / (2 * _FULL_SCALE))


def colour_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Distance between the mean colours of two pictures of any sizes: mean over RGB, in [0, 1]."""
    means = [p.reshape(-1, 3).mean(axis=0, dtype=np.float64) for p in (one, other)]
    return float(np.abs(means[0] - means[1]).mean() / _FULL_SCALE)


def _check(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape:
        raise ValueError(f"pictures of different shapes cannot be compared: {one.shape} and {other.shape}")
