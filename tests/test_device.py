"""Tensors to a device and back; what only CUDA does is in tests/cuda."""

from __future__ import annotations

import torch

from personalive.device import HostCopy, constant, to_device

CPU = torch.device("cpu")


def test_on_one_device_nothing_is_copied():
    tensor = torch.rand(3)
    assert to_device(tensor, CPU) is tensor
    assert HostCopy(tensor).wait().data_ptr() == tensor.data_ptr()


def test_numbers_go_without_their_history():
    tensor = torch.rand(3, requires_grad=True)
    assert not HostCopy(tensor * 2).wait().requires_grad


def test_another_device_is_reached():
    assert to_device(torch.rand(3), torch.device("meta")).device.type == "meta"


def test_constants_are_made_once():
    values = ((1.0, 2.0), (3.0, 4.0))
    assert torch.equal(constant(values, CPU), torch.tensor(values))
    assert constant(values, CPU) is constant(values, CPU)
    assert constant((1, 2), CPU).dtype == torch.int64
