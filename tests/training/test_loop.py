"""The loop: resume, accumulation, averaging, dtypes, and what ends a run."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from personalive.errors import CheckpointError, InputError, TrainingError
from personalive.training import log as log_module
from personalive.training.optimiser import Checkpoints
from support.toy_run import rows, toy_config, toy_loop, toy_networks


def values(loop) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in loop.networks.parameters.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """Five steps of stage motion in one go, with an average."""
    folder = tmp_path_factory.mktemp("whole")
    loop = toy_loop(folder, toy_config("motion", "steps=5", "average.on=true"))
    assert loop.run() == 5
    return folder, loop


def test_steps_after_the_last_checkpoint_are_done_again_bit_for_bit_and_logged_once(whole, tmp_path: Path):
    folder, uninterrupted = whole
    loop = toy_loop(tmp_path, toy_config("motion", "steps=5", "average.on=true"))
    step = loop._step

    def stopped(number: int, batches) -> dict[str, torch.Tensor]:
        if number == 3:
            raise KeyboardInterrupt
        return step(number, batches)

    loop._step = stopped
    with pytest.raises(KeyboardInterrupt) as stop:
        loop.run()
    assert stop.value.__notes__ == [f"{tmp_path} is kept up to step 2; the same command goes on from there"]
    assert len(rows(tmp_path)) == 3
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "kind": "tra')  # cut off by a kill
    again = toy_loop(tmp_path, toy_config("motion", "steps=5", "average.on=true"))
    assert again.run() == 3
    assert rows(tmp_path) == rows(folder)
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5]
    for name, value in values(uninterrupted).items():
        assert torch.equal(value, again.networks.parameters[name]), name
        assert torch.equal(uninterrupted.networks.average[name], again.networks.average[name]), name


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path):
    plain = ["steps=2", "drop.reference=0.5"]  # some samples see their reference, some do not
    large = toy_loop(tmp_path / "a", toy_config("motion", *plain, "batch=4"))
    small = toy_loop(tmp_path / "b", toy_config("motion", *plain, "batch=1", "accumulate=4"))
    large.run(), small.run()
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["norm"] == pytest.approx(other["norm"], rel=1e-3)
    # AdamW's first updates are of the size of the rate, whatever the gradient: compare against that
    rate = large.config.optimiser.lr
    moved = [(small.networks.parameters[n] - v).abs() for n, v in values(large).items()]
    assert torch.cat([m.flatten() for m in moved]).quantile(0.99) < 0.1 * rate


@pytest.mark.parametrize("value", ["compute.recompute=true", "compute.precision=bfloat16"])
def test_less_memory_and_lower_precision_change_little(whole, tmp_path: Path, value: str):
    folder, _ = whole
    toy_loop(tmp_path, toy_config("motion", "steps=2", value)).run()
    found_rows = rows(tmp_path)
    assert len(found_rows) == 2
    for found, exact in zip(found_rows, rows(folder)[:2], strict=True):
        assert found["loss"] == pytest.approx(exact["loss"], rel=1e-5 if "recompute" in value else 0.05)
        assert found["norm"] == pytest.approx(exact["norm"], rel=1e-3 if "recompute" in value else 0.2)


def test_float16_keeps_its_scale_over_a_resume(tmp_path: Path):
    half = ["compute.precision=float16", "optimiser.lr=1e-4"]
    one = toy_loop(tmp_path / "one", toy_config("motion", "steps=2", *half))
    one.run()
    toy_loop(tmp_path / "two", toy_config("motion", "steps=1", *half)).run()
    two = toy_loop(tmp_path / "two", toy_config("motion", "steps=2", *half))
    two.run()
    assert two.networks.scaler.state_dict() == one.networks.scaler.state_dict()
    assert one.networks.scaler.is_enabled()
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


def test_the_average_trails_the_parameters_and_is_used_only_inside(whole):
    _, loop = whole
    own, name = values(loop), next(iter(loop.networks.parameters))
    assert any(not torch.equal(loop.networks.average[n], v) for n, v in own.items())
    with loop.networks.averaged():
        assert torch.equal(loop.networks.parameters[name], loop.networks.average[name])
    assert all(torch.equal(loop.networks.parameters[n], v) for n, v in own.items())


def test_the_last_two_checkpoints_are_kept(whole):
    folder, _ = whole
    assert Checkpoints(folder / "checkpoints", 2).steps() == [4, 5]
    files = {path.suffix for path in (folder / "checkpoints").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}


# --- ends ---------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_keeps_the_last_checkpoint_and_names_the_step(tmp_path: Path):
    loop = toy_loop(tmp_path, toy_config("motion", "steps=9"))
    losses = loop.stage.losses

    def spoiled(step: int, batch, rngs):
        for output in losses(step, batch, rngs):
            if step == 3:
                output.losses["loss"] = output.losses["loss"] * float("nan")
            yield output

    loop.stage.losses = spoiled
    with pytest.raises(TrainingError) as error:
        loop.run()
    assert str(error.value).startswith(f"{tmp_path}: the loss is not a number in step 4: ")
    assert "--set steps=2 exports it" in str(error.value)
    assert "\n" not in str(error.value)
    assert Checkpoints(tmp_path / "checkpoints", 2).steps() == [2]
    kept = toy_loop(tmp_path, toy_config("motion", "steps=2"))
    assert kept.run() == 0
    assert all(value.isfinite().all() for value in values(kept).values())


def test_a_gradient_that_is_not_a_number_stops_too(tmp_path: Path):
    loop = toy_loop(tmp_path, toy_config("motion", "steps=1"))
    parameter = next(iter(loop.networks.parameters.values()))
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="the gradient of the networks is not a number in step 1: no checkpoint"):
        loop.run()


def test_a_damaged_checkpoint_says_what_to_remove(tmp_path: Path):
    toy_loop(tmp_path, toy_config("motion", "steps=1")).run()
    file = tmp_path / "checkpoints" / "step-00000001" / "networks.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"step-00000001: damaged.*remove it"):
        toy_loop(tmp_path, toy_config("motion", "steps=2")).run()


def test_half_written_checkpoints_are_swept_away(tmp_path: Path):
    left = tmp_path / "checkpoints" / ".step-00000007.0123.partial"
    left.mkdir(parents=True)
    toy_loop(tmp_path, toy_config("motion", "steps=1")).run()
    assert not left.exists()


# --- optimisers ---------------------------------------------------------------------------------------------


def test_one_update_is_adamw_by_hand(tmp_path: Path):
    """Decoupled decay, then the first bias-corrected step: the gradient's sign times the rate."""
    config = toy_config("motion", "steps=1", "optimiser.weight_decay=0.5", "optimiser.lr=0.01")
    loop = toy_loop(tmp_path, config)
    before = values(loop)
    gradients = {}
    for name, parameter in loop.networks.parameters.items():
        parameter.register_hook(lambda gradient, name=name: gradients.__setitem__(name, gradient.clone()))
    loop.run()
    (row,) = rows(tmp_path)
    clip = min(1.0, 1.0 / (row["norm"] + 1e-6))
    name = "pose_guider.conv_in.weight"
    gradient = clip * gradients[name]
    expected = before[name] * (1 - 0.01 * 0.5) - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(loop.networks.parameters[name].detach(), expected, atol=1e-5, rtol=1e-4)


def test_eight_bit_adamw_without_its_package_says_what_to_install(tmp_path: Path):
    assert importlib.util.find_spec("bitsandbytes") is None
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        toy_loop(tmp_path, toy_config("motion", "optimiser.kind=adamw8bit"))


# --- what people see ----------------------------------------------------------------------------------------


def test_sheets_scalars_and_held_out_rows_come_on_their_schedule(tmp_path: Path):
    shown = ["journal.tensorboard=true", "journal.held_out_samples=3", "journal.sheet_rows=2"]
    every = ["journal.held_out_every_steps=2", "journal.sheet_every_steps=3", "journal.log_every_steps=2"]
    toy_loop(tmp_path, toy_config("motion", "steps=4", *shown, *every)).run()
    assert [row["step"] for row in rows(tmp_path)] == [2, 4]
    assert [row["step"] for row in rows(tmp_path, "held_out")] == [0, 2, 4]
    sheets = sorted((tmp_path / "sheets").iterdir())
    assert [path.name for path in sheets] == [f"step-{n:08d}.png" for n in (0, 3, 4)]
    page = np.asarray(Image.open(sheets[0]))
    assert page.shape == (2 * 196 + 4, 4 * 196 + 4, 3)  # reference, driver's face, truth, result
    assert page.std() > 10
    assert scalars(tmp_path / "tensorboard") == {("train/loss", 2), ("train/loss", 4)} | {
        ("held_out/loss", step) for step in (0, 2, 4)
    }


def scalars(folder: Path) -> set[tuple[str, int]]:
    with warnings.catch_warnings(action="ignore"):
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        events = [event for path in folder.iterdir() for event in EventFileLoader(str(path)).Load()]
    return {(v.tag, e.step) for e in events for v in e.summary.value if v.tag.endswith("/loss")}


def test_a_missing_tensorboard_is_one_line_and_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log_module.importlib.util, "find_spec", lambda name: None)
    said: list[str] = []
    loop = toy_loop(tmp_path, toy_config("motion", "steps=1", "journal.tensorboard=true"))
    loop.on_message = said.append
    loop.run()
    assert said == [log_module.HINT]
    assert len(rows(tmp_path)) == 1


def test_looking_changes_no_number(whole, tmp_path: Path):
    folder, _ = whole
    looked = ["journal.held_out_samples=2", "journal.held_out_every_steps=1", "journal.sheet_rows=1"]
    toy_loop(tmp_path, toy_config("motion", "steps=2", "average.on=true", *looked)).run()
    assert rows(tmp_path) == rows(folder)[:2]


def test_held_out_samples_are_the_same_every_time(tmp_path: Path):
    values = ["journal.held_out_samples=2", "journal.held_out_every_steps=1", "optimiser.lr=1e-30"]
    toy_loop(tmp_path, toy_config("motion", "steps=2", *values), toy_networks()).run()
    first, *others = rows(tmp_path, "held_out", leave_out=("step",))
    assert others == [first] * 2
