"""A backend that is made of programs: the networks as something else than torch runs them.

Letters as in base.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from personalive.config import BackendConfig
from personalive.models.attention import KV
from personalive.models.bundle import Networks
from personalive.streaming.backends.base import Backend, Denoised
from personalive.streaming.backends.beside import Beside
from personalive.streaming.backends.graphs import flat
from personalive.vision.keypoints import HeadPose

Program = Callable[..., Sequence[Tensor]]
"""Tensors by position in, tensors out, as the graph of that name; may be called from any thread."""


class ProgramBackend(Backend):
    """Calls a program for each network call; gives no gradients."""

    def __init__(
        self,
        networks: Networks,
        name: str,
        programs: Mapping[str, Program],
        precision: torch.dtype,
        beside: Beside | None = None,
    ) -> None:
        """
        Args:
            networks: those that the programs were made from; the image encoder is still run by torch.
            name: of the runtime, for reports.
            programs: one for every graph of ``graphs.graphs``.
            precision: the number format that the programs compute in.
            beside: as for ``Backend``.
        """
        super().__init__(networks, beside=beside)
        self.name = name
        self._programs, self._precision = programs, precision
        self._blocks = list(networks.denoising_unet.spatial_transformers())

    @property
    def precision(self) -> torch.dtype:
        """The number format that most arithmetic is done in."""
        return self._precision

    def denoise(
        self, latents: Tensor, *, context: Tensor, motion: Tensor, pose: Tensor, reference: Mapping[str, KV]
    ) -> Denoised:
        """As ``Backend.denoise``."""
        return Denoised(*self._run("denoise", latents, context, motion, pose, *flat(reference)))

    def decode(self, latents: Tensor) -> Tensor:
        """As ``Backend.decode``."""
        return self._by_picture("decode", latents)[0]

    def encode(self, images: Tensor) -> Tensor:
        """As ``Backend.encode``."""
        return self._by_picture("encode", images)[0] if "encode" in self._programs else super().encode(images)

    def project(self, latent: Tensor, context: Tensor) -> dict[str, KV]:
        """As ``Backend.project``."""
        tokens = self._run("project", latent.to(self.dtype), context)
        return {block: KV(*tokens[2 * i : 2 * i + 2]) for i, block in enumerate(self._blocks)}

    def extract(self, images: Tensor) -> HeadPose:
        """As ``Backend.extract``."""
        return HeadPose(*self._by_picture("extract", images))

    def motion_tokens(self, faces: Tensor) -> Tensor:
        """As ``Backend.motion_tokens``."""
        return self._by_picture("motion_tokens", faces)[0]

    def guide(self, canvas: Tensor) -> Tensor:
        """As ``Backend.guide``."""
        return self._by_picture("guide", canvas)[0]

    def correction(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Backend.correction``."""
        hidden, flow = self._by_picture("correction", features, moved, shift)
        return hidden, flow

    def trust(self, decoded: Tensor, found: Tensor, hidden: Tensor) -> Tensor:
        """As ``Backend.trust``."""
        return self._by_picture("trust", decoded, found, hidden)[0]

    def _by_picture(self, name: str, *tensors: Tensor) -> Sequence[Tensor]:
        """Of a program whose first axis counts pictures, of which it takes so many at once."""
        parts = [
            self._run(name, *part)
            for part in zip(*(t.split(BackendConfig.max_pictures) for t in tensors), strict=True)
        ]
        return parts[0] if len(parts) == 1 else [torch.cat(tensors) for tensors in zip(*parts, strict=True)]

    def _run(self, name: str, *tensors: Tensor) -> Sequence[Tensor]:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise RuntimeError(f"the {self.name} backend gives no gradients: train with the eager one")
        return self._programs[name](*tensors)


class InChunks:
    """Any number of pictures by a program for a chunk of them, the last chunk filled up."""

    def __init__(self, run: Program, chunk: int) -> None:
        self._run, self._chunk = run, chunk

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        parts = []
        for start in range(0, len(tensors[0]), self._chunk):
            part = [tensor[start : start + self._chunk] for tensor in tensors]
            missing = self._chunk - len(part[0])
            filled = [torch.cat([t, t[-1:].expand(missing, *t.shape[1:])]) if missing else t for t in part]
            parts.append([tensor[: self._chunk - missing] for tensor in self._run(*filled)])
        return parts[0] if len(parts) == 1 else [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
