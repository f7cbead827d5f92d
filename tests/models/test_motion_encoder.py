"""The motion encoder against the recorded network, and its behaviour at other sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from personalive.config import MotionEncoderConfig
from personalive.errors import CheckpointError
from personalive.models.motion_encoder import MotionEncoder
from support import golden, keyseeded

NARROW = MotionEncoderConfig(
    face_size_px=64, width=8, landmark_maps=12, attention_width=32, attention_heads=2, tokens=4, token_width=6
)
TOLERANCE = 1e-4  # other CPU kernels moved the original's own results by less


def released(salt: str = "") -> MotionEncoder:
    with torch.device("meta"):
        network = MotionEncoder(MotionEncoderConfig())
    weights = keyseeded.state_dict(golden.layout("motion_encoder"), salt)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval()


def narrow(config: MotionEncoderConfig = NARROW) -> MotionEncoder:
    network = MotionEncoder(config)
    network.load_state_dict(keyseeded.state_dict(keyseeded.layout_of(network)), strict=True)
    return network.eval()


def noise(count: int, size_px: int) -> Tensor:
    return torch.rand(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_keys_and_shapes_are_the_released_ones():
    with torch.device("meta"):
        ours = keyseeded.layout_of(MotionEncoder(MotionEncoderConfig()))
    assert {key: list(value) for key, value in ours.items()} == golden.layout("motion_encoder")


def test_tokens_equal_the_recorded_ones_and_follow_the_weights():
    recorded = golden.load("motion_encoder")
    faces = golden.upsampled(recorded["faces_low_resolution"], 224)
    with torch.inference_mode():
        tokens = released()(faces)
        other = released(salt="other")(faces[:1])
    torch.testing.assert_close(tokens, recorded["motion_tokens"][0], atol=TOLERANCE, rtol=0)
    assert (other - tokens[:1]).abs().max() > 0.1


def test_only_the_downsample_norms_have_the_larger_epsilon():
    with torch.device("meta"):
        network = MotionEncoder(MotionEncoderConfig())
    epsilon = {name: m.eps for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    widened = {"model.conv2.downsample.0", "model.conv4.downsample.0"}
    assert {name for name, value in epsilon.items() if value == 1e-4} == widened
    assert {value for name, value in epsilon.items() if name not in widened} == {1e-5}


def test_position_table_of_the_tokens_is_the_released_one():
    released_table = keyseeded.tensor("pe", (1, 32, 16), "float32")
    torch.testing.assert_close(
        MotionEncoder(dataclasses.replace(NARROW, tokens=32, token_width=16)).pe, released_table
    )


@pytest.mark.parametrize(
    ("size_px", "width"), [(64, 8), (96, 16), (112, 16)], ids=["smallest", "quarter-96", "quarter-112"]
)
def test_other_sizes_follow_from_the_config(size_px: int, width: int):
    config = dataclasses.replace(NARROW, face_size_px=size_px, width=width)
    network = narrow(config)
    with torch.inference_mode():
        tokens = network(noise(2, size_px))
    assert tokens.shape == (2, config.tokens, config.token_width)
    assert network.model.fc.in_features == (size_px // 8) ** 2
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


def test_a_face_is_encoded_alike_alone_and_in_company():
    network, faces = narrow(), noise(3, NARROW.face_size_px)
    with torch.inference_mode():
        together = network(faces)
        alone = torch.cat([network(face[None]) for face in faces])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_batch_norm_statistics_move_in_training_only():
    network, faces = narrow(), noise(2, NARROW.face_size_px)

    def statistics() -> Tensor:
        return network.state_dict()["model.bn1.running_mean"].clone()

    before = statistics()
    network(faces)
    assert torch.equal(statistics(), before)
    network.train()(faces)
    assert not torch.equal(statistics(), before)


def test_every_parameter_is_trained():
    network = narrow().train()
    network(noise(4, NARROW.face_size_px)).square().sum().backward()
    # conv1's bias is taken away again by the batch norm behind it, and so are those before other batch norms
    free = {"model.conv1.bias", "model.conv_last0.bias", "model.l0.bias"}
    dead = {key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()}
    assert dead <= free


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("face_size_px", 100, "multiple of 8"),
        ("face_size_px", 56, "at least 64"),
        ("attention_width", 40, "multiple of 16"),
        ("attention_heads", 3, "attention_heads"),
        ("width", 12, "multiple of 8"),
        ("token_width", 5, "even"),
    ],
)
def test_impossible_sizes_are_refused_in_one_line(name: str, value: int, rule: str):
    with pytest.raises(CheckpointError, match=rule) as refusal:
        MotionEncoder(dataclasses.replace(NARROW, **{name: value}))
    assert "\n" not in str(refusal.value)
    assert "motion_encoder" in str(refusal.value)
