"""All stages at toy size: what they train, what they leave, and that the result runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from personalive.runtime.load import load_engine
from personalive.training.data import CELLS, RenderedSet, sequence
from personalive.training.presets import HELD_OUT_SEED, STAGES, DataConfig

# Weights that no result depends on: a softmax over one context token is 1 whatever queries and keys are.
IDLE = ("attn2.to_q.", "attn2.to_k.", "norm2.")


def of(names: set[str], *parts: str) -> set[str]:
    return {name for name in names if name.startswith(tuple(f"{part}." for part in parts))}


def temporal(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("denoising_unet.") and ".temporal_modules." in name}


def test_every_group_is_rendered_and_told(finished):
    assert finished.rendered == [1, 2]


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("vae", ["vae"]),
        ("decoder", ["vae.decoder", "vae.post_quant_conv"]),
        ("extractor", ["motion_extractor"]),
        ("tokens", ["motion_encoder", "reader"]),
        ("motion", ["clip", "reference_unet", "denoising_unet", "pose_guider", "detail"]),
        ("sharpen", ["clip", "reference_unet", "denoising_unet", "pose_guider", "detail"]),
        ("detail", ["detail"]),
        ("temporal", ["denoising_unet"]),
    ],
)
def test_a_stage_reaches_exactly_what_it_trains(finished, stage: str, parts: list[str]):
    mine = of(finished.all, *parts)
    if stage in ("motion", "sharpen"):
        mine -= temporal(finished.all) | of(finished.all, "detail.blend")
    if stage == "temporal":
        mine = temporal(finished.all)
    assert mine
    assert finished.reached[stage] <= mine, sorted(finished.reached[stage] - mine)
    missed = {n for n in mine - finished.reached[stage] if not any(idle in n for idle in IDLE)}
    if stage in ("motion", "sharpen"):  # the reference net's way up ends with the last features that are kept
        missed = {n for n in missed if not n.startswith(("reference_unet.up_blocks", "clip."))}
    assert missed == set()


def test_the_temporal_stage_asks_for_temporal_modules_only(finished):
    asked = of(finished.asked["temporal"], "denoising_unet")
    assert asked == temporal(finished.all)


def test_each_stage_leaves_its_file_and_says_what_it_does(finished):
    left = {path.name for path in finished.folder.iterdir() if path.is_file()}
    names = ("vae", "motion_extractor", "reader", "motion_encoder", "motion", "critic", "temporal")
    assert left == {f"{name}.safetensors" for name in names} | {"log.jsonl"}
    for stage in STAGES:
        assert any(line.startswith(f"{stage}: ") and " parameters" in line for line in finished.said), stage


def test_the_temporal_stage_leaves_the_temporal_modules_alone_in_its_file(finished):
    before = load_file(finished.folder / "motion.safetensors")
    before = {flat(name): tensor for name, tensor in before.items() if ".temporal_modules." in name}
    after = {flat(name): tensor for name, tensor in load_file(finished.folder / "temporal.safetensors").items()}
    assert after.keys() == before.keys()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())


def flat(name: str) -> str:
    """A parameter's name without what only one of the two files puts in front."""
    return name.removeprefix("by_block.").removeprefix("denoising_unet.").replace(".", "_")


def test_the_exported_folder_is_a_model_that_runs(finished):
    (folder,) = finished.folder.glob("tiny-*")
    engine = load_engine(folder, device="cpu", dtype="float32")
    frames = np.array(RenderedSet(finished.folder / "data").images[0, :, :].reshape(-1, 128, 128, 3))
    state, chunk = engine.step(engine.start(frames[0]), frames[1:5])
    assert chunk.shape == (4, 128, 128, 3)
    assert state.latents.isfinite().all()
    assert engine.networks.vae.config.scaling_factor != 1.0  # measured on the data


# --- the rendered set ---------------------------------------------------------------------------------------


def test_two_people_give_the_same_performance(finished):
    data = RenderedSet(finished.folder / "data")
    assert data.images.shape == (2, 2, 3, 128, 128, 3)
    assert data.truth.pose.shape == (2, 3, 6)  # one for both people
    assert data.truth.masks.shape == (2, 2, 3, 3, CELLS, CELLS)
    for group in range(2):
        assert not np.array_equal(data.truth.identity[group, 0], data.truth.identity[group, 1])
        assert np.abs(data.images[group, 0].astype(int) - data.images[group, 1]).mean() > 5
    assert np.ptp(data.truth.pose[..., 0], axis=1).min() > 0  # heads turn
    assert data.truth.masks[:, :, :, 0].max() == 255  # some cells are all face


def test_a_group_depends_on_its_seed_alone():
    people, motions = sequence(DataConfig(groups=9), 4)
    again, same = sequence(DataConfig(groups=1, first_seed=4), 0)
    assert [p.to_vector().tolist() for p in people] == [p.to_vector().tolist() for p in again]
    assert [m.yaw_deg for m in motions] == [m.yaw_deg for m in same]
    others = sequence(DataConfig(), 5)[0]
    assert others[0].to_vector().tolist() != people[0].to_vector().tolist()


def test_held_out_people_are_never_rendered_for_training():
    assert 2 * (DataConfig.first_seed + DataConfig.groups) < HELD_OUT_SEED
