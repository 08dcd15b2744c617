"""Exponential moving average of weights (Karras et al. 2022, arXiv 2206.00364, section F.2)."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class WeightAverage(Generic[M]):
    """A copy of a module whose weights follow it: w <- beta w + (1 - beta) w_new, beta = 0.5^(batch / half-life)."""

    def __init__(self, module: M, *, half_life: int, ramp: float, batch_size: int) -> None:
        """half_life in samples (0: the copy is always the module's last state); ramp: half-life is at most
        ramp x samples seen (0: no such limit)."""
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life, self.ramp, self.batch_size = half_life, ramp, batch_size

    def beta(self, updates: int) -> float:
        """The decay of the update number `updates` (1 at the first)."""
        half_life: float = self.half_life
        if self.ramp > 0:
            half_life = min(half_life, self.ramp * updates * self.batch_size)
        return 0.5 ** (self.batch_size / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Follow `module` after its update number `updates`; buffers are copied."""
        own: list[Tensor] = list(self.module.parameters())
        new: list[Tensor] = [parameter.detach() for parameter in module.parameters()]
        torch._foreach_lerp_(own, new, 1 - self.beta(updates))
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)
