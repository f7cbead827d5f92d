"""ComfyUI nodes: the interface that ComfyUI reads, and the example workflow, run along its links.

ComfyUI itself is no package that can be installed, so its own nodes and modules are stood in for.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from personalive.errors import PersonaLiveError
from personalive.offline.motion_file import save_motion_file
from support.small_engine import noise_images
from support.small_model import SMALL_SIZE_PX, write_small_model

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"


class InterruptedRunError(Exception):
    pass


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand-in for what nodes take from ComfyUI: its progress bar, and its interruption."""
    seen = SimpleNamespace(progress=[], interrupted=False)

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: int | None = None, preview: object = None) -> None:
            seen.progress.append((value, total or self.total))

    def throw() -> None:
        if seen.interrupted:
            raise InterruptedRunError

    modules = {"comfy": {}, "comfy.utils": {"ProgressBar": ProgressBar}}
    modules["comfy.model_management"] = {"throw_exception_if_processing_interrupted": throw}
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return seen


@pytest.fixture
def nodes(comfy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The folder, imported as ComfyUI imports custom nodes: as a package, by path."""
    spec = importlib.util.spec_from_file_location("custom_personalive", FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.delitem(sys.modules, f"{spec.name}.nodes", raising=False)
    spec.loader.exec_module(module)
    assert module.NODE_DISPLAY_NAME_MAPPINGS.keys() == module.NODE_CLASS_MAPPINGS.keys()
    return module.NODE_CLASS_MAPPINGS


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(noise_images(count, seed)).float() / 255


def execute(workflow: dict[str, Any], nodes: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Results of all nodes of a workflow in API form: inputs are values, or [node, output]."""
    done: dict[str, tuple[Any, ...]] = {}

    def result(name: str) -> tuple[Any, ...]:
        if name not in done:
            kind = nodes[workflow[name]["class_type"]]
            known = kind.INPUT_TYPES()
            given = workflow[name]["inputs"]
            assert (
                known["required"].keys()
                <= given.keys()
                <= known["required"].keys() | known.get("optional", {}).keys()
            )
            for key, value in given.items():
                wanted = (known["required"] | known.get("optional", {}))[key]
                if isinstance(value, list):
                    assert nodes[workflow[value[0]]["class_type"]].RETURN_TYPES[value[1]] == wanted[0], (name, key)
                elif isinstance(wanted[0], list):
                    assert value in wanted[0]
            values = {key: result(v[0])[v[1]] if isinstance(v, list) else v for key, v in given.items()}
            done[name] = getattr(kind(), kind.FUNCTION)(**values)
        return done[name]

    with torch.inference_mode():  # as ComfyUI runs nodes
        for name in workflow:
            result(name)
    return done


def stand_in(returns: tuple[str, ...], result: tuple[Any, ...], **inputs: str) -> type:
    types = {"required": {name: (kind, {}) for name, kind in inputs.items()}}
    members = {
        "RETURN_TYPES": returns,
        "FUNCTION": "run",
        "INPUT_TYPES": lambda: types,
        "run": lambda _, **__: result,
    }
    return type("StandIn", (), members)


def test_every_node_keeps_the_contract(nodes: dict[str, Any]):
    assert len(nodes) == 5
    for name, kind in nodes.items():
        assert name.startswith("PersonaLive")
        assert kind.CATEGORY == "PersonaLive"
        assert callable(getattr(kind, kind.FUNCTION))
        assert isinstance(kind.RETURN_TYPES, tuple)
        assert len(kind.RETURN_NAMES) == len(kind.RETURN_TYPES)
        for sort, *more in kind.INPUT_TYPES()["required"].values():
            assert isinstance(sort, str | list)
            assert all(isinstance(options, dict) for options in more)


def test_the_example_workflow_runs(nodes: dict[str, Any], comfy: SimpleNamespace, tmp_path: Path):
    workflow = json.loads((FOLDER / "workflow.json").read_text())
    core = {
        "LoadImage": stand_in(("IMAGE", "MASK"), (images(1), None), image="STRING"),
        "LoadVideo": stand_in(("VIDEO",), (None,), file="STRING"),
        "GetVideoComponents": stand_in(("IMAGE", "AUDIO", "FLOAT"), (images(6, 2), None, 30.0), video="VIDEO"),
        "CreateVideo": stand_in(("VIDEO",), (None,), images="IMAGE", fps="FLOAT", audio="AUDIO"),
        "SaveVideo": stand_in((), (), video="VIDEO", filename_prefix="STRING", format="STRING", codec="STRING"),
    }
    weights = write_small_model(tmp_path / "weights")
    workflow["1"]["inputs"] |= {"weights": str(weights), "device": "cpu"}
    for node in ("5", "6"):
        workflow[node]["inputs"]["framing"] = "center"  # noise shows no face
    done = execute(workflow, nodes | core)
    made, fps = done["6"]
    assert made.shape == (6, SMALL_SIZE_PX, SMALL_SIZE_PX, 3)
    assert made.dtype == torch.float32
    assert 0 <= made.min() < made.max() <= 1
    assert fps == 30.0
    assert comfy.progress[-1] == (6, 6)

    # The same motion from a file, driven frame for frame as the engine itself does it, without the label.
    engine, motion = done["1"][0], done["5"][0]
    save_motion_file(tmp_path / "take.safetensors", motion, [])
    (again,) = nodes["PersonaLiveMotionFromFile"]().run(engine, str(tmp_path / "take.safetensors"))
    node = nodes["PersonaLiveAnimateImages"]()
    plain, _ = node.run(engine, images(1), again, 0, "center", 1.0, 1.0, visible_mark=False)
    driven = noise_images(6, 2)
    driven = np.stack([*driven, driven[-1], driven[-1]])
    stream = engine.stream(noise_images(1, 1)[0], [driven[:4], driven[4:]], seed=0)
    wanted = torch.cat(list(stream))[:6].float() / 255
    assert torch.allclose(plain, wanted, atol=2 / 255)
    assert not torch.equal(plain, made)

    comfy.interrupted = True
    with pytest.raises(InterruptedRunError):
        node.run(engine, images(1), again, 0, "center", 1.0, 1.0, visible_mark=False)


def test_live_previews_go_on_and_begin_anew_with_another_portrait(nodes: dict[str, Any], engine):
    node = nodes["PersonaLiveLivePreview"]()
    assert node.IS_CHANGED() != node.IS_CHANGED()
    run = {"engine": engine, "framing": "center", "restart": False}
    frames = [node.run(portrait=images(1), image=images(1, seed), **run)[0] for seed in (5, 6, 7, 8)]
    assert {frame.shape for frame in frames} == {(1, engine.image_size, engine.image_size, 3)}
    assert not torch.equal(frames[-2], frames[-1])
    first = node.run(portrait=images(1), image=images(1, 5), engine=engine, framing="center", restart=True)[0]
    assert torch.equal(first, frames[0])
    with pytest.raises(PersonaLiveError, match="give \\(B, H, W, 3\\)"):
        node.run(portrait=images(1)[0], image=images(1), **run)
