"""Networks of metrics: files that are right, wrong, missing or harmful."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as reference

from personalive.checkpoints.perceptual import load_lpips
from personalive.errors import CheckpointError
from personalive.evaluation.metrics import pretrained as pretrained_module
from personalive.evaluation.metrics.onnx_networks import ARCFACE_POINTS, I3d, OnnxNetwork, Smirk, aligned, similarity
from personalive.evaluation.metrics.pretrained import (
    BY_SIDECAR,
    FILES,
    I3D,
    LPIPS_HEADS,
    UNVERIFIED,
    VERIFIED,
    VGG16,
    find,
    load_pretrained,
    packaged_heads,
)
from personalive.models.perceptual import Lpips

CPU = torch.device("cpu")


# --- finding and checking files -----------------------------------------------------------------------------------


def test_a_file_with_a_published_hash_must_have_it(tmp_path: Path):
    assert find(VGG16, (tmp_path,)) is None
    (tmp_path / VGG16.name).write_bytes(b"another network")
    with pytest.raises(CheckpointError, match=r"vgg16-397923af.pth: its SHA-256 .* is not the published one"):
        find(VGG16, (tmp_path,))


def test_the_heads_inside_torchmetrics_are_the_published_ones():
    folder = packaged_heads()
    assert folder is not None
    found = find(LPIPS_HEADS, (folder,))
    assert found is not None
    assert found.check == VERIFIED


def test_an_unknown_hash_is_recorded_and_called_unverified_unless_a_sidecar_states_it(tmp_path: Path):
    path = tmp_path / I3D.name
    path.write_bytes(b"some export")
    seen = hashlib.sha256(b"some export").hexdigest()
    plain = find(I3D, (tmp_path / "gone", tmp_path))
    assert plain is not None
    assert (plain.check, plain.sha256, plain.path) == (UNVERIFIED, seen, path)
    beside = tmp_path / f"{I3D.name}.sha256"
    beside.write_text(f"{seen.upper()}  {I3D.name}\n")
    stated = find(I3D, (tmp_path,))
    assert stated is not None
    assert stated.check == BY_SIDECAR
    beside.write_text("0" * 64)
    with pytest.raises(CheckpointError, match=r"is not that in i3d\.onnx\.sha256"):
        find(I3D, (tmp_path,))
    beside.write_text("no hash")
    with pytest.raises(CheckpointError, match="holds no SHA-256"):
        find(I3D, (tmp_path,))


def test_every_file_says_what_it_is_for_and_under_which_licence():
    for file in FILES:
        assert file.metrics
        assert file.licence
        assert file.source
        assert file.sha256 is None or len(file.sha256) == 64


def test_nothing_is_there_and_every_figure_says_which_file_it_needs(tmp_path: Path):
    networks = load_pretrained(tmp_path, None, CPU)
    assert (networks.lpips, networks.faces, networks.smirk, networks.i3d, networks.found) == (
        None,
        None,
        None,
        None,
        [],
    )
    named = {"lpips": "vgg16-397923af.pth", "id_sim": "w600k_r50.onnx", "aed": "smirk.onnx", "fvd": "i3d.onnx"}
    assert set(networks.missing) == {"lpips", "tlp", "id_sim", "aed", "apd", "fvd"}
    for figure, file in named.items():
        assert networks.missing[figure].startswith(f"needs {file} in {tmp_path}")
    assert "vgg.pth" not in networks.missing["lpips"]  # that one is here


def test_without_onnxruntime_the_figures_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrained_module, "has_runtime", lambda: False)
    (tmp_path / I3D.name).write_bytes(b"some export")
    networks = load_pretrained(tmp_path, None, CPU)
    assert networks.i3d is None
    assert networks.missing["fvd"] == "needs onnxruntime (pip install 'personalive[metrics]')"


# --- LPIPS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchvision's, with random weights that keep signals alive through sixteen layers."""
    generator = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {"classifier.0.weight": torch.zeros(2, 2)}
    for key, value in Lpips().features.state_dict().items():
        spread = (2 / value[0].numel()) ** 0.5 if value.ndim == 4 else 0.05
        tensors[f"features.{key}"] = torch.randn(value.shape, generator=generator) * spread
    path = tmp_path_factory.mktemp("vgg") / VGG16.name
    torch.save(tensors, path)
    return path


def heads_file() -> Path:
    folder = packaged_heads()
    assert folder is not None
    return folder / LPIPS_HEADS.name


def as_torchvision(vgg_file: Path) -> nn.Sequential:
    """The layers of VGG-16 in torchvision's order, written down apart from our own."""
    layers: list[nn.Module] = []
    width = 3
    for entry in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if entry:
            layers += [nn.Conv2d(width, entry, 3, padding=1), nn.ReLU(inplace=False)]
            width = entry
        else:
            layers.append(nn.MaxPool2d(2, 2))
    features = nn.Sequential(*layers)
    stored = torch.load(vgg_file, weights_only=True)
    features.load_state_dict({key[9:]: value for key, value in stored.items() if key.startswith("features.")})
    return features


def test_lpips_is_that_of_torchmetrics(vgg_file: Path, monkeypatch: pytest.MonkeyPatch):
    """Its code needs torchvision for the layers alone, so it is given those."""
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_: as_torchvision(vgg_file))
    theirs = reference._LPIPS(pretrained=True, net="vgg", pnet_rand=True).eval()
    ours = load_lpips(vgg_file, heads_file(), CPU)
    generator = torch.Generator().manual_seed(2)
    one, other = (torch.rand(2, 3, 32, 48, generator=generator) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        expected = theirs(one, other).flatten()
        assert (expected > 0.01).all()
        assert torch.allclose(ours(one, other), expected, rtol=1e-4)
        assert ours(one, one).tolist() == [0, 0]


def test_a_file_of_another_network_is_refused(tmp_path: Path, vgg_file: Path):
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(3, 3)}, other)
    for vgg, heads in ((other, heads_file()), (vgg_file, other)):
        with pytest.raises(CheckpointError, match=r"other.pth: is not the file that LPIPS needs"):
            load_lpips(vgg, heads, CPU)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / VGG16.name
    path.write_bytes(pickle.dumps({"features.0.weight": Harmful()}))
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        load_lpips(path, heads_file(), CPU)
    assert not (tmp_path / "ran").exists()


# --- ONNX ---------------------------------------------------------------------------------------------------------


def write_onnx(path: Path, shape: list[int], outputs: dict[str, tuple[str, list[int]]]) -> Path:
    """A file with one input whose every output is one reduction of it: operator, and the axes that are kept."""
    nodes, values = [], []
    for name, (operator, axes) in outputs.items():
        dropped = [axis for axis in range(len(shape)) if axis not in axes]
        nodes.append(helper.make_node("Constant", [], [f"{name}_axes"], value_ints=dropped))
        nodes.append(helper.make_node(operator, ["x", f"{name}_axes"], [name], keepdims=0))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[axis] for axis in axes]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "tiny", [x], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def test_smirk_sees_the_square_in_0_to_1_and_gives_both_parameters(tmp_path: Path):
    outputs = {"pose_params": ("ReduceMax", [1]), "expression_params": ("ReduceMean", [1])}
    smirk = Smirk(write_onnx(tmp_path / "smirk.onnx", [1, 3, 224, 224], outputs))
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0], image[:32, :, 1] = 255, 51
    expression, pose = smirk.read(image)
    assert expression == pytest.approx([1, 0.1, 0], abs=0.03)
    assert pose == pytest.approx([1, 0.2, 0], abs=0.03)


def test_i3d_sees_frames_in_order_in_minus_1_to_1(tmp_path: Path):
    i3d = I3d(write_onnx(tmp_path / "i3d.onnx", [1, 3, 4, 224, 224], {"features": ("ReduceMean", [2])}))
    clip = [np.full((32, 32, 3), level, np.uint8) for level in (0, 51, 204, 255)]
    assert i3d.describe(clip) == pytest.approx([-1, -0.6, 0.6, 1], abs=1e-3)
    with pytest.raises(CheckpointError, match=r"cannot take an input of shape \(1, 3, 2, 224, 224\)"):
        i3d.describe(clip[:2])


def test_onnx_files_that_are_something_else_are_refused(tmp_path: Path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match="damaged or no ONNX file"):
        OnnxNetwork(broken)
    other = write_onnx(tmp_path / "other.onnx", [1, 3], {"something": ("ReduceMean", [1])})
    with pytest.raises(CheckpointError, match="needs one input and the outputs expression_params, pose_params"):
        Smirk(other)


@given(
    st.floats(0.2, 5), st.floats(-3.1, 3.1), st.floats(-50, 50), st.floats(-50, 50)
)  # the plain case: the points are turned, scaled and shifted
def test_similarity_finds_turn_scale_and_shift(scale: float, turn: float, x: float, y: float):
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = similarity(ARCFACE_POINTS, ARCFACE_POINTS @ matrix.T + [x, y])
    assert found == pytest.approx(np.column_stack([matrix, [x, y]]), abs=1e-6)


def test_alignment_brings_the_points_to_their_places():
    image = np.zeros((300, 300, 3), np.uint8)
    points = ARCFACE_POINTS * 1.5 + [40, 60]
    for x, y in points.round().astype(int):
        image[y - 4 : y + 5, x - 4 : x + 5] = 255
    face = aligned(image, points)
    assert face.shape == (112, 112, 3)
    assert all(face[round(y), round(x)].min() > 200 for x, y in ARCFACE_POINTS)
    assert face.mean() < 30
