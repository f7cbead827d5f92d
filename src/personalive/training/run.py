"""A training run: a folder, and the stages that fill it one after another."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from personalive.checkpoints.networks import save_networks
from personalive.errors import InputError, OutputError
from personalive.models.networks import Networks
from personalive.runtime.load import choose_device
from personalive.training.build import build_networks
from personalive.training.cache import FrameCache
from personalive.training.data import RenderedSet, render_set
from personalive.training.detail import DetailStage
from personalive.training.extractor import ExtractorStage
from personalive.training.linear_start import LinearPath, fit, place
from personalive.training.loop import LossOf, join_world, train, trainable
from personalive.training.motion import MotionModules, MotionStage
from personalive.training.presets import STAGES, DataConfig, StageConfig, TinyPreset
from personalive.training.sharpen import Adversary, LatentCritic, SharpenStage
from personalive.training.temporal import TemporalModules, TemporalStage
from personalive.training.tokens import TokenReader, TokenStage, standardise_tokens
from personalive.training.vae import VaeStage, encode_all

STEPS = (
    *("render", "vae", "latents", "extractor", "faces", "moved"),
    *("tokens", "motion", "decoder", "temporal", "sharpen", "detail", "export"),
)
SHARED_STEPS = ("motion", "sharpen", "temporal", "detail")  # that several processes may run together
PROGRESS_SECONDS = 10.0
SCALING_SAMPLE = 512  # images whose latents decide the scaling factor


class Run:
    """Networks being trained, their data, and what is on disk of both."""

    def __init__(
        self,
        folder: Path,
        device: str,
        *,
        steps: int | None,
        minutes: float | None,
        groups: int,
        say: Callable[[str], None],
        preset: TinyPreset | None = None,
        stages: dict[str, StageConfig] | None = None,
    ) -> None:
        self.folder, self.device, self.say = folder, choose_device(device), say
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be the run folder ({error.strerror}): give another --run") from error
        self.world = join_world()
        self.overrides = {"steps": steps, "minutes": minutes}
        self.stages = stages or STAGES
        self.data_config = DataConfig(groups=groups)
        self.networks = build_networks(preset or TinyPreset())
        self.reader = TokenReader(self.networks.motion_encoder, self.networks.config.motion_encoder)

    def do(self, name: str) -> None:
        """Run one step by name.

        Raises:
            InputError: several processes share the run, and this step is not written for that.
        """
        if self.world.size > 1 and name not in SHARED_STEPS:
            raise InputError(f"step {name} is not shared among processes: start it without torchrun")
        getattr(self, name)()

    # --- steps ----------------------------------------------------------------------------------------

    def render(self) -> None:
        """Render the training set."""
        total = self.data_config.groups
        render_set(
            self.folder / "data", self.data_config, self._progress("render", total), workers=os.cpu_count() or 1
        )

    def vae(self) -> None:
        """Train the autoencoder and measure its scaling factor; called again, it goes on from where it was."""
        data, fresh = self._data(), not self._resume("vae")
        vae = self._vae()
        config = self._config("vae")
        loss = VaeStage(vae, data, config.batch, self.device)
        if fresh:
            path = LinearPath(list(vae.config.block_out_channels), vae.config.latent_channels).to(self.device)
            self.say(f"vae: linear start, {config.start_steps} steps")
            self.say(f"vae: linear start: squared error {fit(path, loss.pictures, config.start_steps):.4f}")
            place(path, vae)
        vae.load_state_dict(self._train("vae", trainable([vae]), loss, "vae", scaling=1.0).state_dict())
        pictures = data.images.reshape(-1, *data.images.shape[3:])
        rows = np.linspace(0, len(pictures) - 1, SCALING_SAMPLE).astype(int)
        scaling = 1 / encode_all(vae.eval(), pictures[rows], self.device).float().std().item()
        self.networks.vae.register_to_config(scaling_factor=scaling)
        self._save("vae", vae, scaling=scaling)

    def decoder(self) -> None:
        """Train the decoder further, on whole images; latents stay as they are, so this may also come last."""
        self._load("vae")
        vae = self._vae()
        vae.requires_grad_(False)
        for part in (vae.decoder, vae.post_quant_conv):
            part.train().requires_grad_(True)
        data = self._data()
        loss = VaeStage(vae, data, self._config("decoder").batch, self.device, crop_px=data.config.size_px)
        self._train("decoder", nn.ModuleList([vae]), loss, "vae", scaling=vae.config.scaling_factor)

    def extractor(self) -> None:
        """Train the motion extractor; called again, it goes on from where it was."""
        fresh = not self._resume("motion_extractor")
        extractor = self.networks.motion_extractor.to(self.device)
        size, batch = self.networks.config.motion_extractor.input_size_px, self._config("extractor").batch
        loss = ExtractorStage(extractor, self._data(), size, batch)
        if fresh:
            loss.standardise()
        self._train("extractor", trainable([extractor]), loss, "motion_extractor")

    def latents(self) -> None:
        """Encode every training frame."""
        self._load("vae")
        self._vae()
        cache = FrameCache(self.folder / "cache", data := self._data(), self.networks)
        cache.fill_latents(data, self.networks, self._progress("latents", int(np.prod(cache.shape))))

    def faces(self) -> None:
        """Find the head and cut the face and a thumbnail out of every training frame."""
        self._load("motion_extractor")
        cache = FrameCache(self.folder / "cache", data := self._data(), self.networks)
        cache.fill_faces(data, self.networks, self._progress("faces", int(np.prod(cache.shape))))

    def moved(self) -> None:
        """Encode what frames of the motion stage enter as."""
        self._load("vae")
        self._vae()
        cache = self._cache()
        cache.fill_moved(self._data(), self.networks, self._progress("moved", int(np.prod(cache.shape))))

    def tokens(self) -> None:
        """Train the motion encoder on the expression; called again, it goes on from where it was."""
        self._resume("reader")
        reader = self.reader.to(self.device)
        loss = TokenStage(reader, self._data(), self._cache(), self._config("tokens").batch)
        averaged = self._train("tokens", trainable([reader]), loss, "reader")
        self._fill_tokens(cast(TokenReader, averaged).eval())

    def _fill_tokens(self, reader: TokenReader) -> None:
        """Cache the tokens of every frame, and bring both them and the encoder to a known spread.

        The reader's own file keeps the spread it was trained at: its rate would be wrong at another.
        """
        cache = self._cache()
        cache.fill_tokens(reader.encoder, self._progress("tokens", int(np.prod(cache.shape))))
        standardise_tokens(reader.encoder, cache)
        self._save("motion_encoder", reader.encoder)

    def motion(self) -> None:
        """Train image-level motion; called again, it goes on from where it was."""
        fresh = not self._path("motion").exists()
        modules, loss = self._motion_stage("motion", fresh=fresh)
        if fresh:
            loss.standardise()
        self._train("motion", modules, loss, "motion")

    def sharpen(self) -> None:
        """Train image-level motion against a critic; called again, both go on from where they were."""
        modules, loss = self._motion_stage("sharpen", fresh=False)
        size = self.networks.config.motion_encoder
        critic = LatentCritic(self.networks.unet_config.in_channels, size.tokens * size.token_width)
        if (path := self._path("critic")).exists():
            self._fill(critic, path)
        adversary = Adversary(critic.to(self.device), self.world)
        self._train("sharpen", modules, SharpenStage(loss, adversary), "motion")
        if self.world.leads:
            self._save("critic", critic)

    def _motion_stage(self, name: str, *, fresh: bool) -> tuple[nn.ModuleList, MotionStage]:
        """Modules that stages `motion` and `sharpen` train, and the error they share."""
        self._load("vae", "motion_extractor", "motion_encoder")
        modules = MotionModules(self.networks).to(self.device)
        if not fresh:
            self._load("motion")
        trained = trainable([modules])
        TemporalModules(self.networks.denoising_unet).requires_grad_(False)
        if self.networks.detail is not None:
            self.networks.detail.blend.requires_grad_(False)
        config = self._config(name)
        batch = self._share(config)
        data, cache = self._data(), self._cache()
        return trained, MotionStage(modules, self.networks, data, cache, batch, config.frames, self.world.rank)

    def detail(self) -> None:
        """Train the detail head on finished frames; called again, it goes on from where it was."""
        _, loss = self._motion_stage("detail", fresh=False)
        if (finding := loss.finding) is None:
            self.say("detail: this preset has no detail head: nothing to do")
            return
        for module in self.networks.modules().values():
            module.eval().requires_grad_(False)
        self._vae()
        trainable([finding.head])
        stage = DetailStage(loss, finding, self.networks)
        self._train("detail", nn.ModuleList([loss.modules]), stage, "motion")

    def temporal(self) -> None:
        """Train the temporal modules on streams."""
        self._load("vae", "motion_extractor", "motion_encoder", "motion")
        self._resume("temporal")
        for module in self.networks.modules().values():
            module.to(self.device)
        self.networks.denoising_unet.requires_grad_(False)
        trained = trainable([TemporalModules(self.networks.denoising_unet)])
        config = self._config("temporal")
        batch = self._share(config)
        loss = TemporalStage(self.networks, self.effect(), batch, config.frames, self.world.rank, self.world.size)
        self._train("temporal", trained, loss, "temporal")

    def export(self) -> None:
        """Write the half-precision folder with everything that has been trained so far."""
        self.load_all()
        save_networks(self.networks, self.folder / f"tiny-{time.strftime('%H%M%S')}", dtype=torch.float16)

    def effect(self) -> torch.Tensor:
        """(C,) what each latent channel does to an image, as step ``latents`` measured it."""
        return self._cache().known("effect")

    def load_all(self) -> Networks:
        """The networks as far as they are trained, in eval mode on the CPU."""
        names = ("vae", "motion_extractor", "motion_encoder", "motion", "temporal")
        return self.load(*(name for name in names if self._path(name).exists()))

    def load(self, *names: str) -> Networks:
        """The networks with what these stages left, in eval mode on the CPU.

        Raises:
            InputError: a stage has not run yet, or its file is damaged.
        """
        self._load(*names)
        for module in self.networks.modules().values():
            module.eval().requires_grad_(False)
        return self.networks

    # --- files and loops ------------------------------------------------------------------------------

    def _train(
        self, name: str, modules: nn.ModuleList, loss: LossOf, file: str, scaling: float | None = None
    ) -> nn.Module:
        """Train, and save the average of the first module in ``file``, every few minutes and at the end."""

        def snapshot(averaged: nn.Module, step: int) -> None:
            self._save(file, cast(nn.ModuleList, averaged)[0], scaling)

        config = self._config(name)
        self.say(f"{name}: {sum(p.numel() for p in modules.parameters() if p.requires_grad):,} parameters, {config}")
        log = self.folder / "log.jsonl"
        return cast(nn.ModuleList, train(name, modules, loss, config, log, snapshot, world=self.world))[0]

    def _config(self, name: str) -> StageConfig:
        given = {key: value for key, value in self.overrides.items() if value is not None}
        return dataclasses.replace(self.stages[name], **given)

    def _share(self, config: StageConfig) -> int:
        """This process's part of a batch."""
        if config.batch % self.world.size:
            raise InputError(f"a batch of {config.batch} cannot be shared by {self.world.size} processes")
        return config.batch // self.world.size

    def _data(self) -> RenderedSet:
        return RenderedSet(self.folder / "data")

    def _cache(self) -> FrameCache:
        return FrameCache(self.folder / "cache", self._data(), self.networks).open()

    def _vae(self) -> Any:
        """The autoencoder on the device."""
        return self.networks.vae.to(self.device, memory_format=torch.channels_last)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _resume(self, name: str) -> bool:
        """Load what an earlier call of the stage saved, if there was one, and tell whether there was."""
        if found := self._path(name).exists():
            self._load(name)
        return found

    def _save(self, name: str, module: nn.Module, scaling: float | None = None) -> None:
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
        path = self._path(name)
        partial_path = path.with_suffix(".partial")
        save_file(tensors, partial_path, metadata={} if scaling is None else {"scaling_factor": repr(scaling)})
        partial_path.replace(path)

    def _load(self, *names: str) -> None:
        homes = {
            "vae": self.networks.vae,
            "motion_extractor": self.networks.motion_extractor,
            "reader": self.reader,
            "motion_encoder": self.networks.motion_encoder,
            "motion": MotionModules(self.networks),
            "temporal": TemporalModules(self.networks.denoising_unet),
        }
        for name in names:
            path = self._path(name)
            if not path.exists():
                raise InputError(f"{path}: not there yet: run the stage that trains it first")
            self._fill(homes[name], path)
            homes[name].eval()
            if name == "vae":
                self.networks.vae.register_to_config(scaling_factor=_scaling(path))

    @staticmethod
    def _fill(module: nn.Module, path: Path) -> None:
        try:
            module.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"{path}: damaged, or of another preset: train that stage again") from error

    def _progress(self, name: str, total: int) -> Callable[[int], None]:
        begun, shown = time.monotonic(), [time.monotonic()]

        def report(done: int) -> None:
            now = time.monotonic()
            if now - shown[0] > PROGRESS_SECONDS or done == total:
                shown[0] = now
                rate = done / (now - begun)
                self.say(f"{name}: {done}/{total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left")

        return report


def _scaling(path: Path) -> float:
    with safe_open(path, framework="pt") as file:
        return float(file.metadata()["scaling_factor"])
