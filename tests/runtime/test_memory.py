"""Memory presets: the choice, offloading, equal frames; and one line where memory runs out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from personalive.config import FULL, PRESETS, RELEASED_VALUES
from personalive.device import on_device
from personalive.engine import conditioning
from personalive.engine.engine import Engine
from personalive.errors import DeviceError
from personalive.runtime.load import load_engine
from personalive.runtime.memory import choose_preset, engine_oom_errors, memory_hints, offload, oom_errors
from support.small_model import write_small_model

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")
SMALL, MIDDLE = PRESETS["8"], PRESETS["12"]
GIB = 1 << 30
HALF = 2 * RELEASED_VALUES


# --- which --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device_gib", "weight_bytes", "name"),
    [
        (5.8, HALF, "8"),
        (7.6, HALF, "8"),
        (11.6, HALF, "12"),
        (14.6, HALF, "16"),  # what a card of 16 GB with error correction reports
        (23.5, HALF, "16"),
        (14.6, 2 * HALF, "8"),  # float32
        (23.5, 2 * HALF, "12"),
        (3.8, HALF / 100, "16"),  # a small model
    ],
)
def test_auto_goes_by_the_memory_of_a_cuda_device_and_the_weights(monkeypatch, device_gib, weight_bytes, name):
    properties = SimpleNamespace(total_memory=int(device_gib * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert choose_preset("auto", CUDA, lambda: weight_bytes).name == name


@pytest.mark.parametrize("device", [CPU, MPS])
def test_elsewhere_nothing_is_saved_unless_asked(device):
    def count() -> int:
        raise AssertionError("nobody wants to know")

    assert choose_preset("auto", device, count) is FULL
    assert choose_preset("8", device, count) is SMALL


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(DeviceError, match=r"vram '9' is not known: use auto, 8, 12, 16"):
        choose_preset("9", CPU, lambda: 1)


def test_the_largest_saves_nothing():
    assert (FULL.offload_encoders, FULL.decode_frames) == (False, None)
    assert max(PRESETS.values(), key=lambda preset: preset.min_device_bytes) is FULL
    assert [preset.name for preset in PRESETS.values()] == list(PRESETS)


@pytest.mark.parametrize(("given", "name"), [("8", "8"), (12, "12"), ("auto", "16")])
def test_engines_are_loaded_in_the_preset_asked_for(tmp_path, given, name):
    engine = load_engine(write_small_model(tmp_path / "small"), device="cpu", dtype="float32", vram=given)
    assert engine.memory.name == name


# --- offloading -----------------------------------------------------------------------------------------------------


def places(module: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)


def test_a_module_is_on_the_device_inside_and_itself_afterwards():
    net = Net()
    before = {id(tensor) for tensor in (*net.parameters(), *net.buffers())}
    values = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(KeyError), on_device(net, torch.device("meta")):
        assert places(net) == {"meta"}
        assert list(net.state_dict()) == list(values)
        raise KeyError
    assert {id(tensor) for tensor in (*net.parameters(), *net.buffers())} == before
    assert all(torch.equal(value, values[key]) for key, value in net.state_dict().items())


def test_a_module_that_is_there_is_left_alone():
    net = Net()
    before = [id(tensor) for tensor in (*net.parameters(), *net.buffers())]
    with on_device(net, CPU):
        assert [id(tensor) for tensor in (*net.parameters(), *net.buffers())] == before


def test_want_of_memory_on_the_way_leaves_the_module_whole(monkeypatch):
    net, calls = Net(), iter(range(3))
    copy = torch.Tensor.to

    def to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        if next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return copy(tensor, device)

    monkeypatch.setattr(torch.Tensor, "to", to)
    with pytest.raises(torch.OutOfMemoryError), on_device(net, torch.device("meta")):
        pass
    assert places(net) == {"cpu"}


@pytest.fixture
def moved(monkeypatch) -> list[str]:
    """Modules that were moved to the CPU, by class; there is no other device here to see them on."""
    names: list[str] = []
    monkeypatch.setattr(nn.Module, "to", lambda module, device: names.append(f"{type(module).__name__} {device}"))
    return names


@pytest.mark.parametrize(
    ("preset", "entry", "names"),
    [
        (SMALL, "portrait", ["Encoder cpu", "CLIPVisionModelWithProjection cpu"]),
        (SMALL, "moved", ["CLIPVisionModelWithProjection cpu"]),  # it encodes in each call
        (MIDDLE, "portrait", []),
        (FULL, "portrait", []),
    ],
)
def test_encoders_are_offloaded_in_the_smallest_preset(networks, moved, preset, entry, names):
    config = dataclasses.replace(networks.config, entry=entry)
    for name, module in networks.modules().items():
        offload(config, preset, name, module)
    assert moved == names


def test_parts_are_offloaded_while_the_others_are_loaded(tmp_path, monkeypatch):
    settled = []
    monkeypatch.setattr(
        "personalive.runtime.load.offload",
        lambda config, preset, part, module: settled.append((preset.name, part, type(module).__name__)),
    )
    load_engine(write_small_model(tmp_path / "small"), device="cpu", dtype="float32", vram=8)
    assert settled[:2] == [("8", "vae", "AutoencoderKL"), ("8", "clip", "CLIPVisionModelWithProjection")]
    assert len(settled) == 7


@pytest.fixture
def awake(monkeypatch) -> set[nn.Module]:
    """Modules that are on the device at the moment, where all are on the CPU and only say that they moved."""
    found: set[nn.Module] = set()

    @contextmanager
    def bring(module: nn.Module, device: torch.device) -> Iterator[None]:
        assert device == CPU
        assert module not in found
        found.add(module)
        yield
        found.remove(module)

    monkeypatch.setattr(conditioning, "on_device", bring)
    return found


def test_encoders_come_for_each_portrait_and_for_nothing_else(networks, awake, make_images):
    """Two streams by turns, one of which swaps its portrait: every use finds the encoder on the device."""
    used: list[str] = []

    def watch(module: nn.Module, name: str) -> None:
        def seen(*_: object) -> None:
            assert module in awake, name
            used.append(name)

        handles.append(module.register_forward_pre_hook(seen))

    handles: list = []
    engine = Engine(networks, memory=SMALL)
    watch(networks.clip, "clip")
    watch(networks.vae.encoder, "vae")
    try:
        one, other = (engine.start(make_images(1, seed)[0]) for seed in (1, 2))
        assert used == ["clip", "vae"] * 2
        for seed in (3, 4):
            one, _ = engine.step(one, make_images(4, seed))
            other, _ = engine.step(other, make_images(4, seed))
            one = engine.start(make_images(1, seed)[0])
        assert used == ["clip", "vae"] * 4
    finally:
        for handle in handles:
            handle.remove()


# --- equal frames ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [SMALL, MIDDLE])
def test_decoding_in_slices_gives_the_same_images(networks, preset):
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []
    engine = Engine(networks, memory=preset)
    decode = engine.backend.decode
    engine.backend.decode = lambda part: (sizes.append(len(part)), decode(part))[1]  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        whole, sliced = Engine(networks).decode_images(latents), engine.decode_images(latents)
    assert sizes == [2, 2]
    assert torch.equal(sliced, whole)
    assert whole.std() > 0.1


@pytest.mark.parametrize("preset", [SMALL, MIDDLE])
def test_streams_are_the_same_in_every_preset(networks, make_images, preset):
    def played(engine: Engine) -> list[torch.Tensor]:
        states = [engine.start(make_images(1, seed)[0], seed=seed) for seed in (1, 2)]
        made = []
        for call in range(2):
            for place, state in enumerate(states):
                states[place], frames = engine.step(state, make_images(4, 10 + call))
                made.append(frames)
        return [*made, *engine.flush(states[0])]

    for one, other in zip(played(Engine(networks)), played(Engine(networks, memory=preset)), strict=True):
        assert torch.equal(one, other)


# --- not enough -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "device", "dtype", "name", "told"),
    [
        (FULL, CUDA, torch.float16, "w", "--vram 12"),
        (FULL, CUDA, torch.float32, "w", "--vram 12 or --dtype float16"),
        (MIDDLE, CUDA, torch.bfloat16, "w", "--vram 8"),
        (SMALL, CUDA, torch.float16, "w", "--device cpu or --weights tiny"),
        (SMALL, CUDA, torch.float32, "w", "--dtype float16 or --device cpu or --weights tiny"),
        (SMALL, MPS, torch.float16, "tiny", "--device cpu"),
        (FULL, CPU, torch.float32, "w", "--vram 12 or --dtype bfloat16"),
        (SMALL, CPU, torch.bfloat16, "w", "--weights tiny"),
        (SMALL, CPU, torch.bfloat16, "tiny", "a machine with more memory"),
    ],
)
def test_hints_name_what_needs_less(preset, device, dtype, name, told):
    assert memory_hints(preset, device, dtype, name) == told


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), "cuda:0: not enough memory"),
        (RuntimeError("CUDA error: out of memory\nmore lines"), "cuda:0: not enough memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"), "cuda:0: not enough memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "cuda:0: not enough memory"),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), "cuda:0: not enough memory"),
        (MemoryError(), "main memory: not enough memory"),
    ],
)
def test_every_shortage_becomes_one_line_with_its_notes(error, line):
    error.add_note("the first 12 frames were kept")
    with pytest.raises(DeviceError) as told, oom_errors(CUDA, "--vram 8"):
        raise error
    assert str(told.value).startswith(f"{line} for this model: ")
    assert str(told.value).endswith("use --vram 8")
    assert "\n" not in str(told.value)
    assert told.value.__notes__ == ["the first 12 frames were kept"]


def test_other_faults_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match="shapes differ"), oom_errors(CUDA, "--vram 8"):
        raise RuntimeError("shapes differ")


def test_the_engine_names_what_would_fit(networks):
    line = "cpu: not enough memory for this model: use --vram 8 or --dtype bfloat16"
    with pytest.raises(DeviceError, match=f"^{line}$"), engine_oom_errors(Engine(networks, memory=MIDDLE)):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_only_offloaded_parts_are_touched(networks):
    before = {name: list(module.parameters()) for name, module in networks.modules().items()}
    for name, module in networks.modules().items():
        offload(networks.config, SMALL, name, module)
        assert all(one is other for one, other in zip(module.parameters(), before[name], strict=True))
