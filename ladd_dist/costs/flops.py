"""What a recipe costs: parameters and floating-point operations, counted, not estimated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def _attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Two products: scores q k^T and mix p v; shapes [B,heads,positions,dim]."""
    return 2 * q[:-1].numel() * k[-2] * (q[-1] + v[-1])


def _attention_backward(_: torch.Size, q: torch.Size, k: torch.Size, v: torch.Size, *__: Any, **___: Any) -> int:
    """Five products: scores again, and the gradients of v, of p, of q and of k."""
    return 2 * q[:-1].numel() * k[-2] * (3 * q[-1] + 2 * v[-1])


# PyTorch's counter knows the attention kernels of CUDA alone: without these a cost would depend on the device.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def count_parameters(module: nn.Module) -> int:
    """Number of elements of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(call: Callable[[], Any]) -> int:
    """Floating-point operations (2 per multiply-add) of convolutions, matrix products and attention in `call`.

    A backward inside is included. Normalisations and non-linearities are not counted, as is usual.
    """
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        call()
    return int(counter.get_total_flops())
