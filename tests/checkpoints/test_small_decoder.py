"""A small decoder in place of the VAE's: images equal a direct call's; a decoder that does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from personalive.checkpoints.download import download_weights
from personalive.checkpoints.networks import save_networks
from personalive.checkpoints.sources import SMALL_DECODER
from personalive.engine.backend import Backend, network_calls
from personalive.engine.engine import Engine
from personalive.errors import CheckpointError
from personalive.runtime.load import load_engine
from personalive.training.scratch import build_networks
from support.small_decoder import SCALE, write_small_decoder
from support.small_model import SMALL_SHAPE


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, whose VAE has a scale of its own."""
    preset = dataclasses.replace(SMALL_SHAPE, vae={**SMALL_SHAPE.vae, "scaling_factor": 0.18215})
    folder = tmp_path_factory.mktemp("model") / "weights"
    save_networks(build_networks(preset), folder)
    return folder


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return write_small_decoder(tmp_path / "decoder")


def engine(weights: Path, decoder: Path | str | None, **options: Any) -> Engine:
    return load_engine(weights, device="cpu", dtype="float32", decoder=decoder, **options)


def refusal(weights: Path, decoder: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        engine(weights, decoder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LATENTS = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("vram", ["8", "16"])
def test_images_are_those_of_a_direct_call(weights, decoder, vram):
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    direct: Any = AutoencoderTiny.from_pretrained(decoder)
    with torch.no_grad():
        expected = direct.decode(LATENTS / SCALE).sample  # as diffusers' pipelines call it
        made = engine(weights, decoder, vram=vram).decode_images(LATENTS)
        usual = engine(weights, None).decode_images(LATENTS)
    assert torch.equal(made, expected)
    assert expected.shape == usual.shape == (4, 3, 64, 64)
    assert not torch.allclose(usual, made, atol=0.1)


def test_loading_one_says_nothing(weights, decoder, caplog):
    """TAESD's published config has an entry that diffusers' class does not take."""
    engine(weights, decoder)
    assert "block_out_channels" in json.loads((decoder / "config.json").read_text())
    assert not caplog.records


def test_a_stream_is_decoded_by_it_with_the_same_latents(weights, decoder):
    """Latents do not depend on the decoder."""
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    found = []
    for one in (engine(weights, None), engine(weights, decoder)):
        state, frames = one.step(one.start(images[0]), images[1:])
        found.append((state.latents, frames))
    (latents, frames), (own_latents, own_frames) = found
    assert torch.equal(latents, own_latents)
    assert frames.shape == own_frames.shape
    assert not torch.equal(frames, own_frames)


def test_it_is_loaded_for_use_and_is_no_part_of_the_model(weights, decoder):
    made = engine(weights, decoder)
    small = made.networks.decoder
    assert small is made.networks.small_decoder
    assert not small.training
    assert not any(parameter.requires_grad for parameter in small.parameters())
    assert small not in made.networks.modules().values()
    half = load_engine(weights, device="cpu", dtype="bfloat16", decoder=decoder).networks.decoder
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.bfloat16}


def test_network_calls_have_it_too(weights, decoder):
    networks = engine(weights, decoder).networks
    call = network_calls(networks)["decode"]
    with torch.no_grad():
        assert torch.equal(call.module(LATENTS)[0], Backend(networks).decode(LATENTS))


# --- unsuitable decoders --------------------------------------------------------------------------------------------


def test_a_missing_folder_is_refused_with_the_command_that_downloads_it(weights, tmp_path, monkeypatch):
    assert "weights download --decoder taesd" in refusal(weights, tmp_path / "nowhere")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert str(tmp_path / "personalive" / "taesd") in refusal(weights, "taesd")


def test_the_downloaded_decoder_is_found_by_name(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    write_small_decoder(tmp_path / "personalive" / "taesd")
    assert engine(weights, "taesd").networks.small_decoder is not None


def test_another_kind_of_network_is_refused(weights):
    vae = weights / "sd-vae-ft-mse"
    assert "describes 'AutoencoderKL' instead of an AutoencoderTiny" in refusal(weights, vae)


def test_other_latents_are_refused(weights, tmp_path):
    line = refusal(weights, write_small_decoder(tmp_path / "deep", latent_channels=16))
    assert "decodes latents of 16 channels" in line
    assert f"{weights} has 4" in line


def test_images_of_another_size_are_refused(weights, tmp_path):
    levels = {"decoder_block_out_channels": [8, 8, 8], "num_decoder_blocks": [1, 1, 1]}
    line = refusal(weights, write_small_decoder(tmp_path / "flat", 0, **levels))
    assert "makes (1, 3, 32, 32) of a latent of 8 x 8" in line
    assert "wants (1, 3, 64, 64)" in line


def test_a_config_that_describes_nothing_is_refused(weights, decoder):
    path = decoder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_decoder_blocks": [1]}))
    assert f"{path}: no decoder can be built from it (ValueError" in refusal(weights, decoder)


def test_weights_are_read_strictly(weights, decoder):
    path = decoder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["decoder.layers.0.bias"]
    save_file(tensors | {"extra": torch.zeros(1)}, path)
    line = refusal(weights, decoder)
    assert "1 missing (decoder.layers.0.bias), 1 unexpected (extra)" in line


class _Malice:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self):
        return Path.mkdir, (self.trap,)


def test_nothing_in_a_file_is_run(weights, decoder, tmp_path):
    (decoder / "diffusion_pytorch_model.safetensors").unlink()
    (decoder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"a": _Malice(tmp_path / "trap")}, 2))
    assert "refused, nothing in it was run" in refusal(weights, decoder)
    assert not (tmp_path / "trap").exists()


# --- the download ---------------------------------------------------------------------------------------------------


def test_a_downloaded_decoder_can_be_used(hub, weights, decoder, tmp_path):
    hub.files["madebyollin/taesd"] = {path.name: path.read_bytes() for path in decoder.iterdir()}
    hub.files["madebyollin/taesd"]["taesd_decoder.safetensors"] = b"another format"
    hub.small = {"config.json"}
    files = download_weights(tmp_path / "fetched", endpoint=hub.endpoint, sources=SMALL_DECODER)
    assert {path.name for path in files} == {"config.json", "diffusion_pytorch_model.safetensors"}
    with torch.no_grad():
        one, other = (engine(weights, folder).decode_images(LATENTS) for folder in (decoder, tmp_path / "fetched"))
    assert torch.equal(one, other)
