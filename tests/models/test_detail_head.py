"""The detail head: what it begins as, what it reads, and how far each pixel's mask looks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personalive.config import DetailConfig
from personalive.models.detail import CELL_PX, DetailHead

CONFIG = DetailConfig(width=8, blocks=2, blend_width=8)
FEATURES, COUNT, LATENT, SIDE_PX = 6, 2, 8, 64


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(seed: int = 0) -> dict[str, Tensor]:
    """Arguments of ``correction``."""
    return {
        "features": noise(COUNT, FEATURES, LATENT, LATENT, seed=seed),
        "moved": noise(COUNT, 3, SIDE_PX // 2, SIDE_PX // 2, seed=seed + 1).clamp(-1, 1),
        "shift": 0.1 * noise(COUNT, 2, LATENT, LATENT, seed=seed + 2),
    }


def make_images(seed: int = 5) -> tuple[Tensor, Tensor]:
    """Decoded and found."""
    return noise(2 * COUNT, 3, SIDE_PX, SIDE_PX, seed=seed).clamp(-1, 1).split(COUNT)  # type: ignore[return-value]


@pytest.fixture
def fresh() -> DetailHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DetailHead(CONFIG, FEATURES)


@pytest.fixture
def head(fresh: DetailHead) -> DetailHead:
    """One whose last layers are not zero any more."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in fresh.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return fresh


def test_a_fresh_head_corrects_nothing_and_trusts_both_alike(fresh: DetailHead):
    hidden, flow = fresh.flow_residual(**inputs())
    assert not flow.any()
    assert hidden.std() > 0.1
    assert torch.equal(fresh.blend_mask(*make_images(), hidden), torch.full((COUNT, 1, SIDE_PX, SIDE_PX), 0.5))


def test_shapes_and_ranges(head: DetailHead):
    hidden, flow = head.flow_residual(**inputs())
    mask = head.blend_mask(*make_images(), hidden)
    assert hidden.shape == (COUNT, CONFIG.width, LATENT, LATENT)
    assert flow.shape == (COUNT, 2, LATENT, LATENT)
    assert mask.shape == (COUNT, 1, SIDE_PX, SIDE_PX)
    assert 0 < mask.min() < mask.max() < 1


def test_every_parameter_has_a_say(head: DetailHead):
    hidden, flow = head.flow_residual(**inputs())
    mask = head.blend_mask(*make_images(), hidden)
    loss = (flow * noise(*flow.shape, seed=7)).sum() + (mask * noise(*mask.shape, seed=8)).sum()
    loss.backward()
    silent = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_fresh_head_can_begin_to_learn(fresh: DetailHead):
    hidden, flow = fresh.flow_residual(**inputs())
    mask = fresh.blend_mask(*make_images(), hidden)
    (flow.sum() + (mask * noise(*mask.shape, seed=8)).sum()).backward()
    for last in (fresh.flow, fresh.blend["mask"]):
        assert all(p.grad is not None and p.grad.any() for p in last.parameters())


@pytest.mark.parametrize("name", ["features", "moved", "shift"])
def test_the_correction_reads_all_that_it_is_given(head: DetailHead, name: str):
    given, other = inputs(), inputs(seed=20)
    (hidden, flow), (changed_hidden, changed) = (
        head.flow_residual(**some) for some in (given, given | {name: other[name]})
    )
    assert (changed - flow).std() > 0.05 * flow.std()
    assert not torch.equal(changed_hidden, hidden)


def test_frames_do_not_see_one_another(head: DetailHead):
    given, (decoded, found) = inputs(), make_images()
    hidden, flow = head.flow_residual(**given)
    mask = head.blend_mask(decoded, found, hidden)
    for i in range(COUNT):
        alone_hidden, alone = head.flow_residual(**{name: value[[i]] for name, value in given.items()})
        torch.testing.assert_close(alone, flow[[i]], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            head.blend_mask(decoded[[i]], found[[i]], alone_hidden), mask[[i]], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("which", [0, 1], ids=["decoded", "found"])
def test_trust_is_decided_near_each_pixel(head: DetailHead, which: int):
    hidden, _ = head.flow_residual(**inputs())
    given, changed = make_images(), make_images()
    x, y = 6, 9  # the cell that is changed
    changed[which][0, :, y * CELL_PX + 1, x * CELL_PX + 2] += 1.0
    change = (head.blend_mask(*changed, hidden) - head.blend_mask(*given, hidden)).abs()
    cells = change[0, 0].unflatten(0, (-1, CELL_PX)).unflatten(2, (-1, CELL_PX)).amax(dim=(1, 3))
    expected = torch.zeros(SIDE_PX // CELL_PX, SIDE_PX // CELL_PX, dtype=torch.bool)
    expected[y - 2 : y + 3, x - 2 : x + 3] = True  # two convolutions of three cells
    assert torch.equal(cells > 0, expected)
    assert not change[1].any()


def test_the_blend_mask_depends_on_how_much_the_images_differ(head: DetailHead):
    hidden, _ = head.flow_residual(**inputs())
    with torch.no_grad():
        head.blend["pictures"].weight[:, : 2 * 3 * CELL_PX**2] = 0  # type: ignore[index]
    (decoded, found), (other, _) = make_images(), make_images(seed=9)
    torch.testing.assert_close(head.blend_mask(decoded, found, hidden), head.blend_mask(found, decoded, hidden))
    torch.testing.assert_close(head.blend_mask(found, found, hidden), head.blend_mask(other, other, hidden))
    assert (head.blend_mask(decoded, found, hidden) - head.blend_mask(other, found, hidden)).abs().mean() > 1e-3


def test_trust_differs_from_pixel_to_pixel(head: DetailHead):
    hidden, _ = head.flow_residual(**inputs())
    mask = head.blend_mask(*make_images(), hidden)
    for right, down in ((mask[..., :-1], mask[..., 1:]), (mask[..., :-1, :], mask[..., 1:, :])):
        assert ((right - down).abs() > 1e-5).float().mean() > 0.99


def test_trust_reads_the_hidden_features_where_they_are(head: DetailHead):
    hidden, _ = head.flow_residual(**inputs())
    other = hidden.clone()
    other[:, :, :, LATENT // 2 :] += 1.0
    change = (head.blend_mask(*make_images(), other) - head.blend_mask(*make_images(), hidden)).abs()
    reach = 2 * CELL_PX
    assert not change[..., : SIDE_PX // 2 - reach].any()
    assert (change[..., SIDE_PX // 2 :].mean(dim=(1, 2, 3)) > 1e-3).all()


def test_half_precision_inside_and_float32_out(head: DetailHead):
    given, (decoded, found) = inputs(), make_images()
    hidden, flow = head.flow_residual(**given)
    mask = head.blend_mask(decoded, found, hidden)
    half = head.bfloat16()
    half_hidden, half_flow = half.flow_residual(**{name: value.bfloat16() for name, value in given.items()})
    half_trust = half.blend_mask(decoded.bfloat16(), found.bfloat16(), half_hidden)
    assert half_hidden.dtype is torch.bfloat16
    assert half_flow.dtype is half_trust.dtype is torch.float32
    torch.testing.assert_close(half_flow, flow, atol=0.05 * flow.abs().max().item(), rtol=0)
    torch.testing.assert_close(half_trust, mask, atol=0.01, rtol=0)
