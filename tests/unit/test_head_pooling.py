"""Pooling of the heads: PyTorch's numbers, with gradients in the layout of the maps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ladd_dist.zoo.plugins.heads._pooling import mean_and_max_over_space, mean_over_space
from plugins.heads import SmallConv
from tests.unit.test_heads import HEADS

Pool = Callable[[Tensor], Tensor]
LAYOUTS = [torch.channels_last, torch.contiguous_format]


def maps_of(layout: torch.memory_format, dtype: torch.dtype = torch.float32) -> Tensor:
    """Maps [4,6,5,3]; the first has all its values equal, and some values of the second are its largest."""
    maps = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    maps[0] = 0.25
    maps[1, :, 1:3, 0] = 9.0
    return maps.to(dtype).contiguous(memory_format=layout).requires_grad_()


def plain_mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3))


def plain_mean_and_max(maps: Tensor) -> Tensor:
    return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)


PAIRS: list[tuple[Pool, Pool]] = [(mean_over_space, plain_mean), (mean_and_max_over_space, plain_mean_and_max)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_values_and_gradients_are_pytorchs_to_the_bit_with_equal_maxima_too(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    for ours, plain in PAIRS:
        maps = maps_of(layout, dtype)
        expected, found = plain(maps), ours(maps)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        (right,) = torch.autograd.grad(expected, maps, weights)
        (grad,) = torch.autograd.grad(found, maps, weights)
        assert torch.equal(found, expected)
        assert torch.equal(grad, right) and grad.dtype == dtype


@pytest.mark.parametrize("pool", [mean_over_space, mean_and_max_over_space])
def test_gradients_after_the_pooling_keep_the_layout_of_channels_last_maps(pool: Pool) -> None:
    maps = maps_of(torch.channels_last)
    (grad,) = torch.autograd.grad(pool(functional.leaky_relu(maps, 0.2)).square().sum(), maps)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pool", [mean_over_space, mean_and_max_over_space])
def test_the_pooling_can_be_differentiated_twice(pool: Pool) -> None:
    maps = torch.randn(2, 3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(pool, maps)
    assert torch.autograd.gradgradcheck(lambda x: pool(x).pow(3), maps)


@pytest.mark.parametrize("cls", HEADS, ids=lambda cls: cls.name)
def test_a_head_leaves_the_features_that_it_is_given(cls: type[SmallConv]) -> None:
    """Its activations write over what they read, which must be the head's own."""
    torch.manual_seed(0)
    head, features = cls(width=8).build(channels=4, cond_dim=6), torch.randn(2, 4, 6, 6, requires_grad=True)
    before = features.detach().clone()
    head(features, torch.randn(2, 6)).sum().backward()
    assert torch.equal(features, before)
