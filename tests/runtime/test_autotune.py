"""Choice of "auto": the fastest by measurement, remembered; nothing is prepared for a short video."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from personalive.checkpoints.networks import load_networks
from personalive.engine.backend import Backend, DenoiserOutput
from personalive.engine.engine import Engine
from personalive.errors import DeviceError
from personalive.runtime import autotune, load, openvino
from personalive.runtime.autotune import AutotuneConfig, candidates, choose
from personalive.runtime.cache import ProgramCache

QUICK = AutotuneConfig(warmup_steps=1, timed_steps=3)


class Slow(Backend):
    def denoise(self, latents: torch.Tensor, **conditions) -> DenoiserOutput:
        time.sleep(0.3)
        return super().denoise(latents, **conditions)


@pytest.fixture
def makes(networks) -> dict[str, Callable[[], Engine]]:
    return {
        "slow": lambda: Engine(networks, backend=Slow(networks, name="slow")),
        "eager": lambda: Engine(networks, backend=Backend(networks)),
    }


def test_the_fastest_is_kept(tmp_path: Path, makes):
    cache = ProgramCache(tmp_path)
    engine, took = choose(makes, cache, "key", QUICK)
    assert engine.backend.name == "eager"
    assert took["slow"] > took["eager"] + 200
    kept = cache.get("key") or {}
    assert kept["backend"] == "eager"
    assert kept["call_ms"].keys() == {"slow", "eager"}


def failing(*_: object) -> Engine:
    raise DeviceError("backend quick: no")


def test_a_candidate_that_cannot_be_opened_is_left_out_and_not_tried_again(tmp_path: Path, makes, caplog):
    cache = ProgramCache(tmp_path)
    candidates_ = {"eager": makes["eager"], "quick": failing}
    engine, took = choose(candidates_, cache, "key", QUICK)
    assert (engine.backend.name, list(took)) == ("eager", ["eager"])
    assert "backend quick is left out: backend quick: no" in caplog.text
    caplog.clear()
    assert choose(candidates_, cache, "key", QUICK)[0].backend.name == "eager"
    assert caplog.text == ""
    with pytest.raises(DeviceError, match="no"):
        choose({"quick": failing, "eager": makes["eager"]}, ProgramCache(tmp_path), "other", QUICK)


class OutOfMemory(Backend):
    def denoise(self, latents: torch.Tensor, **conditions) -> DenoiserOutput:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_candidate_that_fails_while_it_is_measured_is_left_out_and_remembered(
    tmp_path: Path, makes, networks, caplog
):
    cache = ProgramCache(tmp_path)
    large = lambda: Engine(networks, backend=OutOfMemory(networks, name="large"))  # noqa: E731
    engine, took = choose({"eager": makes["eager"], "large": large}, cache, "key", QUICK)
    assert (engine.backend.name, list(took)) == ("eager", ["eager"])
    assert (
        len([r for r in caplog.records if "large is left out" in r.message and "not enough memory" in r.message]) == 1
    )
    assert (cache.get("key") or {})["backend"] == "eager"
    with pytest.raises(DeviceError, match="not enough memory"):
        choose({"large": large, "eager": makes["eager"]}, cache, "first", QUICK)


def test_a_choice_that_cannot_be_opened_any_more_falls_back(tmp_path: Path, makes, caplog):
    cache = ProgramCache(tmp_path)
    cache.put("key", {"backend": "quick"})
    engine, _ = choose({"eager": makes["eager"], "quick": failing}, cache, "key", QUICK)
    assert engine.backend.name == "eager"
    assert "cannot be opened" in caplog.text
    assert (cache.get("key") or {})["backend"] == "eager"


def test_candidates_suit_the_device():
    assert candidates(torch.device("cpu"), torch.float32) == ["eager", "openvino"]
    assert candidates(torch.device("mps"), torch.float16) == ["eager"]
    assert candidates(torch.device("cuda"), torch.float16) == ["eager"]


@pytest.fixture
def automatic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("PERSONALIVE_BACKEND")
    monkeypatch.setenv("PERSONALIVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.xdist_group("programs")
def test_auto_measures_once_and_takes_that_ever_after(first_load, cache, small_weights: Path, monkeypatch):
    chosen, prepared = first_load
    assert prepared == {"openvino"}
    assert (cache.root / "choices.json").is_file()
    monkeypatch.delenv("PERSONALIVE_BACKEND")
    monkeypatch.setenv("PERSONALIVE_CACHE", str(cache.root))
    monkeypatch.setattr(autotune, "_measure", lambda *_: pytest.fail("measured again"))
    again = load.load_engine(small_weights, device="cpu", preparing=lambda *_: pytest.fail("prepared again"))
    assert again.backend.name == chosen


def test_backends_of_one_number_format_share_the_networks(automatic: Path, small_weights: Path, monkeypatch):
    read: list[torch.dtype] = []

    def counted(*args: object, dtype: torch.dtype, **options: object) -> object:
        read.append(dtype)
        return load_networks(*args, dtype=dtype, **options)

    monkeypatch.setattr(load, "load_networks", counted)
    monkeypatch.setattr(load, "open_backend", lambda _, networks, **options: Backend(networks))  # prepares nothing
    load.load_engine(small_weights, device="cpu", dtype="float32")
    assert read == [torch.float32]


def test_auto_prepares_nothing_for_a_short_video(automatic: Path, small_weights: Path):
    engine = load.load_engine(small_weights, device="cpu", frames=100)
    assert engine.backend.name == "eager"
    assert not list(automatic.glob("*"))


def test_what_needs_preparation_runs_at_once_and_is_prepared_later(automatic: Path, small_weights: Path, monkeypatch):
    threads: list[int] = []

    def quick(name: str, networks, **options) -> Backend:
        threads.append(options["threads"])
        return Backend(networks, name=name)

    monkeypatch.setattr(load, "open_backend", quick)
    monkeypatch.setattr(autotune, "_measure", lambda engines, _: {n: float(n == "eager") for n in engines})
    had = torch.get_num_threads()
    engine, later = load.load_engine_at_once(small_weights, device="cpu")
    try:
        assert (engine.backend.name, list(automatic.glob("*"))) == ("eager", [])
        torch.set_num_threads(had + 1)  # as the server does, to leave a core free
        assert later is not None and later().backend.name == "openvino"
    finally:
        torch.set_num_threads(had)
    assert set(threads) == {had}
    again, later = load.load_engine_at_once(small_weights, device="cpu")
    assert (again.backend.name, later) == ("openvino", None)


@pytest.mark.parametrize("options", [{"weights": "photo"}, {"backend": "eager"}])
def test_there_is_nothing_to_prepare_for_what_was_named(automatic: Path, small_weights: Path, options: dict):
    _, later = load.load_engine_at_once(**{"weights": small_weights, "device": "cpu", **options})
    assert later is None
    assert not list(automatic.glob("openvino*"))


def test_auto_leaves_large_models_alone_on_a_cpu(automatic: Path, small_weights: Path, monkeypatch):
    monkeypatch.setattr(load, "count_values", lambda _: 10**9)
    assert load.load_engine(small_weights, device="cpu").backend.name == "eager"
    assert not list(automatic.glob("*"))


def test_what_the_environment_names_is_what_auto_means(monkeypatch, small_weights: Path):
    monkeypatch.setenv("PERSONALIVE_BACKEND", "quick")
    with pytest.raises(DeviceError, match="backend quick: not known: use auto, eager"):
        load.load_engine(small_weights, device="cpu")
    assert load.load_engine(small_weights, device="cpu", backend="eager").backend.name == "eager"


@pytest.mark.parametrize(
    ("device", "asked", "found"), [("cuda", "1", True), ("cuda", "0", False), ("cpu", "1", False)]
)
def test_cuda_sums_in_float16_where_that_is_asked_for(monkeypatch, device: str, asked: str, found: bool):
    products = SimpleNamespace(allow_fp16_accumulation=False)
    monkeypatch.setattr(torch.backends.cuda, "matmul", products)
    monkeypatch.setenv("PERSONALIVE_FP16_SUMS", asked)
    load.set_fp16_sums(torch.device(device))
    assert products.allow_fp16_accumulation is found


def test_a_pytorch_without_such_sums_is_named(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "matmul", object())
    monkeypatch.setenv("PERSONALIVE_FP16_SUMS", "1")
    with pytest.raises(DeviceError, match=r"needs PyTorch 2\.7"):
        load.set_fp16_sums(torch.device("cuda"))


def test_what_a_converter_raises_becomes_one_line(automatic: Path, small_weights: Path, monkeypatch):
    def breaks(*_: object) -> None:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(openvino, "write", breaks)
    with pytest.raises(DeviceError, match=r"^backend openvino: [^\n]*no such operation[^\n]*--backend eager$"):
        load.load_engine(small_weights, device="cpu", backend="openvino", dtype="float32")
