"""Both U-Nets against the recorded networks, and how their frames and reference tokens depend on each other."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from personalive.checkpoints.networks import unet_to_diffusers
from personalive.models.attention import KV, FrameInputs, TemporalAttention, attend
from personalive.models.unet import DenoisingUNet, ReferenceUNet, UNetConfig
from support import golden, keyseeded, recorded_unets

TOLERANCE = 1e-3  # absolute; other CPU kernels moved the original's own results by less than 1e-4
NARROW = UNetConfig(
    channels=(8, 16),
    down_attends=(True, False),
    up_attends=(False, True),
    layers=1,
    heads=2,
    groups=4,
    context_width=12,
)
FRAMES = 4


def recorded_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return recorded_arrays(golden.FOLDER / "unets_small.npz")


@pytest.fixture(scope="module")
def recorded_features(recorded: Mapping[str, Any]) -> list[recorded_unets.Features]:
    return recorded_unets.features(recorded_unets.reference_unet(golden.manifest()), recorded)


@pytest.fixture(scope="module")
def denoiser() -> DenoisingUNet:
    return recorded_unets.denoising_unet(golden.manifest())


# --- the recorded networks ----------------------------------------------------------------------------------


def test_reference_features_equal_the_recorded_ones(recorded, recorded_features):
    found = recorded_unets.first_tokens(recorded_features[0], recorded)
    torch.testing.assert_close(found, torch.from_numpy(recorded["bank_first_tokens"]), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("keyframes", [0, 1, 2])
def test_noise_equals_the_recorded_one(recorded, recorded_features, denoiser, keyframes: int):
    found = recorded_unets.noise(denoiser, recorded, recorded_features[: 1 + keyframes])[..., ::2, ::2]
    wanted = torch.from_numpy(recorded[recorded_unets.NOISES[keyframes]])
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_a_keyframe_changes_the_noise_by_far_more_than_the_tolerance(recorded):
    none, one, two = (torch.from_numpy(recorded[name]) for name in recorded_unets.NOISES)
    assert (none - one).abs().mean() > 10 * TOLERANCE
    assert (one - two).abs().mean() > 10 * TOLERANCE


def test_other_weights_load_strictly_and_give_other_noise(recorded, recorded_features):
    salted = recorded_unets.denoising_unet(golden.manifest(), salt="other")
    found = recorded_unets.noise(salted, recorded, recorded_features[:1])[..., ::2, ::2]
    assert found.isfinite().all()
    assert (found - torch.from_numpy(recorded["noise_no_keyframe"])).abs().mean() > 0.1


@pytest.mark.full
def test_full_size_networks_equal_the_recorded_ones():
    """Needs 10 GB of memory and, in ``PERSONALIVE_PARITY_DIR``, manifest_full.json and unets_full.npz."""
    folder = Path(os.environ["PERSONALIVE_PARITY_DIR"])
    manifest = json.loads((folder / "manifest_full.json").read_text())
    full = recorded_arrays(folder / "unets_full.npz")
    kept = recorded_unets.features(recorded_unets.reference_unet(manifest), full)  # freed before the next is built
    found = recorded_unets.first_tokens(kept[0], full)
    torch.testing.assert_close(found, torch.from_numpy(full["bank_first_tokens"]), atol=TOLERANCE, rtol=0)
    network = recorded_unets.denoising_unet(manifest)
    for keyframes, name in enumerate(recorded_unets.NOISES):
        noise = recorded_unets.noise(network, full, kept[: 1 + keyframes])
        torch.testing.assert_close(noise, torch.from_numpy(full[name]), atol=TOLERANCE, rtol=0)


# --- properties, on narrow networks -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow() -> tuple[ReferenceUNet, DenoisingUNet]:
    networks = ReferenceUNet(NARROW), DenoisingUNet(NARROW)
    for network in networks:
        network.load_state_dict(keyseeded.state_dict(keyseeded.layout_of(network)))
        network.eval().requires_grad_(False)
    return networks


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predicted(
    network: DenoisingUNet, reference: Mapping[str, KV] | None, frames: slice = slice(None), **changed: Any
):
    inputs = {
        "latents": random_tensor(1, 4, FRAMES, 8, 8)[:, :, frames],
        "timesteps": torch.tensor([[0, 333, 666, 999]])[:, frames],
        "context": random_tensor(1, 1, 12, seed=1),
        "motion": random_tensor(1, FRAMES, 6, 16, seed=2)[:, frames],
        "pose": random_tensor(1, 8, FRAMES, 8, 8, seed=3)[:, :, frames],
    } | changed
    return network(inputs.pop("latents"), inputs.pop("timesteps"), reference=reference, **inputs)


def reference_of(narrow: tuple[ReferenceUNet, DenoisingUNet], seed: int) -> dict[str, Tensor]:
    return narrow[0](
        random_tensor(1, 4, 8, 8, seed=seed), torch.zeros(1, 1, dtype=torch.long), random_tensor(1, 1, 12, seed=1)
    )


def test_features_and_reference_arguments_have_the_same_names(narrow):
    assert reference_of(narrow, 5).keys() == narrow[1].spatial_transformers().keys()


def test_keys_and_values_of_images_can_be_projected_one_by_one(narrow):
    one, two = reference_of(narrow, 5), reference_of(narrow, 6)
    apart = [narrow[1].project_reference(kept) for kept in (one, two)]
    together = narrow[1].project_reference({name: torch.cat([one[name], two[name]], dim=1) for name in one})
    for name, (key, value) in together.items():
        torch.testing.assert_close(torch.cat([p[name].key for p in apart], dim=1), key)
        torch.testing.assert_close(torch.cat([p[name].value for p in apart], dim=1), value)


def test_the_order_of_reference_images_does_not_matter(narrow):
    parts = [narrow[1].project_reference(reference_of(narrow, seed)) for seed in (5, 6)]
    both = [
        {n: KV(torch.cat([a[n].key, b[n].key], 1), torch.cat([a[n].value, b[n].value], 1)) for n in a}
        for a, b in (parts, reversed(parts))
    ]
    torch.testing.assert_close(predicted(narrow[1], both[0]), predicted(narrow[1], both[1]), atol=1e-5, rtol=1e-5)


def test_without_temporal_modules_a_frame_knows_nothing_of_the_others(narrow):
    reference = narrow[1].project_reference(reference_of(narrow, 5))
    together = predicted(narrow[1], reference, temporal=False)
    for frame in range(FRAMES):
        alone = predicted(narrow[1], reference, slice(frame, frame + 1), temporal=False)
        torch.testing.assert_close(together[:, :, frame : frame + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["latents", "timesteps", "motion", "pose"])
def test_with_temporal_modules_every_input_of_a_frame_reaches_every_frame(narrow, name: str):
    inputs = {
        "latents": random_tensor(1, 4, FRAMES, 8, 8),
        "timesteps": torch.tensor([[0, 333, 666, 999]]),
        "motion": random_tensor(1, FRAMES, 6, 16, seed=2),
        "pose": random_tensor(1, 8, FRAMES, 8, 8, seed=3),
    }
    axis = {"latents": 2, "timesteps": 1, "motion": 1, "pose": 2}[name]
    changed = inputs[name].clone()
    changed.select(axis, -1).add_(-500 if name == "timesteps" else 1)
    reference = narrow[1].project_reference(reference_of(narrow, 5))
    moved = (predicted(narrow[1], reference, **{name: changed}) - predicted(narrow[1], reference)).abs()
    assert (moved.amax(dim=(0, 1, 3, 4)) > 1e-4).all()


def test_causal_attention_looks_at_frames_that_are_not_noisier():
    config = dataclasses.replace(NARROW, temporal_attention="causal")
    torch.manual_seed(0)
    causal = DenoisingUNet(config).eval().requires_grad_(False)
    levels = torch.tensor([[0, 333, 333, 999]])
    latents = random_tensor(1, 4, FRAMES, 8, 8)
    plain = predicted(causal, None, latents=latents, timesteps=levels)
    for place, reached in ((0, [0, 1, 2, 3]), (1, [1, 2, 3]), (2, [1, 2, 3]), (3, [3])):
        changed = latents.clone()
        changed[:, :, place] += 1
        moved = (predicted(causal, None, latents=changed, timesteps=levels) - plain).abs().amax(dim=(0, 1, 3, 4))
        assert (moved > 1e-5).nonzero().flatten().tolist() == reached


def test_no_reference_is_not_the_same_as_one(narrow):
    reference = narrow[1].project_reference(reference_of(narrow, 5))
    assert (predicted(narrow[1], None) - predicted(narrow[1], reference)).abs().max() > 1e-3


def test_a_context_of_several_tokens_is_refused(narrow):
    with pytest.raises(ValueError, match="one token"):
        predicted(narrow[1], None, context=random_tensor(1, 2, 12))


# --- levels without frame modules ---------------------------------------------------------------------------


def test_a_level_may_go_without_motion_and_temporal_modules():
    config = dataclasses.replace(NARROW, frame_levels=(False, True))
    keys = set(DenoisingUNet(config).state_dict())
    frame_keys = {key.split(".temporal_transformer")[0] for key in keys if ".temporal_transformer." in key}
    assert {key.rsplit(".", 2)[0] for key in frame_keys} == {"down_blocks.1", "mid_block", "up_blocks.0"}
    assert keys < set(DenoisingUNet(NARROW).state_dict())


@pytest.mark.parametrize(("name", "value"), [("frame_levels", (False, True)), ("temporal_attention", "causal")])
def test_what_is_ours_survives_the_config_file(name: str, value):
    config = dataclasses.replace(NARROW, **{name: value})
    assert UNetConfig.from_diffusers(unet_to_diffusers(config)) == config
    released = unet_to_diffusers(UNetConfig())
    assert name not in released
    assert UNetConfig.from_diffusers(released) == UNetConfig()


@pytest.mark.parametrize("name", ["frame_levels", "down_attends", "up_attends"])
def test_lists_by_level_of_another_length_are_refused(name: str):
    with pytest.raises(ValueError, match="one value per level"):
        dataclasses.replace(NARROW, **{name: (True, False, True)})


# --- attention with a gradient ------------------------------------------------------------------------------


def test_attention_gives_the_same_with_and_without_a_gradient():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 16, generator=generator) for n in (5, 7, 7))
    for sees in (None, torch.rand(5, 7, generator=generator) < 0.5):
        plain = attend(q.detach(), k, v, heads=2, attention_mask=sees)
        trained = attend(q.requires_grad_(), k, v, heads=2, attention_mask=sees)
        torch.testing.assert_close(trained, plain, atol=1e-6, rtol=1e-5)


# --- layout -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_norm_keeps_the_layout_of_convolutions_and_the_prediction_stays(narrow):
    denoiser = copy.deepcopy(narrow[1])
    attended = denoiser.project_reference(reference_of(narrow, 1))
    wanted = predicted(denoiser, attended)
    denoiser.to(memory_format=torch.channels_last)
    kept: list[bool] = []
    for module in denoiser.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(
                lambda *given: kept.append(given[2].is_contiguous(memory_format=torch.channels_last))
            )
    torch.testing.assert_close(predicted(denoiser, attended), wanted, atol=1e-5, rtol=1e-5)
    assert kept and all(kept)


# --- attention along frames ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_temporal_attention_gives_what_each_position_alone_gives(masked: bool):
    torch.manual_seed(0)
    module, x = TemporalAttention(16, 16, heads=2), torch.randn(2 * FRAMES, 9, 16)
    mask = torch.ones(FRAMES, FRAMES).tril().bool() if masked else None
    found = module(x, FrameInputs(FRAMES, attention_mask=mask))
    for sample, of_sample in enumerate(found.unflatten(0, (2, FRAMES)).unbind()):
        for place in range(9):
            tokens = x.unflatten(0, (2, FRAMES))[sample, :, place] + module.pos_encoder.pe[0, :FRAMES]
            q, k, v = (layer(tokens)[None] for layer in (module.to_q, module.to_k, module.to_v))
            wanted = module.to_out[0](attend(q, k, v, 2, mask))[0]
            torch.testing.assert_close(of_sample[:, place], wanted, atol=1e-6, rtol=1e-5)
