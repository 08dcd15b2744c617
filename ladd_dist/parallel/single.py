"""One process, one device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.parallel import Adam, Parallel, Trainable
from ladd_dist.parallel.base import ModuleTrainable
from ladd_dist.parallel.compute import Compute, Role, prepare, to_compute_dtype
from ladd_dist.parallel.ranks import Ranks


@register("single")
@dataclass(frozen=True)
class Single(Parallel):
    """One process on one device."""

    def build(
        self, module: nn.Module, *, role: Role, adam: Adam, compute: Compute, ranks: Ranks, device: torch.device
    ) -> Trainable:
        if ranks.size > 1:
            raise UserError(f"parallel 'single' is for one process, there are {ranks.size}; use --parallel ddp")
        prepare(module, compute, role, device)
        return ModuleTrainable(module, module, adam=adam, compute=compute, device=device)

    def freeze(self, module: nn.Module, *, compute: Compute, ranks: Ranks, device: torch.device) -> nn.Module:
        return replicate(module, compute, device)


def replicate(module: nn.Module, compute: Compute, device: torch.device) -> nn.Module:
    """The frozen teacher, whole, in the dtype of its computation."""
    module.eval().requires_grad_(False)
    to_compute_dtype(module, compute.dtype)
    return prepare(module, compute, "teacher", device)
