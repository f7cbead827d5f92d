"""Face landmark and blendshape networks against tensors recorded with the tflite interpreter, and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.models.face_reader import BLENDSHAPE_LANDMARKS, FaceBlendshapes, FaceLandmarks
from personalive.vision.face_landmarks import CROP_SIDE_PX
from support import golden, keyseeded

TOLERANCE = 1e-4  # of the largest recorded value


def keyseeded_network(network: nn.Module) -> nn.Module:
    """The network with stand-in weights as float16 files hold them: bent PReLUs, residuals that stay of order 1."""
    weights = keyseeded.state_dict(keyseeded.layout_of(network))
    for key, value in weights.items():
        if key.endswith("act.weight"):
            value.mul_(0.3)
        elif key.endswith(("widen.weight", "narrow.weight")) and value.ndim == 4:
            value.mul_(0.7)
    network.load_state_dict({key: value.half().float() for key, value in weights.items()})
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return golden.load("face_reader")


@pytest.fixture(scope="module")
def landmark_network() -> nn.Module:
    return keyseeded_network(FaceLandmarks())


@pytest.fixture(scope="module")
def blendshape_network() -> nn.Module:
    return keyseeded_network(FaceBlendshapes())


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE * float(expected.abs().max()), rtol=0)


def test_landmarks_and_presence_equal_those_of_the_interpreter(landmark_network, recorded: dict[str, Tensor]):
    images = golden.upsampled(recorded["images_low_resolution"], CROP_SIDE_PX)
    landmarks, presence = landmark_network(images)
    assert landmarks.shape == (2, 478, 3)
    assert presence.shape == (2,)
    assert_close(landmarks, recorded["landmarks"])
    assert_close(presence, recorded["presence"])


def test_blendshapes_equal_those_of_the_interpreter(blendshape_network, recorded: dict[str, Tensor]):
    blendshapes = blendshape_network(recorded["points"])
    assert blendshapes.shape == (2, 52)
    assert_close(blendshapes, recorded["blendshapes"])


def test_a_batch_equals_its_images_one_by_one(landmark_network):
    images = torch.rand(2, 3, CROP_SIDE_PX, CROP_SIDE_PX, generator=torch.Generator().manual_seed(0))
    together, presence = landmark_network(images)
    for index in range(2):
        alone, logit = landmark_network(images[index : index + 1])
        assert_close(alone, together[index : index + 1])
        assert_close(logit, presence[index : index + 1])


def test_the_first_convolution_pads_on_the_right_and_at_the_bottom_only(landmark_network):
    """TensorFlow's SAME with a stride of 2 and an even size: the first window begins at pixel 0."""
    image = torch.rand(1, 3, CROP_SIDE_PX, CROP_SIDE_PX, generator=torch.Generator().manual_seed(1))
    stem = landmark_network.stem
    first = (stem.weight * image[:, :, :3, :3]).sum(dim=(1, 2, 3)) + stem.bias
    last = (stem.weight[..., :2, :2] * image[:, :, -2:, -2:]).sum(dim=(1, 2, 3)) + stem.bias
    features = stem(landmark_network.pad(image))
    assert features.shape[2:] == (128, 128)
    torch.testing.assert_close(features[0, :, 0, 0], first)
    torch.testing.assert_close(features[0, :, -1, -1], last)


def test_a_halving_block_adds_the_maximum_of_each_window_to_the_first_channels(landmark_network):
    block = landmark_network.stages[1][0]
    x = torch.randn(1, 16, 6, 6, generator=torch.Generator().manual_seed(2))
    inner = block.widen(block.depthwise(block.narrow_act(block.narrow(x))))
    residual = torch.zeros(1, 32, 3, 3)
    residual[:, :16] = x.unflatten(2, (3, 2)).unflatten(4, (3, 2)).amax(dim=(3, 5))
    torch.testing.assert_close(block(x), F.prelu(residual + inner, block.act.weight))


def test_blendshapes_do_not_depend_on_place_size_depth_or_unread_landmarks(blendshape_network, recorded):
    points = recorded["points"]
    expected = blendshape_network(points)
    moved = torch.cat([3 * points + 40, torch.randn(2, 478, 1, generator=torch.Generator().manual_seed(3))], dim=2)
    moved[:, sorted(set(range(478)) - set(BLENDSHAPE_LANDMARKS))] = 0
    torch.testing.assert_close(blendshape_network(moved), expected, atol=1e-5, rtol=0)
    turned = torch.stack([-points[..., 1], points[..., 0]], dim=2)
    assert (blendshape_network(turned) - expected).abs().max() > 1e-3


def test_blendshapes_read_146_landmarks_with_both_irises():
    assert len(set(BLENDSHAPE_LANDMARKS)) == 146
    assert list(BLENDSHAPE_LANDMARKS) == sorted(BLENDSHAPE_LANDMARKS)
    assert set(range(468, 478)) <= set(BLENDSHAPE_LANDMARKS)


@pytest.mark.parametrize("network", [FaceLandmarks, FaceBlendshapes])
def test_every_parameter_is_trainable(network):
    torch.manual_seed(0)
    module = network()
    if network is FaceLandmarks:
        landmarks, presence = module(torch.rand(1, 3, CROP_SIDE_PX, CROP_SIDE_PX))
        loss = landmarks.square().sum() + presence.square().sum()
    else:
        loss = module(torch.rand(2, 478, 2)).square().sum()
    loss.backward()
    dead = [key for key, value in module.named_parameters() if value.grad is None or not value.grad.any()]
    assert dead == []
