"""The detail head's task: frames looked for in their portraits, on rendered people whose true poses are known."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.config import DetailConfig
from personalive.errors import InputError
from personalive.models.detail import DetailHead, moved_portrait
from personalive.models.networks import Networks
from personalive.training.build import build_networks
from personalive.training.cache import REFERENCES, FrameCache, missing_flow
from personalive.training.data import PEOPLE, POSE_NAMES, RenderedSet, render_set
from personalive.training.finding import FLOW_WEIGHT, PLACE_WEIGHTS, Finding, place_weight
from personalive.vision.keypoints import HeadPose
from personalive.vision.warps import add_flow, places, sample
from training.conftest import DATA, SIDE_PX, toy_preset

FEATURES, LATENT = 6, SIDE_PX // 8
SMALL = DetailConfig(width=8, blocks=1, blend_width=8)


class Told(DetailHead):
    """A head that says the flow it was given."""

    def __init__(self, flow: Tensor) -> None:
        super().__init__(SMALL, FEATURES)
        self.told = flow

    def flow_residual(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        assert self.told.shape == shift.shape
        return moved, self.told


@dataclass
class Step:
    """Every frame, and the other frames of its person that serve as portraits."""

    rows: np.ndarray
    portraits: np.ndarray
    whiches: np.ndarray
    masks: Tensor
    features: Tensor


def true_poses(data: RenderedSet) -> HeadPose:
    """What the renderer knows, in the order of the cache."""
    numbers = np.repeat(data.truth.pose[:, None], PEOPLE, axis=1).reshape(-1, 6).T
    number: dict[str, np.ndarray] = dict(zip(POSE_NAMES, numbers, strict=True))
    kp = np.repeat(data.truth.keypoints[:, :, None], data.config.frames, axis=2).reshape(-1, 21, 3)
    found = {
        "kp": kp,
        **{name: number[f"{name}_deg"] for name in ("yaw", "pitch", "roll")},
        "t": np.stack([number["tx"], number["ty"], np.zeros_like(number["tx"])], axis=1),
        "scale": number["scale"][:, None],
    }
    return HeadPose(**{name: torch.from_numpy(np.array(value, np.float32)) for name, value in found.items()})


@pytest.fixture(scope="module")
def networks() -> Networks:
    networks = build_networks(toy_preset())
    for module in networks.modules().values():
        module.eval().requires_grad_(False)
    return networks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RenderedSet:
    folder = tmp_path_factory.mktemp("found") / "data"
    render_set(folder, DATA, lambda _: None, workers=1)
    return RenderedSet(folder)


@pytest.fixture(scope="module")
def cache(data: RenderedSet, networks: Networks) -> FrameCache:
    """With faces and poses, and with portraits moved by the true poses."""
    cache = FrameCache(data.folder.parent / "cache", data, networks)
    cache.fill_faces(data, networks, lambda _: None)
    poses = {f.name: getattr(true_poses(data), f.name).numpy() for f in fields(HeadPose)}
    np.savez(cache.folder / "poses.npz", allow_pickle=False, **poses)
    cache.open().fill_moved(data, networks, lambda _: None)
    return cache.open()


@pytest.fixture(scope="module")
def step(data: RenderedSet, cache: FrameCache) -> Step:
    groups, people, frames = cache.shape
    every = itertools.product(range(groups), range(people), range(frames), range(REFERENCES))
    drawn = [(g, p, k, which) for g, p, k, which in every if cache.index(g, p, k) != cache.reference(g, p, which)]
    masks = np.stack([data.truth.masks[g, p, k] for g, p, k, _ in drawn])
    return Step(
        rows=np.array([cache.index(g, p, k) for g, p, k, _ in drawn]),
        portraits=np.array([cache.reference(g, p, which) for g, p, _, which in drawn]),
        whiches=np.array([which for *_, which in drawn]),
        masks=torch.from_numpy(masks) / 255,
        features=torch.randn(len(drawn), FEATURES, LATENT, LATENT, generator=torch.Generator().manual_seed(0)),
    )


def cached(cache: FrameCache, step: Step) -> Tensor:
    assert cache.flow is not None
    return torch.from_numpy(cache.flow[step.rows, step.whiches]).float()


def errors(head: DetailHead, data: RenderedSet, cache: FrameCache, step: Step) -> tuple[Tensor, Tensor]:
    finding = Finding(head, data, cache)
    return finding.errors(step.features, step.rows, step.portraits, step.whiches, step.masks)


# --- the two errors -----------------------------------------------------------------------------------------


def test_the_cached_flow_finds_more_than_no_flow(data, cache, step):
    told = cached(cache, step)
    pixels, flow = errors(Told(told), data, cache, step)
    still_pixels, still_flow = errors(Told(torch.zeros_like(told)), data, cache, step)
    away_pixels, away_flow = errors(Told(-told), data, cache, step)
    assert flow < 1e-6 < still_flow < away_flow
    assert pixels < 0.9 * still_pixels < 0.9 * away_pixels


def test_the_errors_are_weighted_means_over_places(data, cache, step):
    told = torch.zeros_like(cached(cache, step))
    pixels, flow = errors(Told(told), data, cache, step)
    finding = Finding(Told(told), data, cache)
    frames, shown = (F.avg_pool2d(finding.pictures(some, told.device), 2) for some in (step.rows, step.portraits))
    _, moved, _ = moved_portrait(shown, *finding.poses(step.rows, step.portraits), LATENT)
    weight = place_weight(step.masks)
    by_place = F.avg_pool2d((moved - frames).abs(), SIDE_PX // 2 // weight.shape[-1])
    torch.testing.assert_close(pixels, (weight * by_place).mean(), atol=1e-4, rtol=0)
    assert (by_place.mean() - pixels).abs() > 1e-3  # weights matter here
    length = torch.linalg.vector_norm(cached(cache, step), dim=1, keepdim=True)
    assert 0 < (weight * length).mean() - flow < 0.004  # less by at most what counts as doubt


def test_pictures_and_poses_are_those_of_the_rows(data, cache, step):
    finding = Finding(Told(torch.zeros(0)), data, cache)
    shown = finding.pictures(step.rows[[5]], torch.device("cpu"))
    group, rest = divmod(int(step.rows[5]), PEOPLE * DATA.frames)
    truth = torch.from_numpy(np.array(data.images[group, rest // DATA.frames, rest % DATA.frames]))
    torch.testing.assert_close((shown[0] + 1) * 127.5, truth.permute(2, 0, 1).float(), atol=1e-3, rtol=0)
    held, wanted = finding.poses(step.rows, step.portraits)
    assert torch.equal(held.yaw, cache.pose.yaw[torch.from_numpy(step.portraits)])
    assert torch.equal(wanted.yaw, cache.pose.yaw[torch.from_numpy(step.rows)])
    assert torch.equal(wanted.kp, held.kp)


def test_every_place_has_weight_one_in_the_mean_and_the_mouth_more():
    masks = torch.zeros(2, 3, 4, 4)
    masks[0, 0], masks[0, 2, :, :1], masks[1, 1, 0] = 1, 1, 0.5
    weight = place_weight(masks)
    face, eyes, mouth = PLACE_WEIGHTS
    assert weight.shape == (2, 1, 4, 4)
    assert weight.mean().item() == pytest.approx(1)
    bare = weight[1, 0, 3, 3].item()
    assert (weight[0, 0, :, 1:] / bare).unique().tolist() == pytest.approx([1 + face])
    assert (weight[0, 0, :, 0] / bare).unique().tolist() == pytest.approx([1 + face + mouth])
    assert (weight[1, 0, 0] / bare).unique().tolist() == pytest.approx([1 + eyes / 2])


def test_a_head_learns_to_find_what_its_features_tell(data, cache, step):
    told = cached(cache, step)
    telling = dataclasses.replace(step, features=torch.cat([told / told.std(), step.features[:, 2:]], dim=1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = DetailHead(SMALL, FEATURES)
    optimiser = torch.optim.Adam(head.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        pixels, flow = errors(head, data, cache, telling)
        optimiser.zero_grad()
        (pixels + FLOW_WEIGHT * flow).backward()
        optimiser.step()
        history.append((pixels.item(), flow.item()))
    (first_pixels, first_flow), (last_pixels, last_flow) = history[0], history[-1]
    assert last_flow < 0.6 * first_flow
    assert last_pixels < 0.95 * first_pixels
    assert all(p.grad is None for p in head.blend.parameters())


# --- what the cache holds -----------------------------------------------------------------------------------


@pytest.fixture
def without_flow(data: RenderedSet, cache: FrameCache, networks: Networks, tmp_path: Path) -> Iterator[FrameCache]:
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    (folder / "flow.f16").unlink()
    yield FrameCache(folder, data, networks).open()


def test_without_flows_the_stage_that_makes_them_is_named(data, without_flow):
    with pytest.raises(InputError, match="run the moved stage first") as error:
        Finding(Told(torch.zeros(0)), data, without_flow)
    assert str(without_flow.folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_cached_flow_of_a_portrait_to_itself_is_none(cache):
    groups, people, frames = cache.shape
    assert cache.flow.shape == (groups * people * frames, REFERENCES, 2, LATENT, LATENT)
    for group, person in np.ndindex(groups, people):
        for which in range(REFERENCES):
            own = cache.reference(group, person, which)
            first = cache.index(group, person, 0)
            sizes = np.abs(cache.flow[first : first + frames, which].astype(np.float32)).mean(axis=(1, 2, 3))
            assert sizes[own - first] < 1e-4
            assert (np.delete(sizes, own - first) > 2e-3).all()


def texture() -> np.ndarray:
    """(S, S, 3) uint8, smooth enough to be followed over a few pixels."""
    low = torch.rand(1, 3, SIDE_PX // 8, SIDE_PX // 8, generator=torch.Generator().manual_seed(2))
    fine = F.interpolate(low, size=(SIDE_PX, SIDE_PX), mode="bicubic", align_corners=False).clamp(0, 1)
    return (255 * fine[0]).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("shift_px", [(3, -2), (-4, 0), (0, 5)])
def test_the_missing_flow_says_where_in_the_moved_picture_to_look(shift_px: tuple[int, int]):
    x, y = shift_px
    moved = texture()
    frame = np.roll(moved, (-y, -x), axis=(0, 1))  # what it shows at a place is x to the right and y down in moved
    flow = missing_flow(frame, moved, LATENT)
    assert flow.shape == (2, LATENT, LATENT)
    middle = torch.from_numpy(flow[:, 4:-4, 4:-4]) * SIDE_PX / 2
    expected = torch.tensor([x, y]).float()[:, None, None].expand_as(middle)
    torch.testing.assert_close(middle, expected, atol=0.25, rtol=0)
    pictures = [torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None].float() for p in (frame, moved)]
    field = add_flow(places(SIDE_PX, pictures[0].device), torch.from_numpy(flow)[None])
    missed, unmoved = (
        (some - pictures[0])[..., 32:-32, 32:-32].abs().mean() for some in (sample(pictures[1], field), pictures[1])
    )
    assert missed < 0.15 * unmoved
