"""The motion extractor against the recorded network, and angles against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personalive.checkpoints.key_map import KEY_RULES
from personalive.config import ModelConfig, MotionExtractorConfig
from personalive.models.pose import MotionExtractor, bins_to_degrees
from personalive.vision.keypoints import HeadPose, interpolated_start, retarget, transform_keypoints
from support import golden, keyseeded

CONFIG = ModelConfig()
NARROW = MotionExtractorConfig(depths=(1, 1, 2, 1), widths=(8, 16, 24, 32), angle_bins=66)
TOLERANCE = 1e-4  # other CPU kernels moved the original's own results by less


def released(salt: str = "") -> MotionExtractor:
    weights = keyseeded.state_dict(golden.layout("motion_extractor"), salt)
    weights = {key: value for key, value in weights.items() if not KEY_RULES["motion_extractor"].ignores(key)}
    network = MotionExtractor(MotionExtractorConfig()).eval()
    network.load_state_dict(weights, strict=True)
    return network


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return golden.load("motion_extractor")


@pytest.fixture(scope="module")
def extractor() -> MotionExtractor:
    return released()


@pytest.fixture(scope="module")
def heads(extractor: MotionExtractor, recorded: dict[str, Tensor]):
    images = golden.upsampled(recorded["images_low_resolution"], CONFIG.motion_extractor.input_size_px)
    with torch.inference_mode():
        return extractor.heads(images)


@pytest.fixture(scope="module")
def poses(heads) -> HeadPose:
    """[0] portrait, [1:5] the first four driving frames, [5:9] the next four."""
    return MotionExtractor.pose(heads)


def test_keys_are_the_released_ones_but_for_the_listed_exceptions():
    with torch.device("meta"):
        ours = keyseeded.layout_of(MotionExtractor(MotionExtractorConfig()))
    file = golden.layout("motion_extractor")
    left = {key: shape for key, shape in file.items() if not KEY_RULES["motion_extractor"].ignores(key)}
    assert len(left) == len(file) - 3
    assert {key: list(value) for key, value in ours.items()} == left


@pytest.mark.parametrize("name", ["kp", "yaw", "pitch", "roll", "t", "scale"])
def test_heads_equal_the_recorded_ones(heads, recorded: dict[str, Tensor], name: str):
    torch.testing.assert_close(getattr(heads, name)[1:5], recorded[f"heads_{name}"], atol=TOLERANCE, rtol=0)


def test_first_window_keypoints_equal_the_recorded_ones(poses: HeadPose, recorded: dict[str, Tensor]):
    portrait, first = poses[0], poses[1]
    window = HeadPose.cat(
        [
            interpolated_start(portrait, first, CONFIG.warmup_frames),
            retarget(portrait, poses[1:5], first, gain=CONFIG.translation_gain),
        ]
    )
    actual = transform_keypoints(window)
    torch.testing.assert_close(actual, recorded["keypoints_first"], atol=TOLERANCE, rtol=0)


def test_later_keypoints_equal_the_recorded_ones(poses: HeadPose, recorded: dict[str, Tensor]):
    later = retarget(poses[0], poses[5:9], poses[1], gain=CONFIG.translation_gain)
    torch.testing.assert_close(transform_keypoints(later), recorded["keypoints_next"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("rows", "name"), [(slice(1, 5), "keypoints_driving"), (slice(5, 9), "keypoints_next_driving")]
)
def test_the_drivers_own_keypoints_equal_the_recorded_ones(poses, recorded, rows: slice, name: str):
    torch.testing.assert_close(transform_keypoints(poses[rows]), recorded[name], atol=TOLERANCE, rtol=0)


def test_other_weights_load_strictly_and_give_other_heads(recorded: dict[str, Tensor], heads):
    image = golden.upsampled(recorded["images_low_resolution"][1:2], CONFIG.motion_extractor.input_size_px)
    with torch.inference_mode():
        other = released(salt="other").heads(image)
    for name in ("kp", "yaw", "t"):
        assert (getattr(other, name) - getattr(heads, name)[1:2]).abs().max() > 10 * TOLERANCE


def test_forward_is_the_pose_of_the_heads():
    torch.manual_seed(0)
    network = MotionExtractor(NARROW).eval()
    images = torch.rand(2, 3, 64, 64)
    pose, again = network(images), network.pose(network.heads(images))
    assert pose.kp.shape == (2, 21, 3)
    assert pose.yaw.shape == pose.pitch.shape == pose.roll.shape == (2,)
    assert pose.t.shape == (2, 3)
    assert pose.scale.shape == (2, 1)
    assert torch.equal(transform_keypoints(pose), transform_keypoints(again))


def test_keypoints_are_trainable_through_every_parameter():
    torch.manual_seed(0)
    network = MotionExtractor(NARROW)
    transform_keypoints(network(torch.rand(2, 3, 64, 64))).square().sum().backward()
    # the response normalisation starts as the identity: its gain has a gradient all the same
    dead = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert dead == []


@pytest.mark.parametrize(("index", "degrees"), [(0, -97.5), (32, -1.5), (33, 1.5), (65, 97.5)])
def test_a_certain_bin_reads_as_its_angle(index: int, degrees: float):
    logits = torch.full((1, 66), -100.0)
    logits[0, index] = 100.0
    torch.testing.assert_close(bins_to_degrees(logits), torch.tensor([degrees]))


def test_angles_are_read_in_float32_whatever_the_format():
    logits = torch.linspace(-1, 1, 66)[None].to(torch.bfloat16)
    degrees = bins_to_degrees(logits)
    assert degrees.dtype == torch.float32
    expected = 3 * (torch.softmax(logits.double(), 1) * torch.arange(66)).sum(1) - 97.5
    torch.testing.assert_close(degrees.double(), expected, atol=1e-4, rtol=0)
