"""A complete, very small model folder, and a local server that speaks the hub's few endpoints."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import torch
from torch import Tensor

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.layout import CLIP_CONFIG, MODEL_CONFIG, UNET_CONFIG, VAE_CONFIG
from personalive.checkpoints.networks import build_part

SMALL_CONFIGS: dict[str, dict[str, Any]] = {
    UNET_CONFIG: {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "cross_attention_dim": 12,
    },
    VAE_CONFIG: {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
        "block_out_channels": [4, 8],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 2,
        "_class_name": "AutoencoderKL",
        "_name_or_path": "/home/someone/model",
    },
    CLIP_CONFIG: {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 12,
        "image_size": 28,
        "patch_size": 14,
        "model_type": "clip_vision_model",
    },
    MODEL_CONFIG: {
        "image_size_px": 64,
        "motion_encoder": {
            "face_size_px": 64,
            "width": 16,
            "landmark_maps": 4,
            "attention_width": 32,
            "attention_heads": 2,
            "tokens": 4,
            "token_width": 6,
        },
        "motion_extractor": {"depths": [1, 1, 1, 1], "widths": [4, 8, 8, 8]},
        "pose_guider": {"canvas_size_px": 64, "widths": [4, 4, 8, 8]},
    },
}
RELEASED_NAMES = {
    "vae": "sd-vae-ft-mse/diffusion_pytorch_model.bin",
    "clip": "sd-image-variations-diffusers/image_encoder/pytorch_model.bin",
    "reference_unet": "personalive/reference_unet.pth",
    "denoising_unet": "personalive/denoising_unet.pth",
    "motion_encoder": "personalive/motion_encoder.pth",
    "motion_extractor": "personalive/motion_extractor.pth",
    "pose_guider": "personalive/pose_guider.pth",
}


@dataclass(frozen=True)
class SmallModel:
    """A folder with released file names, and the true values that were written into it."""

    root: Path
    values: dict[str, dict[str, Tensor]]


@pytest.fixture(scope="session")
def pristine_small_model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    root = tmp_path_factory.mktemp("small") / "weights"
    for name, config in SMALL_CONFIGS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(config))
    folder = CheckpointFolder.from_configs(root, name="small")
    generator = torch.Generator().manual_seed(7)
    values = {}
    for part, name in RELEASED_NAMES.items():
        shapes = build_part(folder, part).state_dict()
        values[part] = {key: _value(t, generator) for key, t in shapes.items()}
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(values[part], root / name)
    split_denoiser(root, values["denoising_unet"], lambda key: ".temporal_modules." in key)
    return SmallModel(root, values)


@pytest.fixture
def small_model(pristine_small_model: SmallModel, tmp_path: Path) -> SmallModel:
    """A copy that a test may damage."""
    root = tmp_path / "weights"
    shutil.copytree(pristine_small_model.root, root)
    return SmallModel(root, pristine_small_model.values)


@pytest.fixture
def split() -> Callable[[Path, dict[str, Tensor], Callable[[str], bool]], None]:
    return split_denoiser


def split_denoiser(root: Path, values: dict[str, Tensor], second: Callable[[str], bool]) -> None:
    """Write the denoising U-Net as two files; ``second`` chooses the keys of temporal_module."""
    torch.save({k: v for k, v in values.items() if not second(k)}, root / "personalive/denoising_unet.pth")
    torch.save({k: v for k, v in values.items() if second(k)}, root / "personalive/temporal_module.pth")


def _value(like: Tensor, generator: torch.Generator) -> Tensor:
    if not like.dtype.is_floating_point:
        return torch.zeros(like.shape, dtype=like.dtype)
    return 0.1 * torch.randn(like.shape, generator=generator)


# --- a hub on this machine ---------------------------------------------------------------------------------

COMMIT = "c0ffee" + "0" * 34


@dataclass
class LocalHub:
    """Repositories by name, faults to act out, and what was asked for."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    small: set[str] = field(default_factory=set)  # paths published with a git hash, as configs are
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> status, X-Error-Code
    cut_after: list[int] = field(default_factory=list)  # per reply: bytes until the connection is cut
    corrupt: set[str] = field(default_factory=set)  # paths whose content is sent with one byte changed
    surplus: bytes = b""  # sent after the content
    serves_ranges: bool = True
    listing: bytes | None = None  # a listing of one's own
    omit_hashes: bool = False
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""

    def asked(self, part: str) -> list[dict[str, str]]:
        """Headers of the requests whose path contains ``part``."""
        return [headers for path, headers in self.requests if part in path]

    def describe(self, repo: str) -> bytes:
        if self.listing is not None:
            return self.listing
        siblings = [self._sibling(path, data) for path, data in self.files[repo].items()]
        return json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode()

    def describe_for_modelscope(self, repo: str) -> bytes:
        if self.listing is not None:
            return self.listing
        files = [
            {"Name": Path(path).name, "Path": path, "Type": "blob", "Size": len(data), "Revision": COMMIT}
            | ({} if self.omit_hashes else {"Sha256": hashlib.sha256(data).hexdigest()})
            for path, data in self.files[repo].items()
        ]
        folder = {"Name": "deep", "Path": "deep", "Type": "tree", "Size": 0, "Sha256": ""}
        return json.dumps({"Code": 200, "Data": {"Files": [folder, *files]}}).encode()

    def _sibling(self, path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
        if self.omit_hashes:
            return entry
        entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if path not in self.small:
            entry["blobId"] = "0" * 40
            entry["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
        return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((path, {k.lower(): v for k, v in self.headers.items()}))
        refused = next((answer for part, answer in self.hub.refuse.items() if part in path), None)
        if refused is not None:
            return self._reply(refused[0], b"{}", {"X-Error-Code": refused[1]})
        if path.startswith("/api/v1/models/"):
            return self._modelscope(path.removeprefix("/api/v1/models/"))
        if path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/").partition("/revision/")[0]
            if repo not in self.hub.files:
                return self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return self._reply(200, self.hub.describe(repo), {"Content-Type": "application/json"})
        if not path.startswith("/cdn/"):  # as the hub does for large files: elsewhere
            return self._reply(302, b"", {"Location": "/cdn" + path})
        repo, _, name = path.removeprefix("/cdn/").partition(f"/resolve/{COMMIT}/")
        return self._content(name, self.hub.files[repo][name])

    def _modelscope(self, path: str) -> None:
        repo, query = path.partition("/repo")[0], parse_qs(urlsplit(self.path).query)
        if repo not in self.hub.files:
            return self._reply(404, b'{"Code": 10010205001, "Success": false}', {})
        if path.endswith("/repo"):
            assert query["Revision"] == [COMMIT]
            (name,) = query["FilePath"]
            return self._content(name, self.hub.files[repo][name])
        assert query == {"Revision": ["master"], "Recursive": ["true"]}
        return self._reply(200, self.hub.describe_for_modelscope(repo), {})

    def _content(self, name: str, data: bytes) -> None:
        if name in self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = 0
        if (wanted := self.headers.get("Range")) and self.hub.serves_ranges:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        extra = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        body = data[start:] + self.hub.surplus
        sent = self.hub.cut_after.pop(0) if self.hub.cut_after else len(body)
        self._reply(206 if start else 200, body, extra, sent)

    def _reply(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        if sent is not None and sent < len(body):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it so)
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    from huggingface_hub.utils import close_session

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_user")
    close_session()  # the client reads the environment once
    local = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": local}))
    local.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield local
    close_session()  # its kept-alive connections end, and with them the handler threads
    server.shutdown()
    thread.join()
    server.server_close()
