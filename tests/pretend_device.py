"""A pretended CUDA device: real numbers on the CPU, and the errors that CUDA would raise.

Every tensor is an ordinary one of the CPU. Its storage remembers whether it lies "on the device", and `Tensor.device`
says so. A dispatch mode looks at the storages that meet in each operation, forwards and backwards, and raises what CUDA
would where the two sides mix, where an operation has no kernel for CUDA, where one stream reads what another may still
be making, and, if asked by `torch.cuda.set_sync_debug_mode("error")`, where the host would wait. Whatever names a
device in Python (`torch.zeros(..., device=)`, `Tensor.to`, generators, autocast, `torch.cuda`) is replaced inside
`pretended()`.

So the whole pipeline runs on a "GPU", in a test, without one, with the CPU's numbers. What it cannot show: CUDA's
rounding, memory and speed, kernels that fail by themselves, its compiler, and several devices. Only the thread that
called `pretended()` is watched; in others, copies between the sides work, and results of operations are the CPU's.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import torch.profiler
from pretend_cuda import ACCELERATOR, DEVICE, MACHINE, NAMES, NoProfile, waits
from pretend_rules import ANYWHERE, HERE, Watch, on_device, place, side_of, storage_of, tensors
from torch import Tensor

CPU = torch.device("cpu")
_PINNED = "_pretended_pin"
_TRUE_DEVICE, _TRUE_TO = Tensor.device, Tensor.to
_AS_TENSOR = (torch.as_tensor, torch.asarray)
_FROM_DATA = (*_AS_TENSOR, torch.tensor)
_MAKERS = (
    "arange", "asarray", "as_tensor", "empty", "empty_permuted", "empty_strided", "eye", "full", "hann_window",
    "linspace", "logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor",
    "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
_LIKE = ("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like")
_NEW = ("new_empty", "new_empty_strided", "new_full", "new_ones", "new_tensor", "new_zeros")
_DRAWING = ("bernoulli_", "exponential_", "log_normal_", "multinomial", "normal_", "random_", "uniform_")


class _Cross(torch.autograd.Function):
    """A copy to the other side, whose gradient comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, there: bool, options: Any) -> Tensor:
        ctx.was, ctx.dtype = on_device(tensor), tensor.dtype
        return place(_TRUE_TO(tensor, **options, copy=True), HERE if there else None)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return place(_TRUE_TO(gradient, dtype=ctx.dtype, copy=True), HERE if ctx.was else None), None, None


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    copy = kwargs.pop("copy", False)
    other = args[0] if args and isinstance(args[0], Tensor) else kwargs.pop("other", None)
    if other is not None:
        args = (other.device, other.dtype, *args[1:])
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    options = {"dtype": dtype or tensor.dtype, "copy": copy}
    if memory_format is not None:
        options["memory_format"] = memory_format
    sides = (None, "cpu", "cuda")
    if _TRUE_DEVICE.__get__(tensor).type != "cpu" or (device and device.type) not in sides:  # the device "meta"
        moved = {} if device is None else {"device": CPU if device.type == "cuda" else device}
        return _TRUE_TO(tensor, **options, **moved)
    here = on_device(tensor)
    there = here if device is None else device.type == "cuda"
    if here == there:
        return _TRUE_TO(tensor, **options)
    if not non_blocking or (MACHINE.capturing and not getattr(storage_of(tensor), _PINNED, False)):
        waits("a copy from the device" if here else "a copy to the device")
    del options["copy"]
    return _Cross.apply(tensor, there, options)  # type: ignore[no-any-return,no-untyped-call]


def _asked(kwargs: dict[str, Any]) -> torch.device | None:
    device = kwargs.get("device")
    return None if device is None else torch.device(device)


def _require_generator(kwargs: dict[str, Any], kind: str) -> None:
    source = kwargs.get("generator")
    if source is not None and source.device.type != kind:
        raise RuntimeError(
            f"Expected a '{kind}' device type for generator but found '{source.device.type}' (pretended)"
        )
    if source is not None and kind == "cuda" and MACHINE.capturing:
        raise RuntimeError("a generator that the graph does not know draws while it is recorded (pretended)")


def _maker(true: Any) -> Any:
    """A function that makes a tensor of nothing, on the device that is named."""

    @functools.wraps(true)
    def make(*args: Any, **kwargs: Any) -> Any:
        device = _asked(kwargs)
        if args and isinstance(args[0], Tensor) and true in _AS_TENSOR:
            moved = args[0] if device is None else args[0].to(device)
            return moved if kwargs.get("dtype") is None else moved.to(kwargs["dtype"])
        here = device is not None and device.type == "cuda"
        if device is None or device.type in ("cpu", "cuda"):
            _require_generator(kwargs, "cuda" if here else "cpu")
        if not here:
            out = true(*args, **kwargs)
            return place(out, None) if side_of(out) == ANYWHERE else out
        if true in _FROM_DATA:
            waits(f"torch.{true.__name__} on the device")
        out = true(*args, **{**kwargs, "device": CPU})
        return place(out.clone() if true in _AS_TENSOR else out, HERE)

    return make


def _like(true: Any) -> Any:
    """A function that makes a tensor like another, there or on the device that is named."""

    @functools.wraps(true)
    def make(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        device = _asked(kwargs)
        if device is None or device.type not in ("cpu", "cuda"):
            here = on_device(tensor) and device is None
        else:
            here, kwargs = device.type == "cuda", {**kwargs, "device": CPU}
        _require_generator(kwargs, "cuda" if here else "cpu")
        return place(true(tensor, *args, **kwargs), HERE if here else None)

    return make


def _drawing(true: Any) -> Any:
    """A function that draws for a tensor from a generator of the same device."""

    @functools.wraps(true)
    def draw(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        _require_generator(kwargs, "cuda" if on_device(tensor) else "cpu")
        return true(tensor, *args, **kwargs)

    return draw


def _only_from_cpu(true: Any) -> Any:
    @functools.wraps(true)
    def read(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if on_device(tensor):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
                "first. (pretended)"
            )
        return true(tensor, *args, **kwargs)

    return read


def _pin_memory(tensor: Tensor, *_: Any) -> Tensor:
    if on_device(tensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned (pretended)")
    pinned = tensor.clone()
    setattr(storage_of(pinned), _PINNED, True)
    return pinned


def _record_stream(tensor: Tensor, stream: Any) -> None:
    if not on_device(tensor):
        raise NotImplementedError("Could not run 'aten::record_stream' with arguments from the 'CPU' backend")


class Generator(torch.Generator):
    """A generator that says it is the device's."""

    kind: torch.device

    def __new__(cls, device: Any = CPU) -> Generator:
        made = super().__new__(cls, device="cpu")
        made.kind = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE if self.kind.type == "cuda" else self.kind


def _autocast(true: Any) -> Any:
    @functools.wraps(true)
    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        true(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return init


def _grouped(true: Any) -> Any:
    """Groups of an optimizer's tensors by the device that they say they have."""

    def group(*args: Any, **kwargs: Any) -> Any:
        found = true(*args, **kwargs)
        here = {key: any(map(on_device, tensors(list(lists[0])))) for key, (lists, _) in found.items()}
        return {(DEVICE if here[key] else key[0], key[1]): value for key, value in found.items()}

    return group


def _methods() -> dict[str, Any]:
    return {
        **{name: _like(getattr(Tensor, name)) for name in _NEW},
        **{name: _drawing(getattr(Tensor, name)) for name in _DRAWING},
        "device": property(lambda x: DEVICE if on_device(x) else _TRUE_DEVICE.__get__(x)), "to": _to,
        "is_cuda": property(on_device), "is_cpu": property(lambda x: x.device.type == "cpu"),
        "get_device": lambda x: 0 if on_device(x) else -1, "cpu": lambda x, **more: x.to(CPU, **more),
        "cuda": lambda x, *_, **more: x.to(DEVICE, **more), "pin_memory": _pin_memory,
        "is_pinned": lambda x, *_: getattr(storage_of(x), _PINNED, False), "record_stream": _record_stream,
        "numpy": _only_from_cpu(Tensor.numpy), "__array__": _only_from_cpu(Tensor.__array__),
    }  # fmt: skip


def _functions() -> dict[str, Any]:
    return {
        **{name: _maker(getattr(torch, name)) for name in _MAKERS},
        **{name: _like(getattr(torch, name)) for name in _LIKE},
        "multinomial": _drawing(torch.multinomial), "bernoulli": _drawing(torch.bernoulli), "Generator": Generator,
    }  # fmt: skip


def is_pretended() -> bool:
    """Whether this is inside `pretended()`."""
    return torch.Generator is Generator


@contextlib.contextmanager
def pretended() -> Iterator[torch.device]:
    """A machine, inside, with one CUDA device; yields the device."""
    autocast, grouped = torch.amp.autocast_mode.autocast, "_group_tensors_by_device_and_dtype"
    replaced = {
        torch: _functions(), Tensor: _methods(), torch.cuda: NAMES, torch.accelerator: ACCELERATOR,
        torch.profiler: {"profile": NoProfile},
        autocast: {"__init__": _autocast(autocast.__init__)},
        torch._C: {grouped: _grouped(getattr(torch._C, grouped))},
    }  # fmt: skip
    MACHINE.__init__()  # type: ignore[misc]
    with contextlib.ExitStack() as held:
        for owner, names in replaced.items():
            for name, value in names.items():
                held.enter_context(mock.patch.object(owner, name, value))
        held.enter_context(Watch())
        yield DEVICE
