"""The One-Euro filter: what trembles gets calm, what moves fast arrives at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from personalive.vision.keypoints import HeadPose
from personalive.vision.one_euro import OneEuro, OneEuroConfig, calm_poses, pose_values

CONFIG = OneEuroConfig(min_cutoff=0.1, speed_gain=0.5)


def filtered(signal: np.ndarray, config: OneEuroConfig = CONFIG) -> np.ndarray:
    """(F, n) -> (F, n)."""
    state = OneEuro.at(config, signal[0])
    found = [state.value]
    for measured in signal[1:]:
        state = state.next(measured)
        found.append(state.value)
    return np.stack(found)


def test_it_is_the_published_filter():
    """Casiez et al. 2012, written anew for one value: cutoffs in cycles per frame, so the rate is 1."""

    def share(cutoff: float) -> float:
        return 1 / (1 + 1 / (2 * np.pi * cutoff))

    signal = np.array([0.3, 0.4, -1.7, 2.1, 2.0, 2.05])
    value, speed, wanted = signal[0], 0.0, [signal[0]]
    for before, now in itertools.pairwise(signal):
        speed += share(CONFIG.speed_cutoff) * (now - before - speed)
        value += share(CONFIG.min_cutoff + 0.5 * abs(speed)) * (now - value)
        wanted.append(value)
    assert filtered(signal[:, None])[:, 0] == pytest.approx(wanted)


def test_trembling_at_rest_is_calmed_to_a_third():
    noise = np.random.default_rng(0).normal(0, 0.05, (300, 4))
    assert filtered(noise)[20:].std() < noise[20:].std() / 1.7
    assert np.abs(np.diff(filtered(noise), axis=0)).mean() < np.abs(np.diff(noise, axis=0)).mean() / 3


def test_a_fast_turn_arrives_at_once_where_a_plain_low_pass_lags():
    turn = np.concatenate([np.zeros(5), np.full(5, 20.0)])[:, None]
    plain = OneEuroConfig(min_cutoff=CONFIG.min_cutoff, speed_gain=0.0)
    assert filtered(turn)[5, 0] > 0.75 * 20 > 0.5 * 20 > filtered(turn, plain)[5, 0]
    assert filtered(turn)[7, 0] > 0.98 * 20


def test_each_value_may_have_a_gain_of_its_own_and_none_affects_another():
    turn = np.repeat(np.array([0.0, 0.0, 10.0])[:, None], 2, axis=1)
    found = filtered(turn, OneEuroConfig(min_cutoff=0.1, speed_gain=(0.5, 0.0)))
    assert found[2, 0] > 1.5 * found[2, 1]
    assert found[:, 0] == pytest.approx(filtered(turn[:, :1])[:, 0])


def test_a_filter_is_a_value():
    first = OneEuro.at(CONFIG, np.zeros(2, np.float32))
    one, other = first.next(np.ones(2, np.float32)), first.next(np.ones(2, np.float32))
    assert np.array_equal(one.value, other.value) and np.array_equal(first.value, np.zeros(2))
    assert one.value.dtype == np.float32


def trembling(count: int) -> HeadPose:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 6, generator=draw)
    return HeadPose(
        kp=torch.randn(count, 5, 3, generator=draw),
        yaw=0.5 * noise[:, 0],
        pitch=0.5 * noise[:, 1],
        roll=0.1 * noise[:, 2],
        t=0.002 * torch.cat([noise[:, 3:5], noise[:, :1]], dim=1),
        scale=1 + 0.002 * noise[:, 5:],
    )


def test_head_poses_get_calm_chunk_by_chunk_as_all_at_once():
    poses = trembling(60)
    whole, _ = calm_poses(poses, None)
    parts, state = [], None
    for begin in range(0, 60, 4):
        part, state = calm_poses(poses[begin : begin + 4], state)
        parts.append(part)
    for one, other in zip(whole.tensors(), HeadPose.cat(parts).tensors(), strict=True):
        assert torch.equal(one, other)
    steps = [np.abs(np.diff(pose_values(found), axis=0)).mean(axis=0) for found in (poses, whole)]
    assert (steps[1] < 0.75 * steps[0]).all()
    assert torch.equal(whole.kp, poses.kp) and torch.equal(whole.t[:, 2], poses.t[:, 2])
    assert (whole.yaw.dtype, whole.scale.shape) == (torch.float32, (60, 1))


def test_the_filter_begins_anew_with_a_new_shot():
    poses = trembling(8)
    calm, _ = calm_poses(poses, None, cuts=(5,))
    assert np.allclose(pose_values(calm)[[0, 5]], pose_values(poses)[[0, 5]])
    assert not np.allclose(pose_values(calm)[[1, 6]], pose_values(poses)[[1, 6]])
    empty, state = calm_poses(poses[:0], None)
    assert (len(empty), state) == (0, None)
