"""Loading of LPIPS from the files that torchvision and its authors published."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from personalive.checkpoints.files import read_tensors
from personalive.errors import CheckpointError
from personalive.models.perceptual import Lpips

_HEAD_KEY = re.compile(r"^lins?\.?(\d)\.model\.1\.")


def load_lpips(vgg: Path, heads: Path, device: torch.device) -> Lpips:
    """Load torchvision's VGG-16 and LPIPS' heads from .safetensors or PyTorch files, nothing in which is run.

    The classifier of the VGG file is left out; all else must fit exactly.

    Raises:
        CheckpointError: a file is damaged or another network's.
    """
    network = Lpips()
    features = {
        key.removeprefix("features."): value
        for key, value in read_tensors(vgg).items()
        if not key.startswith("classifier.")
    }
    weights = {_HEAD_KEY.sub(r"\1.", key): value for key, value in read_tensors(heads).items()}
    for path, part, tensors in ((vgg, network.features, features), (heads, network.heads, weights)):
        try:
            part.load_state_dict({key: value.float() for key, value in tensors.items()})
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: is not the file that LPIPS needs: download it from its publisher"
            ) from error
    return network.to(device).eval().requires_grad_(False)
