"""Whole folders: opening, loading, saving, checking."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from personalive.checkpoints import folder as folder_module
from personalive.checkpoints.check import check_folder
from personalive.checkpoints.files import TensorInfo
from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.key_map import KEY_RULES
from personalive.checkpoints.layout import CLIP_CONFIG, MODEL_CONFIG, PARTS, UNET_CONFIG, VAE_CONFIG, parts_of
from personalive.checkpoints.networks import build_part, load_networks, load_part, save_networks
from personalive.checkpoints.strict import compare, module_infos
from personalive.config import ModelConfig
from personalive.errors import CheckpointError, OutputError


def states(networks: Any) -> dict[str, dict[str, Tensor]]:
    return {part: module.state_dict() for part, module in networks.modules().items()}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    torch.save(change(torch.load(path, weights_only=True)), path)


def test_networks_hold_the_values_of_the_files(small_model: Any) -> None:
    networks = load_networks(CheckpointFolder.open(small_model.root))
    for part, state in states(networks).items():
        assert state.keys() == small_model.values[part].keys()
        for key, value in state.items():
            assert torch.equal(value, small_model.values[part][key]), (part, key)
        module = getattr(networks, part)
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
    assert networks.config.image_size_px == 64
    assert networks.unet_config.motion_width == 6


def test_half_precision_reaches_every_tensor_and_nothing_stays_on_meta(small_model: Any) -> None:
    networks = load_networks(CheckpointFolder.open(small_model.root), dtype=torch.bfloat16)
    for module in networks.modules().values():
        tensors = [*module.parameters(), *module.buffers()]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}
        assert not any(t.is_meta for t in tensors)
    weight = networks.denoising_unet.conv_in.weight
    assert torch.equal(weight, small_model.values["denoising_unet"]["conv_in.weight"].bfloat16())


@torch.no_grad()
def test_networks_compute_as_ordinarily_built_ones(small_model: Any) -> None:
    """Buffers that no file holds (CLIP's positions, the encoder's tables) survive building without values."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from personalive.models.motion_encoder import MotionEncoder

    folder = CheckpointFolder.open(small_model.root)
    networks = load_networks(folder)
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(dict(folder.clip))).eval()
    clip.load_state_dict(small_model.values["clip"])
    image = torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28)
    assert torch.equal(networks.clip(image).image_embeds, clip(image).image_embeds)
    encoder = MotionEncoder(folder.config.motion_encoder).eval()
    encoder.load_state_dict(small_model.values["motion_encoder"])
    for name, table in encoder.named_buffers():
        assert torch.equal(networks.motion_encoder.get_buffer(name), table), name


@pytest.mark.parametrize(
    "second", [lambda k: "up_blocks" in k, lambda k: len(k) % 2 == 0, lambda k: "motion_modules" in k]
)
def test_any_split_of_the_denoiser(small_model: Any, split: Any, second: Callable[[str], bool]) -> None:
    expected = small_model.values["denoising_unet"]
    split(small_model.root, expected, second)
    module = load_part(CheckpointFolder.open(small_model.root), "denoising_unet")
    assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


def test_the_denoiser_may_lie_in_one_file(small_model: Any) -> None:
    root = small_model.root
    torch.save(small_model.values["denoising_unet"], root / "personalive/denoising_unet.pth")
    (root / "personalive/temporal_module.pth").unlink()
    assert check_folder(root).ok
    load_part(CheckpointFolder.open(root), "denoising_unet")


@torch.no_grad()
@pytest.mark.parametrize("conv_shaped", [False, True])
def test_old_vae_attention_names_give_the_same_network(small_model: Any, conv_shaped: bool) -> None:
    folder = CheckpointFolder.open(small_model.root)
    expected = load_part(folder, "vae")
    old_names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def age(state: dict[str, Tensor]) -> dict[str, Tensor]:
        aged = {}
        for key, value in state.items():
            name = key
            for new, old in old_names.items():
                name = name.replace(new, old)
            widen = conv_shaped and name != key and key.endswith("weight")
            aged[name] = value[:, :, None, None] if widen else value
        assert sum(".query." in key for key in aged) == 4
        return aged

    rewrite(small_model.root / "sd-vae-ft-mse/diffusion_pytorch_model.bin", age)
    assert check_folder(small_model.root).ok
    latent = torch.linspace(-1, 1, 4 * 8 * 8).reshape(1, 4, 8, 8)
    vae: Any = load_part(folder, "vae")
    assert torch.equal(vae.decode(latent).sample, expected.decode(latent).sample)  # pyright: ignore


def test_listed_exceptions_of_the_released_files(small_model: Any) -> None:
    root = small_model.root
    extra = {
        "personalive/reference_unet.pth": {"conv_norm_out.weight": 8, "conv_out.bias": 4},
        "personalive/motion_extractor.pth": {"idx_tensor": 66, "detector.fc_exp.bias": 63},
        "sd-image-variations-diffusers/image_encoder/pytorch_model.bin": {"vision_model.embeddings.position_ids": 5},
    }
    for name, keys in extra.items():
        rewrite(root / name, lambda state, keys=keys: state | {k: torch.ones(n) for k, n in keys.items()})
    rewrite(
        root / "personalive/motion_encoder.pth",
        lambda state: {k: v for k, v in state.items() if "num_batches_tracked" not in k},
    )
    assert check_folder(root).ok
    load_networks(CheckpointFolder.open(root))


def test_safetensors_wins_over_pickles(small_model: Any) -> None:
    root = small_model.root
    changed = {k: v + 1 for k, v in small_model.values["pose_guider"].items()}
    save_file(changed, root / "personalive/pose_guider.safetensors")
    (root / "personalive/pose_guider.pth").write_bytes(b"never opened")
    state = load_part(CheckpointFolder.open(root), "pose_guider").state_dict()
    assert all(torch.equal(state[key], changed[key]) for key in changed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_save_then_load_gives_the_same_networks(small_model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    networks = load_networks(CheckpointFolder.open(small_model.root), dtype=dtype)
    save_networks(networks, tmp_path / "saved", dtype=dtype)
    folder = CheckpointFolder.open(tmp_path / "saved")
    again = load_networks(folder, dtype=dtype)
    assert again.config == networks.config
    assert again.unet_config == networks.unet_config
    assert again.vae.config["block_out_channels"] == [4, 8]
    before = states(networks)
    for part, state in states(again).items():
        assert all(torch.equal(value, before[part][key]) for key, value in state.items()), part
    written = load_file(tmp_path / "saved/personalive/temporal_module.safetensors")
    assert written
    assert all(".temporal_modules." in key for key in written)
    assert {t.dtype for t in written.values()} == {dtype}


def test_saved_configs_tell_nothing_of_the_machine(small_model: Any, tmp_path: Path) -> None:
    save_networks(load_networks(CheckpointFolder.open(small_model.root)), tmp_path / "saved")
    for name in (VAE_CONFIG, CLIP_CONFIG, UNET_CONFIG, MODEL_CONFIG):
        text = (tmp_path / "saved" / name).read_text()
        assert "/home" not in text
        assert not any(key.startswith("_") and key != "_class_name" for key in json.loads(text))


def test_saving_never_overwrites(small_model: Any, tmp_path: Path) -> None:
    networks = load_networks(CheckpointFolder.open(small_model.root))
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="already exists"):
        save_networks(networks, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_a_folder_without_our_config_is_the_released_model(small_model: Any) -> None:
    (small_model.root / MODEL_CONFIG).unlink()
    folder = CheckpointFolder.open(small_model.root)
    assert folder.config == ModelConfig()
    with pytest.raises(CheckpointError, match="not the weights of this model"):
        load_part(folder, "motion_encoder")


def test_without_our_config_the_image_has_the_size_that_the_networks_say(small_model: Any) -> None:
    (small_model.root / MODEL_CONFIG).unlink()
    edit(small_model.root / UNET_CONFIG, sample_size=32)  # latents; the VAE of this folder has a stride of 2
    config = CheckpointFolder.open(small_model.root).config
    assert config.image_size_px == config.pose_guider.canvas_size_px == 64


def test_released_keys_and_shapes_are_those_of_our_modules(tmp_path: Path) -> None:
    """The manifest lists every tensor of the released layout, at small widths."""
    manifest = json.loads((Path(__file__).parents[1] / "golden/manifest_small.json").read_text())
    for name, config in manifest["configs"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(config))
    folder = CheckpointFolder.from_configs(tmp_path, name="small")
    stems = {file.removesuffix(".pth").removesuffix(".bin"): keys for file, keys in manifest["files"].items()}
    for part in parts_of(folder.config):
        found = {}
        for stem in (s for file in PARTS[part] for s in (file.stem, *file.other_stems) if s in stems):
            found |= {k: TensorInfo(tuple(s), getattr(torch, d)) for k, (s, d) in stems.pop(stem).items()}
        assert str(compare(module_infos(build_part(folder, part)), found, KEY_RULES[part])) == "", part
    assert stems == {}


def test_missing_folders_and_files_are_named_with_the_next_step(small_model: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such weights folder.*personalive weights download.*tiny"):
        CheckpointFolder.open(tmp_path / "nowhere")
    (small_model.root / "personalive/pose_guider.pth").unlink()
    (small_model.root / VAE_CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"2 files missing \(sd-vae.*config.json, personalive/pose_guider"):
        CheckpointFolder.open(small_model.root)
    outer = small_model.root.parent
    with pytest.raises(CheckpointError, match=f"did you mean {small_model.root}"):
        CheckpointFolder.open(outer)
    with pytest.raises(CheckpointError, match=f"did you mean {small_model.root}"):
        CheckpointFolder.open(small_model.root / "personalive")


def test_tiny_is_the_bundled_folder(small_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = small_model.root.parent / "package"
    (package / "assets").mkdir(parents=True)
    monkeypatch.setattr(folder_module.resources, "files", lambda name: package)
    with pytest.raises(CheckpointError, match="reinstall personalive"):
        CheckpointFolder.open("tiny")
    small_model.root.rename(package / "assets/tiny")
    folder = CheckpointFolder.open("tiny")
    assert folder.name == "tiny"
    assert folder.root == package / "assets/tiny"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (UNET_CONFIG, "{"),
        (VAE_CONFIG, "[1]"),
        (CLIP_CONFIG, '{"a": "' + "x" * 2**20 + '"}'),
        (MODEL_CONFIG, "\x00"),
    ],
)
def test_bad_config_files_are_named(small_model: Any, name: str, text: str) -> None:
    (small_model.root / name).write_text(text)
    with pytest.raises(CheckpointError) as caught:
        CheckpointFolder.open(small_model.root)
    assert str(small_model.root / name) in str(caught.value)
    report = check_folder(small_model.root)
    assert not report.ok
    assert report.problem == str(caught.value)


@pytest.mark.parametrize(
    ("name", "part", "changes"),
    [
        (UNET_CONFIG, "denoising_unet", {"block_out_channels": "wide"}),
        (UNET_CONFIG, "denoising_unet", {"frame_levels": [True]}),
        (UNET_CONFIG, "denoising_unet", {"temporal_attention": "sideways"}),
        (UNET_CONFIG, "reference_unet", {"norm_num_groups": 3}),
        (VAE_CONFIG, "vae", {"down_block_types": ["NoSuchBlock"]}),
        (CLIP_CONFIG, "clip", {"num_attention_heads": 3}),
    ],
)
def test_configs_no_network_can_be_built_from(small_model: Any, name: str, part: str, changes: dict) -> None:
    edit(small_model.root / name, **changes)
    with pytest.raises(CheckpointError) as caught:
        load_part(CheckpointFolder.open(small_model.root), part)
    assert str(small_model.root / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configs_of_different_models_are_refused(small_model: Any) -> None:
    edit(small_model.root / CLIP_CONFIG, projection_dim=99)
    with pytest.raises(CheckpointError, match="cross_attention_dim is 12 but projection_dim"):
        CheckpointFolder.open(small_model.root)


def test_check_counts_what_is_there(small_model: Any) -> None:
    report = check_folder(small_model.root)
    assert report.ok
    for part in report.parts:
        expected = small_model.values[part.part]
        assert part.tensors == len(expected)
        assert part.parameters == sum(t.numel() for t in expected.values())
        assert part.size_bytes == sum(path.stat().st_size for path in part.files) > 0
        assert "float32" in part.dtypes


def test_check_reports_everything_that_is_wrong(small_model: Any) -> None:
    root = small_model.root
    rewrite(root / "personalive/reference_unet.pth", lambda s: {k: v for k, v in s.items() if k != "conv_in.bias"})
    rewrite(
        root / "personalive/denoising_unet.pth",
        lambda s: s | {"conv_in.bias": torch.ones(9), "new": torch.ones(1)},
    )
    (root / "personalive/motion_encoder.pth").write_bytes(b"PK\x03\x04 cut")
    (root / "personalive/pose_guider.pth").unlink()
    report = check_folder(root)
    parts = {part.part: part for part in report.parts}
    assert report.missing_files == ("personalive/pose_guider(.safetensors|.bin|.pth)",)
    assert not report.ok
    assert parts["reference_unet"].difference.missing == ("conv_in.bias",)
    assert parts["denoising_unet"].difference.extra == ("new",)
    assert parts["denoising_unet"].difference.misshapen == ("conv_in.bias: file 9 float, model 8 float",)
    assert "damaged" in (parts["motion_encoder"].problem or "")
    assert not parts["pose_guider"].ok
    assert [name for name, part in parts.items() if part.ok] == ["vae", "clip", "motion_extractor"]


def test_identity_follows_the_content(small_model: Any) -> None:
    folder = CheckpointFolder.open(small_model.root)
    first = folder.identity()
    assert len(first) == 16
    assert CheckpointFolder.open(small_model.root).identity() == first
    rewrite(
        small_model.root / "personalive/pose_guider.pth",
        lambda s: s | {"conv_in.bias": s["conv_in.bias"] + 1},
    )
    second = folder.identity()
    edit(small_model.root / MODEL_CONFIG, translation_gain=0.6)
    assert len({first, second, folder.identity()}) == 3


def test_identity_of_a_large_file_reads_all_over_it(small_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = folder_module.WeightFilesConfig(identity_samples=4, identity_sample_bytes=8)
    monkeypatch.setattr(folder_module, "WeightFilesConfig", lambda: settings)
    path = small_model.root / "big"
    path.write_bytes(bytes(range(100)))
    samples = list(folder_module._samples(path))
    assert [len(s) for s in samples] == [8] * 4
    assert samples[0][0] == 0
    assert samples[-1][-1] == 99


def test_building_takes_no_memory_for_weights(small_model: Any) -> None:
    folder = CheckpointFolder.open(small_model.root)
    for part in parts_of(folder.config):
        module = build_part(folder, part)
        real = sum(p.numel() for p in module.parameters() if not p.is_meta)
        assert real * 10 < sum(p.numel() for p in module.parameters()), part


def test_an_entry_that_is_not_known_is_refused() -> None:
    with pytest.raises(CheckpointError, match="entry 'sideways' is not known: portrait or moved"):
        ModelConfig.from_json({"entry": "sideways"})


def test_a_prediction_that_is_not_known_is_refused() -> None:
    with pytest.raises(CheckpointError, match="prediction 'sample' is not known: epsilon or residual"):
        ModelConfig.from_json({"schedule": {"prediction": "sample"}})


def test_switches_are_read_and_numbers_are_no_switches() -> None:
    assert ModelConfig.from_json({"interpolated_start": False}).interpolated_start is False
    assert ModelConfig.from_json(ModelConfig().to_json()) == ModelConfig()
    for raw in ({"interpolated_start": 1}, {"image_size_px": True}, {"translation_gain": True}):
        with pytest.raises(CheckpointError, match="should be like"):
            ModelConfig.from_json(raw)
