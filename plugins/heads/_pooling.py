"""Pooling over space whose gradients keep the layout of the maps.

PyTorch's own mean writes its gradient out as [B,c,h,w], contiguous, where the maps are channels_last: every operator
after it reads two layouts, which a CPU does several times slower. Its maximum counts ties in 64-bit integers. The
numbers here are the same to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def mean_over_space(maps: Tensor) -> Tensor:
    """Mean [B,c] of maps [B,c,h,w]."""
    mean: Tensor = _Mean.apply(maps)
    return mean


def mean_and_max_over_space(maps: Tensor) -> Tensor:
    """Means, then maxima [B,2c] of maps [B,c,h,w]; equal maxima of a map share the gradient evenly, as with `amax`."""
    return torch.cat(_MeanAndMax.apply(maps), dim=1)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.shape = maps.shape
        return maps.mean(dim=(2, 3))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        height, width = ctx.shape[2:]
        return _on_maps(grad / (height * width)).expand(ctx.shape)


class _MeanAndMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        highest = maps.amax(dim=(2, 3))
        ctx.save_for_backward(maps, highest)
        return maps.mean(dim=(2, 3)), highest

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_max: Tensor) -> Tensor:
        maps, highest = (saved.detach() for saved in ctx.saved_tensors)
        # Zeros and ones in the maps' own type: a CPU compares into that several times faster than into booleans.
        where = torch.eq(maps, _on_maps(highest), out=torch.empty_like(maps))
        share = (grad_max / where.sum(dim=(2, 3), dtype=torch.float32)).to(grad_max.dtype)
        mean = grad_mean / (maps.shape[2] * maps.shape[3])
        return torch.addcmul(_on_maps(mean), where, _on_maps(share))


def _on_maps(values: Tensor) -> Tensor:
    return values[:, :, None, None]
