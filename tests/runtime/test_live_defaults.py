"""Defaults of live sessions: denoising steps by measurement, and a small decoder that is at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from personalive.config import default_decoder_folder
from personalive.engine.engine import Engine
from personalive.live import worker
from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.stream import LiveStream
from personalive.runtime import live
from personalive.runtime.cache import ProgramCache
from personalive.runtime.load import load_engine
from support.small_decoder import write_small_decoder
from support.small_engine import noise_images


@pytest.fixture
def loaded(networks, small_weights: Path) -> Engine:
    return Engine(networks, name="small", folder=small_weights)


@pytest.mark.parametrize(
    ("measured", "chosen", "told"),
    [
        ({1: (28.6, 0.4), 4: (28.7, 2.0)}, 1, "1 of 4 denoising steps, for 0.4 s of delay instead of 2.0"),
        ({1: (27.0, 0.4), 2: (28.5, 0.9), 4: (28.7, 2.0)}, 2, "2 of 4 denoising steps"),
        ({1: (27.0, 0.4), 2: (27.5, 0.9), 3: (28.6, 2.1), 4: (28.7, 2.0)}, 4, "all 4 denoising steps"),
    ],
)
def test_the_least_delay_without_a_visible_loss_is_measured_once(
    loaded: Engine, tmp_path: Path, monkeypatch, caplog, measured: dict, chosen: int, told: str
):
    monkeypatch.setattr(live, "_play", lambda engine, truth, steps: measured[steps])
    assert live.choose_live_steps(loaded, ProgramCache(tmp_path)) == chosen
    monkeypatch.setattr(live, "_play", lambda *_: pytest.fail("measured again"))
    assert live.choose_live_steps(loaded, ProgramCache(tmp_path)) == chosen
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and all(told in line and "--steps" in line for line in lines)


def test_a_head_that_drives_itself_is_compared_with_itself(loaded: Engine):
    truth = live._demo(loaded, live.LiveStepsConfig(windows=1))
    assert truth.shape == (1, 4, 64, 64, 3) and truth.std(axis=1).max() > 10  # it moves
    psnr_db, delay_s = live._play(loaded, truth, 1)
    assert 3 < psnr_db < 30 and delay_s > 0


def test_nothing_is_chosen_far_from_real_time(loaded: Engine, monkeypatch):
    monkeypatch.setattr(live.AutotuneConfig, "max_values", 10)
    monkeypatch.setattr(live, "_play", lambda *_: pytest.fail("measured"))
    assert live.choose_live_steps(loaded) is None


def test_a_stream_takes_what_was_chosen_unless_steps_are_asked_for(loaded: Engine):
    loaded.live_steps = 2
    for asked, frames_in_flight in ((None, 4), (3, 8)):
        stream = LiveStream(loaded, center_fallback=True, clock=lambda: 0.0, config=LiveConfig())
        stream.set_portrait(noise_images(1, 9)[0], LiveControls(steps=asked))
        assert stream.warmup_frames == frames_in_flight
    assert loaded.start(noise_images(1, 9)[0]).warmup_frames == 12  # videos have all


def test_a_small_decoder_is_taken_where_it_is_and_named_where_it_is_not(
    small_weights: Path, tmp_path: Path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert [live.live_decoder(name) for name in ("photo", "tiny", str(small_weights))] == [None] * 3
    assert caplog.text == ""
    weights = shutil.copytree(small_weights, tmp_path / "weights")  # with the latents of Stable Diffusion
    config = weights / "sd-vae-ft-mse" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.18215}))
    assert live.live_decoder(str(weights)) is None
    assert "`personalive weights download --decoder taesd`" in caplog.text
    write_small_decoder(default_decoder_folder())
    assert live.live_decoder(str(weights)) == "taesd"
    found = [load_engine(weights, device="cpu", decoder=name).facts["decoder"] for name in (None, "own", "taesd")]
    assert found == ["AutoencoderKL", "AutoencoderKL", "AutoencoderTiny"]  # of a video, too


@pytest.mark.parametrize(
    ("device", "given", "steps", "decoder", "live_steps"),
    [("cpu", {}, None, "taesd", 1), ("cuda", {"decoder": "own"}, None, "own", 1), ("cpu", {}, 3, "taesd", None)],
)
def test_a_worker_loads_by_these_choices_and_what_the_user_names_wins(
    monkeypatch, device: str, given: dict, steps: int | None, decoder: str, live_steps: int | None
):
    engine = SimpleNamespace(device=torch.device(device), live_steps=None, check_steps=lambda _: None)
    asked: dict[str, Any] = {}

    def load(name: str, **options: Any) -> tuple[Any, None]:
        asked.update(options, name=name)
        return engine, None

    monkeypatch.setattr(worker, "load_engine_at_once", load)
    monkeypatch.setattr(worker, "live_decoder", lambda name: "taesd")
    monkeypatch.setattr(worker, "choose_live_steps", lambda _: 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    with torch.backends.cudnn.flags(benchmark=False):
        assert worker.make_worker("w", given, steps=steps)._load(lambda *_: None) is engine  # type: ignore[arg-type]
        assert torch.backends.cudnn.benchmark == (device == "cuda")
    assert (asked["name"], asked["decoder"], engine.live_steps) == ("w", decoder, live_steps)
