"""What a training step keeps in memory besides its networks, measured on tensors that have no data."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ladd_dist.costs.memory_model import Unit, units_of

_FP32_ON_ACCELERATORS = ("group_norm", "layer_norm", "softmax", "log_softmax", "normalize", "softplus")


class Peak(NamedTuple):
    """Bytes of tensors that are neither the caller's own nor gradients of parameters, at their most."""

    saved: int
    """What autograd holds for backward passes: the activations."""
    live: int
    """All that there is: also what a function has just computed and nobody keeps."""


def peak_bytes(call: Callable[[], Any], own: Iterable[Tensor]) -> Peak:
    """Run `call` and watch every storage: those autograd saves, and those any operation makes.

    Args:
        own: what is counted elsewhere (parameters, optimizer state, the batch). Gradients accumulated into `grad` of
            those among them that are parameters are left out too.
    """
    mine = list(own)
    saved, live = _Count(mine), _Count(mine)
    hooks = [
        cast(Any, tensor).register_post_accumulate_grad_hook(lambda parameter: live.leave_out(parameter.grad))
        for tensor in mine
        if tensor.requires_grad and tensor.is_leaf
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, _Held.unpack), _Watch(live):
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return Peak(saved.peak, live.peak)


@contextlib.contextmanager
def no_data(*modules: nn.Module) -> Iterator[None]:
    """Inside, tensors have shapes but no data, and the modules' tensors are such tensors "on the CPU".

    Modules come from the device "meta"; on that device itself there is neither autocast nor a random generator. They
    stay where they are: PyTorch cannot move such a module, and there is nothing to move.
    """
    stay = mock.patch.object(nn.Module, "_apply", lambda module, fn, recurse=True: module)
    with FakeTensorMode(), stay, _accelerator_autocast():
        for layer in (layer for module in modules for layer in module.modules()):
            for name, parameter in layer._parameters.items():
                layer._parameters[name] = None if parameter is None else nn.Parameter(_empty_like(parameter))
            for name, buffer in layer._buffers.items():
                layer._buffers[name] = None if buffer is None else _empty_like(buffer)
        yield


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)


@contextlib.contextmanager
def count_calls(module: nn.Module) -> Iterator[list[Unit]]:
    """Inside, watch how often a network's blocks run, and how often a backward pass goes through them.

    The list is filled on leaving.
    """
    parts = units_of(module)
    forwards, backwards = [0] * len(parts), [0] * len(parts)

    def count(place: int, out: Any) -> None:
        forwards[place] += 1
        backwards[place] += any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(out))

    hooks = [
        part.register_forward_hook(lambda _module, _args, out, place=place: count(place, out))
        for place, (part, _) in enumerate(parts)
    ]
    units: list[Unit] = []
    try:
        yield units
    finally:
        for hook in hooks:
            hook.remove()
        units += [Unit(weights, forwards[place], backwards[place]) for place, (_, weights) in enumerate(parts)]


@contextlib.contextmanager
def _accelerator_autocast() -> Iterator[None]:
    """CPU autocast as an accelerator's: there norms run in float32, which doubles the memory of what they save.

    The list is in the documentation of torch.amp ("CUDA Ops that can autocast to float32").
    """

    def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def cast_first(*args: Any, **kwargs: Any) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                args = tuple(value.float() if isinstance(value, Tensor) else value for value in args)
            return function(*args, **kwargs)

        return cast_first

    # Patched, not a TorchFunctionMode: that is off in backward passes, where checkpointed blocks run again.
    with contextlib.ExitStack() as patches:
        for name in _FP32_ON_ACCELERATORS:
            function = in_float32(getattr(nn.functional, name))
            patches.enter_context(mock.patch.object(nn.functional, name, function))
        yield


class _Count:
    """Bytes of distinct storages, now and at their most."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        self.own = {_key(tensor) for tensor in own}
        self.uses: dict[int, int] = {}
        self.now = self.peak = 0

    def take(self, key: int, num_bytes: int) -> None:
        """One more use of a storage."""
        self.uses[key] = self.uses.get(key, 0) + 1
        if self.uses[key] == 1:
            self.now += num_bytes
            self.peak = max(self.peak, self.now)

    def give(self, key: int, num_bytes: int) -> None:
        """One use less."""
        if key in self.uses:
            self.uses[key] -= 1
            if not self.uses[key]:
                del self.uses[key]
                self.now -= num_bytes

    def leave_out(self, tensor: Tensor | None) -> None:
        """Count a storage no longer."""
        if tensor is not None and self.uses.pop(_key(tensor), 0):
            self.now -= tensor.untyped_storage().nbytes()

    def pack(self, tensor: Tensor) -> _Held:
        """What autograd keeps in the tensor's place."""
        return _Held(self, tensor)


class _Held:
    """A tensor that autograd has saved; counted until autograd lets it go."""

    def __init__(self, count: _Count, tensor: Tensor) -> None:
        self.tensor = tensor
        key, num_bytes = _key(tensor), tensor.untyped_storage().nbytes()
        if key not in count.own:
            count.take(key, num_bytes)
            weakref.finalize(self, count.give, key, num_bytes)

    def unpack(self) -> Tensor:
        """The tensor."""
        return self.tensor


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's __init_subclass__
    """Counts the storages of what operations return, until they are freed."""

    def __init__(self, count: _Count) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage, key = tensor.untyped_storage(), _key(tensor)
                if key not in self.count.own and key not in self.count.uses:
                    self.count.take(key, storage.nbytes())
                    weakref.finalize(storage, self.count.give, key, storage.nbytes())
        return out


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
