"""What "auto" takes: the fastest by measurement, remembered; nothing is prepared for a short film."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from personalive.checkpoints.networks import load_networks
from personalive.checkpoints.programs import ProgramStore
from personalive.config import BackendConfig
from personalive.errors import DeviceError
from personalive.streaming import load
from personalive.streaming.backends import choose as choose_module
from personalive.streaming.backends.base import Backend, Denoised
from personalive.streaming.backends.choose import candidates, choice_key, choose
from personalive.streaming.backends.open import has_engines, onnx_key
from personalive.streaming.engine import Engine

QUICK = BackendConfig(warmup_steps=1, timed_steps=3)


class Slow(Backend):
    name = "slow"

    def denoise(self, latents: torch.Tensor, **conditions) -> Denoised:
        time.sleep(0.3)
        return super().denoise(latents, **conditions)


@pytest.fixture
def makes(networks) -> dict[str, Callable[[], Engine]]:
    return {
        "slow": lambda: Engine(networks, backend=Slow(networks)),
        "eager": lambda: Engine(networks, backend=Backend(networks)),
    }


def test_the_fastest_is_kept(tmp_path: Path, makes):
    store = ProgramStore(tmp_path)
    engine, took = choose(makes, store, "key", QUICK)
    assert engine.backend.name == "eager"
    assert took["slow"] > took["eager"] + 200
    kept = store.recall("key") or {}
    assert kept["backend"] == "eager"
    assert kept["call_ms"].keys() == {"slow", "eager"}


def test_one_that_cannot_be_prepared_is_left_out_and_said(tmp_path: Path, makes, caplog):
    def fails() -> Engine:
        raise DeviceError("backend eager: no")

    store = ProgramStore(tmp_path)
    engine, took = choose({**makes, "eager": fails}, store, "key", QUICK)
    assert (engine.backend.name, list(took)) == ("slow", ["slow"])
    assert "backend eager: no" in caplog.text
    assert store.recall("key") is None  # it may work tomorrow
    with pytest.raises(DeviceError, match="no"):
        choose({"slow": fails, "eager": makes["eager"]}, ProgramStore(tmp_path), "other", QUICK)


def test_candidates_suit_the_device():
    assert candidates(torch.device("cpu"), torch.float32) == ["eager", "openvino"]
    assert candidates(torch.device("mps"), torch.float16) == ["eager"]


def test_engines_of_tensorrt_are_tried_once_they_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choose_module, "why_not", lambda *_: None)
    monkeypatch.setattr(choose_module, "device_name", str)
    cuda, half, store = torch.device("cuda"), torch.float16, ProgramStore(tmp_path)
    assert candidates(cuda, half) == ["eager", "compile"]
    before = choice_key(candidates(cuda, half), cuda, half, "model")
    assert not has_engines("model", half, cuda, store)
    built = tmp_path / onnx_key("model", half, cuda) / "tensorrt"
    built.mkdir(parents=True)
    assert not has_engines("model", half, cuda, store)
    (built / "denoise.engine").touch()
    assert has_engines("model", half, cuda, store)
    assert not has_engines("other", half, cuda, store)
    assert candidates(cuda, half, built=True) == ["eager", "compile", "tensorrt"]
    assert choice_key(candidates(cuda, half, built=True), cuda, half, "model") != before  # so all are measured anew


@pytest.fixture
def automatic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("PERSONALIVE_BACKEND")
    monkeypatch.setenv("PERSONALIVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_auto_measures_once_and_takes_that_ever_after(
    automatic: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
):
    made: list[str] = []
    first = load.load_engine(small_weights, device="cpu", preparing=lambda name, _: made.append(name))
    assert set(made) == {"openvino"}
    assert (automatic / "choices.json").is_file()
    made.clear()
    monkeypatch.setattr(load, "choose", lambda *_: pytest.fail("measured again"))
    second = load.load_engine(small_weights, device="cpu", preparing=lambda name, _: made.append(name))
    assert second.backend.name == first.backend.name
    assert made == []


def test_backends_of_one_number_format_share_the_networks(automatic: Path, small_weights: Path, monkeypatch):
    read: list[torch.dtype] = []

    def counted(*args: object, dtype: torch.dtype, **options: object) -> object:
        read.append(dtype)
        return load_networks(*args, dtype=dtype, **options)

    monkeypatch.setattr(load, "load_networks", counted)
    monkeypatch.setattr(load, "open_backend", lambda _, networks, **options: Backend(networks))  # prepares nothing
    load.load_engine(small_weights, device="cpu", dtype="float32")
    assert read == [torch.float32]


def test_auto_prepares_nothing_for_a_short_film(automatic: Path, small_weights: Path):
    engine = load.load_engine(small_weights, device="cpu", frames=100)
    assert engine.backend.name == "eager"
    assert not automatic.exists()


def test_auto_leaves_large_models_alone_on_a_cpu(automatic: Path, small_weights: Path, monkeypatch):
    monkeypatch.setattr(load, "count_values", lambda _: 10**9)
    assert load.load_engine(small_weights, device="cpu").backend.name == "eager"
    assert not automatic.exists()


def test_what_the_environment_names_is_what_auto_means(monkeypatch, small_weights: Path):
    monkeypatch.setenv("PERSONALIVE_BACKEND", "quick")
    with pytest.raises(DeviceError, match="backend quick: not known: use auto, eager"):
        load.load_engine(small_weights, device="cpu")
    assert load.load_engine(small_weights, device="cpu", backend="eager").backend.name == "eager"


def test_what_a_converter_raises_becomes_one_line(small_weights: Path, monkeypatch):
    from personalive.streaming.backends import open as opening

    def breaks(*_: object) -> None:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(opening.openvino_programs, "write", breaks)
    with pytest.raises(DeviceError, match=r"^backend openvino: [^\n]*no such operation[^\n]*--backend eager$"):
        load.load_engine(small_weights, device="cpu", backend="openvino", dtype="float32")
