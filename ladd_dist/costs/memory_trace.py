"""Bytes that a training step keeps besides its networks, counted on tensors that have no data.

Why not `torch.distributed._tools.mem_tracker.MemTracker`, which counts storages in the same way (PyTorch 2.14):

* It does not know what autograd saves, so it cannot tell activations from temporaries, which `ladd plan` shows apart.
* Its peak is that of all tensors with their gradients, which the formulas of `memory_model` count for each strategy.
* Its hooks ask every parameter for a gradient ("cannot register a hook on a tensor that doesn't require gradient"),
  which frozen teachers and heads do not have, and refuse a network that is called a second time in a step.

Without those hooks, and with gradients counted here too, the two agree to the byte. The CPU's allocator, which sees
what operators use inside as well, had 1 to 10 % more (bytes at the peak, on top of networks, optimizers and batch):

| recipe, scale, batch | here and MemTracker | allocator | here, without gradients |
|---|---|---|---|
| exp4_specnorm, smoke, 8 | 4,587,608 | 4,677,720 | 4,554,324 |
| the same, checkpointed | 3,195,992 | 3,356,888 | 3,162,708 |
| exp7_stored_smooth_l1, smoke, 8 | 2,849,312 | 2,960,104 | 2,737,232 |
| exp4_specnorm, laptop, 16 | 15,620,440 | 15,800,664 | 15,587,156 |
| exp7_stored_smooth_l1, laptop, 16 | 10,197,136 | 11,168,296 | 10,130,572 |
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ladd_dist.costs.memory_model import Unit, units_of

_FP32_ON_ACCELERATORS = (
    "group_norm", "layer_norm", "softmax.int", "log_softmax.int", "linalg_vector_norm", "softplus",
)  # fmt: skip


class Peak(NamedTuple):
    """Most bytes at one time of tensors that are neither the caller's own nor gradients of parameters."""

    saved: int
    """Bytes that autograd holds for backward passes: the activations."""
    live: int
    """Bytes of all tensors, including those that an operation has just computed and nobody keeps."""


def peak_bytes(call: Callable[[], Any], own: Iterable[Tensor]) -> Peak:
    """Run `call` and count every storage: those that autograd saves, and those that any operation makes.

    Args:
        own: tensors counted elsewhere (parameters, optimizer state, the batch). Gradients accumulated into the `grad`
            of parameters among them are left out too.
    """
    mine = list(own)
    saved, live = _Count(mine), _Count(mine)
    hooks = [
        cast(Any, tensor).register_post_accumulate_grad_hook(lambda parameter: live.leave_out(parameter.grad))
        for tensor in mine
        if tensor.requires_grad and tensor.is_leaf
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, _Held.unpack), _AllocationMode(live):
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return Peak(saved.peak, live.peak)


@contextlib.contextmanager
def no_data(*modules: nn.Module) -> Iterator[None]:
    """Make tensors, inside, that have shapes but no data; those of the modules become such tensors "on the CPU".

    Modules come from the device "meta"; on that device itself there is neither autocast nor a random generator. They
    stay where they are: PyTorch cannot move such a module, and there is nothing to move.
    """
    with FakeTensorMode(), _unmoved_modules(), _accelerator_autocast():
        for layer in (layer for module in modules for layer in module.modules()):
            for name, parameter in layer._parameters.items():
                layer._parameters[name] = None if parameter is None else nn.Parameter(_empty_like(parameter))
            for name, buffer in layer._buffers.items():
                layer._buffers[name] = None if buffer is None else _empty_like(buffer)
            for name, value in vars(layer).items():  # Qwen-Image keeps its rotary frequencies there
                if isinstance(value, Tensor):
                    setattr(layer, name, _empty_like(value))
        yield


@contextlib.contextmanager
def _unmoved_modules() -> Iterator[None]:
    """Let `Module.to` and its like do nothing, inside."""
    apply = nn.Module._apply
    nn.Module._apply = lambda module, fn, recurse=True: module  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module._apply = apply  # type: ignore[method-assign]


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)


@contextlib.contextmanager
def count_calls(module: nn.Module) -> Iterator[list[Unit]]:
    """Count, inside, how often a network's blocks run, and how often a backward pass goes through them.

    Yields a list that is filled on leaving: a `Unit` for the whole and one for each block.
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

    The list is in the documentation of torch.amp ("CUDA Ops that can autocast to float32"). Registered with the
    dispatcher, as an accelerator's own casts are: a TorchFunctionMode would be off in backward passes, where
    checkpointed blocks run again.
    """

    def in_float32(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def cast_first(*args: Any, **kwargs: Any) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return operator(*(value.float() if isinstance(value, Tensor) else value for value in args), **kwargs)

        return cast_first

    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in _FP32_ON_ACCELERATORS:
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
            library.impl(operator, in_float32(operator), "AutocastCPU")
        yield


class _Count:
    """Bytes of distinct storages, now and at their most."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        self.own = {_key(tensor) for tensor in own}
        self.uses: dict[int, int] = {}
        self.now = self.peak = 0

    def take(self, key: int, num_bytes: int) -> None:
        """Count one more use of a storage."""
        self.uses[key] = self.uses.get(key, 0) + 1
        if self.uses[key] == 1:
            self.now += num_bytes
            self.peak = max(self.peak, self.now)

    def give(self, key: int, num_bytes: int) -> None:
        """Count one use of a storage less."""
        if key in self.uses:
            self.uses[key] -= 1
            if not self.uses[key]:
                del self.uses[key]
                self.now -= num_bytes

    def leave_out(self, tensor: Tensor | None) -> None:
        """Stop counting a tensor's storage."""
        if tensor is not None and self.uses.pop(_key(tensor), 0):
            self.now -= tensor.untyped_storage().nbytes()

    def pack(self, tensor: Tensor) -> _Held:
        """The object that autograd keeps in the tensor's place."""
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
        """The tensor that autograd had saved."""
        return self.tensor


class _AllocationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's __init_subclass__
    """Counter of the storages that operations return, until they are freed."""

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
