"""What a recipe costs: parameters and floating-point operations, counted, not estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def _attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Two products: scores q k^T and mix p v; shapes [B,heads,positions,dim]."""
    return 2 * q[:-1].numel() * k[-2] * (q[-1] + v[-1])


def _attention_backward(_: torch.Size, q: torch.Size, k: torch.Size, v: torch.Size, *__: Any, **___: Any) -> int:
    """Five products: scores again, and the gradients of v, of p, of q and of k."""
    return 2 * q[:-1].numel() * k[-2] * (3 * q[-1] + 2 * v[-1])


# PyTorch's table knows the attention kernels of CUDA alone: without these a cost would depend on the device.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *args, **_: _attention(*map(_shape, args)),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *args, **_: _attention_backward(
        *map(_shape, args)
    ),
}


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, torch.Tensor) else value


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's __init_subclass__
    """Adds up the operators of a table, PyTorch's `FlopCounterMode` without the compiler that it imports.

    That one is a second and a half of imports, most of what a dry run takes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler to leave this mode out of what it compiles

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named, formula = dict(kwargs or {}), _FORMULAS.get(func.overloadpacket)
        if formula is None and torch.is_inference_mode_enabled():  # elsewhere, operators come in their parts
            with self:
                parts = func.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **named)
        if formula is not None:
            self.total += int(formula(*args, **named, out_val=out))
        return out


def count_parameters(module: nn.Module) -> int:
    """Number of elements of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(call: Callable[[], Any]) -> int:
    """Floating-point operations (2 per multiply-add) of convolutions, matrix products and attention in `call`.

    A backward inside is included. Normalisations and non-linearities are not counted, as is usual.
    """
    counter = _Counter()
    with counter:
        call()
    return counter.total
