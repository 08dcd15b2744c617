"""A bound on what is built: networks are made with data as long as they are small."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class TooManyValues(Exception):
    """More values are asked for than the bound allows."""


class FewValues(TorchFunctionMode):
    """A context in which tensors are made until they hold `most` values together.

    The tensor that would go beyond raises `TooManyValues` before it takes memory. Counted are the functions of PyTorch
    that take a shape, as its layers use them for their weights and buffers.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in _MAKERS:
            self.left -= math.prod(_shape(args, named))
            if self.left < 0:
                raise TooManyValues
        return func(*args, **named)


def _shape(args: Sequence[Any], named: Mapping[str, Any]) -> Sequence[int]:
    """The shape of a call like `zeros(2, 3)`, `zeros((2, 3))` or `zeros(size=(2, 3))`."""
    given = named.get("size", args)
    return given[0] if len(given) and isinstance(given[0], Sequence) else given
