"""What a recipe costs: parameters and floating-point operations, counted, not estimated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(call: Callable[[], Any]) -> int:
    """Floating-point operations (2 per multiply-add) of convolutions and matrix products in `call`, backward included.

    Normalisations and non-linearities are not counted, as is usual.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
