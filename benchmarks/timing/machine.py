"""The machine's speed of matrix products."""

from __future__ import annotations

import time
from statistics import median

import torch

from personalive.evaluation.benchmark import settle

CUDA_SIDE, CPU_SIDE = 8192, 2048  # of the multiplied matrices
PRODUCTS, FEWEST_PRODUCTS = 100, 4
SLOW_S = 1.0  # after this much, no further product
WARMING = 0.25  # share of the products that is left out: clocks rise first


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, the median of several."""
    side = CUDA_SIDE if device.type == "cuda" else CPU_SIDE
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < PRODUCTS and (len(times) < FEWEST_PRODUCTS or time.perf_counter() - begun < SLOW_S):
        settle(device)
        start = time.perf_counter()
        torch.matmul(a, b)
        settle(device)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / median(times[round(WARMING * len(times)) :])
