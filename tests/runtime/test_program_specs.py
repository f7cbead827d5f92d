"""Network calls as programs take them: the same numbers as the backend's own calls, for every count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personalive.engine.backend import Backend, flatten_reference, network_calls
from personalive.models.attention import KV
from personalive.runtime.programs import ProgramSpec, exported, program_specs
from personalive.vision.keypoints import HeadPose

METHODS = ("denoise", "decode", "project", "encode", "extract", "motion_tokens", "guide")


@pytest.fixture(scope="module")
def backend(networks) -> Backend:
    return Backend(networks)


@pytest.fixture(scope="module")
def found(backend) -> dict[str, ProgramSpec]:
    return program_specs(backend.networks)


def given(spec: ProgramSpec, counts: dict[str, int], seed: int = 0) -> list[Tensor]:
    """Noise of the shapes that the spec takes at these counts."""
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for name, example in spec.inputs.items():
        shape = list(example.shape)
        for axis, (count, unit) in spec.dynamic.get(name, {}).items():
            shape[axis] = counts[count] * unit
        inputs.append(torch.rand(shape, generator=generator).to(example.dtype))
    return inputs


def plainly(backend: Backend, name: str, inputs: list[Tensor]) -> list[Tensor]:
    """Result of the backend's own method, as a list of tensors."""
    if name == "denoise":
        latents, context, motion, pose, *tokens = inputs
        blocks = backend.networks.denoising_unet.spatial_transformers()
        reference = {block: KV(*tokens[2 * i : 2 * i + 2]) for i, block in enumerate(blocks)}
        return list(backend.denoise(latents, context=context, motion=motion, pose=pose, reference=reference))
    result = getattr(backend, name)(*inputs)
    if name == "project":
        return flatten_reference(result, list(backend.networks.denoising_unet.spatial_transformers()))
    if isinstance(result, HeadPose):
        return [result.kp, result.yaw, result.pitch, result.roll, result.t, result.scale]
    return list(result) if isinstance(result, tuple) else [result]


def test_every_network_call_has_a_spec(backend, found):
    assert set(METHODS) <= set(found)
    assert found.keys() == network_calls(backend.networks).keys()
    if backend.networks.detail is not None:
        assert {"flow_residual", "blend_mask"} <= set(found)
    for name, spec in found.items():
        assert callable(getattr(backend, name))
        assert len(set(spec.outputs)) == len(spec.outputs)


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_spec_gives_exactly_what_the_plain_call_gives(backend, found, name: str, count: int):
    inputs = given(found[name], {"n": count, "r": count, "s": count})
    result = found[name].module(*inputs)
    result = result if isinstance(result, tuple) else (result,)
    wanted = plainly(backend, name, inputs)
    assert len(wanted) == len(result) == len(found[name].outputs)
    for one, other in zip(result, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["denoise", "guide"])
def test_one_program_serves_every_count(backend, found, name: str):
    program = exported(found[name]).module()
    for count in (1, 2, 4):
        inputs = given(found[name], {"n": count, "r": count, "s": count}, seed=count)
        for one, other in zip(
            torch.utils._pytree.tree_leaves(program(*inputs)), plainly(backend, name, inputs), strict=True
        ):
            torch.testing.assert_close(one, other)
