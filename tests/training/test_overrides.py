"""The config: presets as overrides, files, ``key=value`` pairs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from personalive.errors import InputError
from personalive.training.config import TrainConfig
from personalive.training.overrides import as_json, check_same, flatten, from_json, resolve
from personalive.training.presets import PAPER_STAGES, PRESETS, STAGE_VALUES, STAGES


def refused(*arguments, **named) -> str:
    with pytest.raises(InputError) as error:
        resolve(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_full_preset_has_the_published_numbers():
    sizes = {stage: resolve(stage) for stage in PAPER_STAGES}
    assert {s: (c.steps, c.batch * c.accumulate) for s, c in sizes.items()} == {
        "motion": (30_000, 32),
        "distill": (30_000, 32),
        "stream": (10_000, 8),
    }
    config = flatten(sizes["stream"].model_dump())
    published = {
        "optimiser.lr": 1e-5,
        "optimiser.discriminator_lr": 2e-5,
        "optimiser.weight_decay": 0.01,
        "optimiser.clip_norm": 1.0,
        "drop.reference": 0.1,
        "drop.pose": 0.1,
        "drop.motion": 0.1,
        "drop.reference_tokens": 0.3,
        "augment.stretch": 1.3,
        "augment.warp_min": 0.02,
        "augment.warp_max": 0.04,
        "motion.noise_offset": 0.05,
        "loss.perceptual": 2.0,
        "loss.adversarial": 0.05,
        "discriminator.generator_from_step": 3000,
        "discriminator.train_from_step": 5000,
        "discriminator.deviation_group": 4,
        "stream.frames": 40,
        "stream.frame_stride": 4,
        "stream.gradient_windows": (0, 3, 6),
    }
    assert {key: config[key] for key in published} == published
    assert not any(config[f"{stage}.inference_form"] for stage in PAPER_STAGES)
    assert config["loss.domain"] == "pixels"
    assert config["loss.robust_from"] == config["images.second_reference"] == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_overrides_of_known_keys(stage, preset: str):
    config = resolve(stage, preset)
    known = flatten(TrainConfig(stage=stage).model_dump())
    chosen = PRESETS[preset]
    given = {**STAGE_VALUES.get(stage, {}), **chosen.values, **chosen.stage_values.get(stage, {})}
    assert set(given) <= set(known)
    assert flatten(config.model_dump()) == known | given | {"preset": preset}


def test_a_config_survives_its_file(tmp_path: Path):
    config = resolve("stream", "tiny", pairs=["stream.gradient_windows=0,2", "stream.keyframe_threshold=inf"])
    assert from_json(as_json(config), "x") == config
    file = tmp_path / "c.json"
    file.write_text(as_json(config))
    assert resolve("stream", "tiny", file) == config


def test_pairs_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"optimiser": {"lr": 3e-4}, "batch": 7, "drop.pose": 0}))
    config = resolve("motion", "tiny", file, ["batch=3", "compute.recompute=true"])
    assert (config.optimiser.lr, config.batch, config.drop.pose, config.compute.recompute) == (3e-4, 3, 0.0, True)
    assert config.steps == resolve("motion", "tiny").steps


def test_unknown_keys_name_those_spelled_alike(tmp_path: Path):
    assert "optimiser.lr" in refused("motion", pairs=["optimizer.lr=1"])
    assert "did you mean optimiser.clip_norm" in refused("motion", pairs=["clip_norm=1"])
    assert "--dry-run prints all keys" in refused("motion", pairs=["qqqq=1"])
    file = tmp_path / "c.json"
    file.write_text('{"optimiser": {"rate": 1}}')
    assert str(file) in (line := refused("motion", file=file))
    assert "'optimiser.rate'" in line


BAD = """batch=0 batch=two batch=1.5 drop.pose=1.1 drop.reference_tokens=1 optimiser.lr=nan optimiser.lr=-1
optimiser.lr=inf optimiser.beta1=1 optimiser.kind=sgd compute.precision=int8 average.on=maybe augment.stretch=0.9
augment.warp_min=0.5 stream.gradient_windows=3,0 stream.gradient_windows=a stage=distill steps freeze=vae"""


@pytest.mark.parametrize("pair", BAD.split())
def test_values_that_mean_nothing_are_refused(pair: str):
    assert pair.partition("=")[0].rpartition(".")[2] in refused("motion", pairs=[pair])


def test_a_refusal_names_where_the_value_came_from_the_key_the_value_and_the_bound(tmp_path: Path):
    assert refused("motion", pairs=["drop.pose=1.1"]) == "--set: drop.pose '1.1' should be less than or equal to 1"
    file = tmp_path / "c.json"
    file.write_text('{"augment": {"warp_min": 0.5}}')
    line = "augment.warp_max 0.04 should not be below warp_min (0.5)"
    assert refused("motion", file=file) == f"--set: {line}"
    assert resolve("motion", file=file, pairs=["augment.warp_max=0.6"]).augment.warp_max == 0.6
    file.write_text('{"batch": true}')
    assert refused("motion", file=file) == f"{file}: batch True should not be true or false"


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", '{"batch": "x"}', '{"batch": true}', '{"drop": 1}'])
def test_bad_files_are_refused(tmp_path: Path, content: str):
    file = tmp_path / "c.json"
    file.write_text(content)
    assert str(file) in refused("motion", file=file)


def test_missing_files_unknown_stages_and_presets_are_refused(tmp_path: Path):
    assert "gone.json" in refused("motion", file=tmp_path / "gone.json")
    assert "full, tiny" in refused("motion", "large")
    assert "motion, distill, stream, detail" in refused("dance")


def test_a_run_may_only_change_its_length_and_its_journal():
    begun = resolve("motion", "tiny")
    longer = resolve("motion", "tiny", pairs=["steps=999", "journal.sheet_rows=1"])
    check_same(begun, longer, "run")
    other = resolve("motion", "tiny", pairs=["optimiser.lr=1", "batch=9"])
    with pytest.raises(InputError, match=r"run: this run began with batch 4, not 9 \(and 1 more\)"):
        check_same(begun, other, "run")
