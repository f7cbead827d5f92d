"""The pose guider against the recorded network."""

from __future__ import annotations

import torch

from personalive.config import PoseGuiderConfig
from personalive.models.pose import PoseGuider
from personalive.vision.canvas import draw_canvas
from support import golden, keyseeded

SMALL_CHANNELS, FULL_CHANNELS = 64, 320
RECORDED_EVERY = 16  # the recording holds every 16th of the full model's channels


def keyseeded_guider(out_channels: int, salt: str = "") -> PoseGuider:
    guider = PoseGuider(PoseGuiderConfig(), out_channels).eval()
    guider.load_state_dict(keyseeded.state_dict(keyseeded.layout_of(guider), salt), strict=True)
    return guider


def first_canvases():
    return draw_canvas(golden.load("keypoint_canvas")["keypoints"][:2], 256)


def test_keys_and_shapes_are_the_released_ones():
    ours = keyseeded.layout_of(PoseGuider(PoseGuiderConfig(), SMALL_CHANNELS))
    assert {key: list(value) for key, value in ours.items()} == golden.layout("pose_guider")


def test_features_equal_the_recorded_ones():
    recorded = golden.load("pose_guider")["features_even_channels"][0]  # (channels, F, 32, 32)
    with torch.inference_mode():
        features = keyseeded_guider(FULL_CHANNELS)(first_canvases())
    assert features.shape == (2, FULL_CHANNELS, 32, 32)
    torch.testing.assert_close(features[:, ::RECORDED_EVERY].transpose(0, 1), recorded, atol=1e-5, rtol=0)


def test_other_weights_load_strictly_and_give_other_features():
    canvases = first_canvases()
    with torch.inference_mode():
        features = keyseeded_guider(SMALL_CHANNELS)(canvases)
        other = keyseeded_guider(SMALL_CHANNELS, salt="other")(canvases)
    assert (features - other).abs().max() > 0.01


def test_widths_follow_the_config():
    guider = PoseGuider(PoseGuiderConfig(widths=(4, 8, 12, 16)), out_channels=24)
    with torch.inference_mode():
        assert guider(torch.rand(3, 3, 128, 128)).shape == (3, 24, 16, 16)
