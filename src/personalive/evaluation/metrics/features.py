"""Measures on what pretrained networks say about pictures: distances, embeddings, parameters, features.

Sources: the paper's evaluation protocol, and the publications named with each measure. N pictures or clips,
D width of a feature.
"""

from __future__ import annotations

import numpy as np

_PER_MILLE = 1000.0


def tlp(distances: np.ndarray, true_distances: np.ndarray) -> float:
    """Temporal LPIPS, times 1000; 0 is best: mean |LPIPS(out t, out t+1) - LPIPS(true t, true t+1)|.

    Source: Chu et al., TecoGAN, ACM TOG 2020.

    Args:
        distances, true_distances: (N,) LPIPS of neighbouring frames, of the output and of the true (or driving)
            film.

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
