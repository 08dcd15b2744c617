"""A replica on every rank (PyTorch DistributedDataParallel; Li et al. 2020, arXiv 2006.15704)."""

from __future__ import annotations

import contextlib
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.parallel import Adam, Trainable
from ladd_dist.parallel.base import ModuleTrainable
from ladd_dist.parallel.compute import Compute, Role, prepare
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.parallel.shard import Spread, hush


@register("ddp")
@dataclass(frozen=True)
class Ddp(Spread):
    """Student and heads replicated; gradients are averaged over ranks while the backward pass runs."""

    def build(
        self, module: nn.Module, *, role: Role, adam: Adam, compute: Compute, ranks: Ranks, device: torch.device
    ) -> Trainable:
        return build_replicated(module, role=role, adam=adam, compute=compute, device=device)


def build_replicated(
    module: nn.Module, *, role: Role, adam: Adam, compute: Compute, device: torch.device
) -> DdpTrainable:
    """A network behind DistributedDataParallel."""
    require_no_batch_norm(module)
    hush()
    prepare(module, compute, role, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        wrapped = DistributedDataParallel(
            module,
            device_ids=None if device.type == "cpu" else [device],
            gradient_as_bucket_view=True,
            # Buffers (spectral norm's vectors) follow from the weights, so they agree without being sent.
            broadcast_buffers=False,  # older PyTorch knows no other name
        )
    return DdpTrainable(module, wrapped, adam=adam, compute=compute, device=device)


def require_no_batch_norm(module: nn.Module) -> None:
    """Refuse statistics that would differ from rank to rank.

    Raises:
        UserError: names the layer.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UserError(
                f"{name} is a {type(layer).__name__}: its statistics would be those of one rank's part of the batch; "
                "use GroupNorm, or train in one process (--parallel single)"
            )


class DdpTrainable(ModuleTrainable):
    """See `Trainable`."""

    call: DistributedDataParallel

    def reduce_in(self, last: bool) -> AbstractContextManager[Any]:
        return contextlib.nullcontext() if last else self.call.no_sync()
