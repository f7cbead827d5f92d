"""Person masks against those that MediaPipe made of the same images."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import torch

from personalive.checkpoints.face_networks import load_face_networks
from personalive.config import PHOTO
from personalive.models.person_mask import MASK_SIDE_PX
from support import golden


def test_masks_equal_those_of_mediapipe():
    network = load_face_networks(Path(str(resources.files("personalive"))) / "assets" / PHOTO)[2]
    recorded = golden.load("person_mask")
    for small, wanted in zip(recorded["images"].numpy(), recorded["masks_every_4th"], strict=True):
        image = cv2.resize(small, (MASK_SIDE_PX, MASK_SIDE_PX), interpolation=cv2.INTER_LINEAR)
        found = network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0, 0]
        torch.testing.assert_close(found[2::4, 2::4], wanted, atol=1e-3, rtol=0)
        assert 0.2 < np.mean(wanted.numpy() > 0.5) < 0.8
