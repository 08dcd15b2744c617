"""How a network is computed: precision, accumulation, activation checkpointing, compilation."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from torch import nn

from ladd_dist.core.ranges import Count, Ranged
from ladd_dist.core.serialize import NEUTRAL

Role = Literal["student", "heads", "teacher"]
Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute(Ranged):
    """How the networks of a training are computed."""

    precision: Precision = "fp32"
    """bf16, fp16: forwards under autocast; weights, optimizer and losses stay in fp32, fp16 scales the loss."""
    accumulate: Count = field(default=1, metadata=NEUTRAL)
    """Micro-batches a rank and update: the same numbers in less memory (distillation needs train.mode alternate)."""
    checkpoint: tuple[Role, ...] = field(default=(), metadata=NEUTRAL)
    """Networks whose blocks compute their activations again in the backward pass, in place of keeping them."""
    compile: tuple[Role, ...] = field(default=(), metadata=NEUTRAL)
    """Networks compiled by torch.compile, block by block."""
    data: Literal["host", "ahead", "device"] = field(default="host", metadata=NEUTRAL)
    """Where the training samples lie: `device` keeps all of them in each device's memory, so that a step sends none;
    `ahead` reads and sends those of the next step while the device computes this one. The numbers are the same."""

    graph: bool = field(default=False, metadata=NEUTRAL)
    """Record the whole step as a CUDA graph, which the host starts in one call: faster where the host cannot keep up
    with the device. For one process, in fp32 or bf16, with steps that draw no noise inside."""

    @property
    def dtype(self) -> torch.dtype:
        """The type in which forwards compute."""
        return _DTYPES[self.precision]


def prepare(module: nn.Module, compute: Compute, role: Role, device: torch.device) -> nn.Module:
    """Move a network to its device and make its forward follow `compute`; parameter names stay as they are.

    Blocks (`module.blocks()` where there is such a method) are checkpointed and compiled one by one; a network without
    blocks as a whole. Autocast is part of the outermost forward, so every wrapper around it computes the same.
    """
    module.to(device)
    blocks: list[nn.Module] = list(getattr(module, "blocks", lambda: [])()) or [module]
    for block in blocks:
        if role in compute.checkpoint:
            block.forward = functools.partial(_checkpointed, block, role, block.forward)
        if role in compute.compile:
            # The limit counts all blocks of a class together, and beyond it PyTorch stops compiling with a warning.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(blocks))
            block.compile()
    if compute.precision != "fp32":
        module.forward = torch.autocast(device.type, compute.dtype)(module.forward)
    return module


def _checkpointed(block: nn.Module, role: Role, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if role != "teacher" and not block.training:  # frozen: by the backward pass its weights need gradients again
        return forward(*args, **kwargs)
    return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)


def to_compute_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights that autocast would cast in every forward (convolutions, linear layers) in `dtype`, for good.

    The same numbers as casting at each use; norms and embeddings stay in float32, as autocast has them.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.to(dtype)
