"""Noise schedule and deterministic DDIM step: pure functions of tensors.

Source: paper section 3 and the released weights (scaled-linear betas, no clipping).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from personalive.config import ScheduleConfig


class Step(NamedTuple):
    """Result of one denoising step, both shaped like the input."""

    previous: Tensor  # the latent one level cleaner
    original: Tensor  # the predicted clean latent


class Schedule:
    """Cumulative products and the two formulas that use them. Immutable after construction."""

    def __init__(self, config: ScheduleConfig, device: torch.device | None = None) -> None:
        """
        Args:
            device: of the timesteps to come, where that is known: then nothing is copied for them.
        """
        self.config = config
        roots = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_steps, dtype=torch.float64)
        self.alphas_cumprod = torch.cumprod(1.0 - roots**2, dim=0).float().to(device)  # (train_steps,) float32

    def timesteps(self, chunk_frames: int) -> Tensor:
        """(1, F) timesteps of the frames in flight, cleanest first."""
        return torch.tensor(self.config.levels).repeat_interleave(chunk_frames)[None]

    def _signal(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """Cumulative product at (B, F) timesteps, 1 below zero, shaped to broadcast over (B, C, F, H, W)."""
        table = self.alphas_cumprod.to(timesteps.device)
        signal = torch.where(timesteps < 0, torch.ones((), device=table.device), table[timesteps.clamp(min=0)])
        return signal[:, None, :, None, None].to(like)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(B, C, F, H, W) clean and noise, (B, F) timesteps -> (B, C, F, H, W) at those levels."""
        signal = self._signal(timesteps, clean)
        return signal.sqrt() * clean + (1 - signal).sqrt() * noise

    def move(self, sample: Tensor, clean: Tensor, timesteps: Tensor, others: Tensor) -> Tensor:
        """Result of deterministic steps from ``sample`` at (B, F) ``timesteps`` if all of them predict ``clean``."""
        signal, other = self._signal(timesteps, sample), self._signal(others, sample)
        noise = (sample - signal.sqrt() * clean) / (1 - signal).sqrt()
        return other.sqrt() * clean + (1 - other).sqrt() * noise

    def clean(self, sample: Tensor, previous: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latent that ``step`` predicted, from its input at (B, F) ``timesteps`` and its ``previous``.

        Both are mixtures of the same clean latent and noise, so two equations give the two unknowns.
        """
        signal, before = self._signal(timesteps, sample), self._signal(timesteps - self.config.step, sample)
        noise, noise_before = (1 - signal).sqrt(), (1 - before).sqrt()
        determinant = signal.sqrt() * noise_before - before.sqrt() * noise
        return (noise_before * sample - noise * previous) / determinant

    def step(self, prediction: Tensor, sample: Tensor, timesteps: Tensor) -> Step:
        """One deterministic DDIM step of ``config.step`` timesteps.

        Args:
            prediction: (B, C, F, H, W), the noise, or ("residual") what to add to the
                sample at unit signal to make it clean, by ``config.prediction``.
            sample: (B, C, F, H, W) at ``timesteps``.
            timesteps: (B, F).
        """
        signal = self._signal(timesteps, sample)
        if self.config.prediction == "residual":
            original = sample / signal.sqrt() + prediction
            noise = (sample - signal.sqrt() * original) / (1 - signal).sqrt()
        else:
            noise = prediction
            original = (sample - (1 - signal).sqrt() * noise) / signal.sqrt()
        before = self._signal(timesteps - self.config.step, sample)
        return Step(before.sqrt() * original + (1 - before).sqrt() * noise, original)
