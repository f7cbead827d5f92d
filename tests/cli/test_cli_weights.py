"""``personalive weights``: its output, its files and its exit codes."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from personalive.checkpoints import download as downloads
from personalive.checkpoints.sources import RELEASED, SMALL_DECODER
from personalive.cli import weights as command
from personalive.cli.config import CliConfig
from personalive.errors import DownloadError
from personalive.progress import Progress
from support.clips import contents

PARTS = ["vae", "clip", "reference_unet", "denoising_unet", "motion_encoder", "motion_extractor", "pose_guider"]


def test_a_whole_folder_passes_the_check(run, small_weights):
    done = run("weights", "check", small_weights)
    assert (done.code, done.err) == (0, "")
    *parts, verdict = done.out.splitlines()
    assert [line.split()[0] for line in parts] == PARTS
    assert all(" ok, " in line and "values in float32" in line for line in parts)
    assert verdict.startswith(f"{small_weights}: complete")


def test_a_check_names_each_broken_network(run, small_weights, tmp_path):
    folder = Path(shutil.copytree(small_weights, tmp_path / "copy"))
    path = folder / "personalive/motion_encoder.safetensors"
    save_file({key: tensor for key, tensor in load_file(path).items() if key != "final_proj.bias"}, path)
    (folder / "personalive/pose_guider.safetensors").unlink()
    done = run("weights", "check", folder)
    assert done.code == 1
    states = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert states["motion_encoder"] == "cannot be loaded"
    assert states["pose_guider"] == "missing"
    assert states["vae"].startswith("ok, ")
    assert len(done.error_lines) == 1
    assert "final_proj.bias" in done.error_lines[0]
    assert "1 more of 7 networks" in done.error_lines[0]


@pytest.mark.parametrize("folder", ["nowhere", "me.png"])
def test_a_check_of_no_folder(run, portrait, folder):
    done = run("weights", "check", folder)
    assert (done.code, len(done.error_lines)) == (1, 1)
    assert folder in done.err
    assert "personalive weights download" in done.err


def test_a_conversion_halves_the_values_and_can_be_used(run, place, small_weights):
    done = run("weights", "convert", small_weights, "half")
    assert (done.code, done.err) == (0, "")
    original = load_file(small_weights / "personalive/pose_guider.safetensors")
    for key, tensor in load_file(place / "half/personalive/pose_guider.safetensors").items():
        assert torch.equal(tensor, original[key].half())
    assert "--weights half" in done.out
    assert run("weights", "check", "half").code == 0


def test_a_conversion_never_overwrites(run, place, small_weights):
    (place / "there").mkdir()
    before = contents(place)
    done = run("weights", "convert", small_weights, "there", "--dtype", "bfloat16")
    assert (done.code, len(done.error_lines)) == (1, 1)
    assert "there: already exists" in done.err
    assert contents(place) == before


def test_a_download_from_an_unreachable_endpoint(run, place):
    with socket.socket() as closed:  # a port without a listener
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run("weights", "download", "w", "--endpoint", endpoint)
    assert (done.code, len(done.error_lines)) == (1, 1)
    assert endpoint in done.err
    assert "academic research only" in done.out
    assert contents(place) == {}


HUB = {"publisher": "hub", "sources": RELEASED}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Replace the download by one file with progress; return the arguments of the call."""
    call: dict = {}

    def fetch(folder, *, endpoint, publisher, sources, progress):
        call.update(folder=folder, endpoint=endpoint, publisher=publisher, sources=sources)
        progress(Progress(1_200_000_000, 11_000_000_000, 12e6, "bytes", note="reference_unet.pth"))
        folder.mkdir(parents=True)
        (folder / "reference_unet.pth").write_bytes(bytes(2000))
        return [folder / "reference_unet.pth"]

    monkeypatch.setattr(downloads, "download_weights", fetch)
    return call


def test_a_download_shows_rate_and_time_left(run, place, tmp_path, fetched, monkeypatch):
    monkeypatch.setattr(CliConfig, "plain_interval_s", 0.0)
    done = run("weights", "download")
    assert done.code == 0
    assert done.err == "fetching: 1.2 GB of 11.0 GB, reference_unet.pth, 12 MB per second, 13:37 left\n"
    assert fetched == {"folder": tmp_path / "data/personalive/weights", "endpoint": None} | HUB
    assert done.out.splitlines()[0] == command.LICENCE_NOTE
    assert done.out.splitlines()[-1].endswith("personalive animate PORTRAIT DRIVING")


def test_a_download_elsewhere_prints_how_to_use_it(run, place, fetched):
    done = run("weights", "download", "w", "--endpoint", "https://mirror.example", "--from", "modelscope")
    given = {"folder": Path("w"), "endpoint": "https://mirror.example", "publisher": "modelscope"}
    assert fetched == HUB | given
    assert done.out.splitlines()[-1].endswith("--weights w (or set PERSONALIVE_WEIGHTS)")


@pytest.mark.parametrize(("folder", "usage"), [([], "--decoder taesd"), (["d"], "--decoder d")])
def test_a_small_decoder_is_fetched_instead(run, place, tmp_path, fetched, folder, usage):
    done = run("weights", "download", *folder, "--decoder", "taesd")
    target = Path(folder[0]) if folder else tmp_path / "data/personalive/taesd"
    assert fetched == {"folder": target, "endpoint": None} | HUB | {"sources": SMALL_DECODER}
    assert command.LICENCE_NOTE not in done.out  # its licence is MIT
    first, last = done.out.splitlines()
    assert first.startswith(f"decoder  {target}, 1 files")
    assert last.endswith(f"personalive animate PORTRAIT DRIVING {usage}")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (DownloadError("w: disk full"), 1)])
def test_a_download_that_stops(run, monkeypatch, error, code):
    def fetch(folder, **_):
        raise error

    monkeypatch.setattr(downloads, "download_weights", fetch)
    done = run("weights", "download", "w")
    assert (done.code, len(done.error_lines)) == (code, 1)
    assert ("the same command resumes" in done.err) == (code == 130)
    listed = [line for line in done.out.splitlines() if line.startswith("by hand")]
    assert len(listed) == len(RELEASED)
    place = Path("w/personalive/denoising_unet.pth")
    address = "https://huggingface.co/huaichang/PersonaLive/resolve/main/pretrained_weights/personalive"
    assert f"by hand  {address}/denoising_unet.pth -> {place}" in listed
    assert "fetched by hand, as listed" in done.err


def test_what_is_there_already_is_not_listed(run, place, monkeypatch):
    def fetch(folder, **_):
        raise DownloadError("blocked")

    monkeypatch.setattr(downloads, "download_weights", fetch)
    for name in ("d/config.json", "d/diffusion_pytorch_model.safetensors"):
        done = run("weights", "download", "d", "--decoder", "taesd")
        assert sum(name in line for line in done.out.splitlines()) == 1
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).touch()
    done = run("weights", "download", "d", "--decoder", "taesd")
    assert (done.out, done.err) == ("", "error: blocked\n")


def test_a_check_names_what_is_left_out(run, small_weights, tmp_path):
    folder = Path(shutil.copytree(small_weights, tmp_path / "copy"))
    path = folder / "personalive/motion_extractor.safetensors"
    save_file(load_file(path) | {"ema.decay": torch.ones(1)}, path)
    done = run("weights", "check", folder)
    assert done.code == 0
    (line,) = (line for line in done.out.splitlines() if line.startswith("motion_extractor"))
    assert line.endswith("left out what this model has no place for: 1 unexpected (ema.decay)")


@pytest.mark.parametrize(("bare", "title"), [([], "personalive"), (["weights"], "personalive weights")])
def test_a_bare_group_shows_its_help(run, bare, title):
    done = run(*bare)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: {title} ")
    assert "Examples:" in done.out
