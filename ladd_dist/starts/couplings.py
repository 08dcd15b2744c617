"""Noise couplings, the choice that decided the report's experiments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.types import Batch
from ladd_dist.starts import Start


@register("fresh")
@dataclass(frozen=True)
class Fresh(Start):
    """x = x0 + sigma eps with new noise. Its L2 optimum at high sigma is the class mean: one mean colour."""

    rule = "sde"

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        return batch.x0 + sigma.view(-1, 1, 1, 1) * eps


@register("stored")
@dataclass(frozen=True)
class Stored(Start):
    """x = x0 + sigma n with the noise n from which the teacher made x0: a function of n, with nothing to average."""

    rule = "ode"
    needs_pairs = True

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        if batch.noise is None:
            raise UserError("start 'stored' needs the noise from which each sample was made; these shards hold none")
        return batch.x0 + sigma.view(-1, 1, 1, 1) * batch.noise


@register("ot")
@dataclass(frozen=True)
class Ot(Start):
    """x = x0 + sigma n with new noise, for a student that learns its own map of noise (target `input` pins it).

    No pair says which sample a noise belongs to. The student decides and keeps to it, so sampling keeps the noise's
    direction. Below the highest level its inputs should be its own (rollout `on_policy`, share 1): inputs from random
    pairs contradict its map.
    """

    rule = "ode"

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        return batch.x0 + sigma.view(-1, 1, 1, 1) * eps


@register("path")
@dataclass(frozen=True)
class Path(Start):
    """x = the teacher's own state at sigma on its path from n to x0; the shards hold these states."""

    rule = "ode"
    needs_pairs = True
    needs_path = True

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        if batch.path is None:
            raise UserError("start 'path' needs shards with the teacher's states; these hold none")
        stored = torch.tensor(batch.path_levels, dtype=sigma.dtype).to(sigma.device, non_blocking=True)
        index = (stored[None] / sigma[:, None]).log().abs().argmin(dim=1)
        return batch.path[torch.arange(len(sigma), device=sigma.device), index]
