"""Spreading a network's weights over ranks (PyTorch FSDP2; Zhao et al. 2023, arXiv 2304.11277)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import nn

from ladd_dist.parallel import Parallel
from ladd_dist.parallel.compute import Compute, prepare, to_compute_dtype
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.parallel.single import replicate


@dataclass(frozen=True)
class Spread(Parallel):
    """Base of the strategies of several processes: the frozen teacher is a replica on each rank, or sharded."""

    shard_teacher: bool = False
    """Spread the frozen teacher over ranks (FSDP2) in place of a replica on each."""
    needs_group = True

    def freeze(self, module: nn.Module, *, compute: Compute, ranks: Ranks, device: torch.device) -> nn.Module:
        if self.shard_teacher:
            return shard_frozen(module, compute, ranks, device)
        return replicate(module, compute, device)


def hush() -> None:
    """Leave out the warnings about old names that FSDP2 and DeepSpeed themselves call, many times a step.

    And about views that a network returns: they would matter to somebody who writes into them, which nobody does. And
    about gradients in another memory layout than DDP's buckets, as kernels of some devices give them for channels_last
    inputs: by PyTorch's own words that is no error, DDP copies them.
    """
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module .* returned a view tensor", UserWarning)
    warnings.filterwarnings("ignore", r"Grad strides do not match bucket view strides", UserWarning)


def make_contiguous(module: nn.Module) -> None:
    """Lay every weight out row by row; channels_last weights would be cut, or flattened, in another order."""
    for parameter in module.parameters():
        # Not `contiguous()`: a channels_last 1x1 convolution passes for contiguous, with strides that cannot be viewed.
        parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device).copy_(
            parameter.data
        )


def shard(module: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Leave every rank a part of each weight; blocks are gathered one by one while they compute."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    hush()
    make_contiguous(module)
    mesh = init_device_mesh(device.type, (ranks.size,))
    for block in getattr(module, "blocks", lambda: [])():
        fully_shard(block, mesh=mesh)
    # The root too is cut again after every forward. By default it would stay whole until the next backward, and what
    # is written into the weights in between (a restored state, an average) would not be seen.
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


def shard_frozen(module: nn.Module, compute: Compute, ranks: Ranks, device: torch.device) -> nn.Module:
    """The frozen teacher spread over ranks, in the dtype of its computation; differentiable in its input."""
    module.eval().requires_grad_(False)
    to_compute_dtype(module, compute.dtype)
    prepare(module, compute, "teacher", device)
    shard(module, ranks, device)
    return module
