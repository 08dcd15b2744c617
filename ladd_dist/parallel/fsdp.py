"""The student's weights, gradients and moments spread over ranks (FSDP2; Zhao et al. 2023, arXiv 2304.11277)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.parallel import Adam, FlatShard, Quantity, Trainable
from ladd_dist.parallel.base import ModuleTrainable
from ladd_dist.parallel.compute import Compute, Role, prepare
from ladd_dist.parallel.ddp import build_replicated, require_no_batch_norm
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.parallel.shard import Spread, shard


@register("fsdp")
@dataclass(frozen=True)
class Fsdp(Spread):
    """Student sharded over ranks, each block gathered while it computes (FSDP2); the small heads replicated."""

    def require(self, role: Role, compute: Compute) -> None:
        if compute.precision == "fp16":
            raise UserError(
                "parallel 'fsdp' does not do precision fp16: an overflow in one rank's part of the gradients would "
                "have to be told to all; use --train.compute.precision bf16, or --parallel ddp"
            )

    def build(
        self, module: nn.Module, *, role: Role, adam: Adam, compute: Compute, ranks: Ranks, device: torch.device
    ) -> Trainable:
        self.require(role, compute)
        if role == "heads":
            return build_replicated(module, role=role, adam=adam, compute=compute, device=device)
        require_no_batch_norm(module)
        prepare(module, compute, role, device)
        shard(module, ranks, device)
        return FsdpTrainable(module, module, adam=adam, compute=compute, device=device)


class FsdpTrainable(ModuleTrainable):
    """See `Trainable`; every parameter and moment is a DTensor cut along its first dimension."""

    def reduce_in(self, last: bool) -> AbstractContextManager[Any]:
        cast(Any, self.module).set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def clip_gradients(self, limit: float) -> Tensor:
        norm: Tensor = cast(Any, super().clip_gradients(limit)).full_tensor()
        return norm

    def part(self, name: str, parameter: Tensor, quantity: Quantity) -> FlatShard:
        """Whole rows: a contiguous range; a rank may have none of a tensor with few rows."""
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        tensor = parameter if quantity == "weight" else self.moments(parameter)[quantity]
        assert isinstance(parameter, DTensor) and isinstance(tensor, DTensor)
        local = tensor.to_local().detach()
        _, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
        start = offset[0] * (parameter.numel() // parameter.shape[0])
        return FlatShard(local, start, start + local.numel(), parameter.shape, copies=False)
