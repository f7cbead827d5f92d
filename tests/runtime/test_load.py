"""Names that become devices and dtypes."""

from __future__ import annotations

import pytest
import torch

from personalive.errors import DeviceError
from personalive.runtime.load import choose_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(("amx", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_takes_bfloat16_only_where_amx_makes_it_fast(
    monkeypatch: pytest.MonkeyPatch, amx: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose_dtype("auto", CPU) is expected
    assert choose_dtype("bfloat16", CPU) is torch.bfloat16  # who names one gets it


def test_a_gpu_takes_float16_and_an_unknown_name_is_refused() -> None:
    assert choose_dtype("auto", torch.device("cuda")) is torch.float16
    with pytest.raises(DeviceError, match="'int4' is not known: use auto, float32, float16, bfloat16"):
        choose_dtype("int4", CPU)
