"""A graph for the CPU: operations that are recorded without an effect, and done again on the same memory.

It does what a CUDA graph does, so that what is recorded can be checked without a GPU: no Python runs in a replay, a
constant stays what it was, and results lie where they lay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Found = dict[str, Tensor]


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, list | tuple) else []


def where(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Listening(TorchDispatchMode):
    """Keeps each operation, and what was in the memory that it writes to and that was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.made: set[int] = set()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in tensors(given):
                    if where(tensor) not in self.made and id(tensor) not in self.before:
                        self.before[id(tensor)] = (tensor, tensor.clone())
        result = func(*args, **kwargs)
        known = {where(tensor) for tensor in tensors([*args, *kwargs.values()])}
        self.made |= {where(tensor) for tensor in tensors(result)} - known
        self.done.append((func, args, kwargs, tensors(result)))
        return result

    @torch.no_grad()
    def undo(self) -> None:
        """Give memory that was there before the recording what it held then."""
        for tensor, value in self.before.values():
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        """Do the operations again, on the same memory."""
        for func, args, kwargs, results in self.done:
            for old, new in zip(results, tensors(func(*args, **kwargs)), strict=True):
                if where(old) != where(new):
                    old.copy_(new)


class Tape:
    """A `Recorder` on the CPU."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """The operations that were recorded."""

    def run(self, work: Callable[[], Found]) -> Found:
        return work()

    def record(self, work: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        listening = Listening()
        with listening:
            found = work()
        listening.undo()
        with torch.no_grad():
            for value in found.values():
                value.fill_(float("nan"))  # nothing is computed before the first replay
        self.names += [str(func) for func, *_ in listening.done]
        return found, listening.replay
