"""A pretended CUDA device: real numbers on the CPU, and the errors that CUDA would raise.

Every tensor is an ordinary one of the CPU. Its storage remembers whether it lies "on the device", and `Tensor.device`
says so. A dispatch mode looks at the storages that meet in each operation, forwards and backwards, and raises what CUDA
would where the two sides mix, where an operation has no kernel for CUDA, and where it multiplies whole numbers as CUDA
does not. Everything that names a device in Python (`torch.zeros(..., device=)`, `Tensor.to`, generators, autocast,
streams) is replaced while `pretended()` lasts.

So the whole pipeline runs on a "GPU", in a test, without one. What it cannot show: CUDA's rounding, its memory, its
waits, the order of its streams, and kernels that fail by themselves.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # a dispatch mode imports it, and it lists PyTorch's functions, which must be the true ones
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE, CPU = torch.device("cuda", 0), torch.device("cpu")
MEMORY = 64 << 30
_HERE, _ANYWHERE = "device", "anywhere"
_TRUE_DEVICE = torch.Tensor.device
_SIDE, _PINNED = "_pretended_side", "_pretended_pin"
_CROSSING = {
    "aten::copy_", "aten::_to_copy", "aten::_local_scalar_dense", "aten::_foreach_copy_", "aten::is_pinned",
    "aten::_pin_memory", "aten::set_", "aten::_has_compatible_shallow_copy_type",
}  # fmt: skip
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_FLOAT_ALONE = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::dot", "aten::convolution"}
_SCALARS = ("aten::_foreach", "aten::fill_", "aten::masked_fill", "aten::where", "aten::clamp")
"""Operations besides the pointwise ones that take a CPU tensor of no dimension beside tensors of the device."""
_MAKERS = (
    "arange", "asarray", "as_tensor", "empty", "empty_permuted", "empty_strided", "eye", "full", "hann_window",
    "linspace", "logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor",
    "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
_LIKE = ("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like")
_NEW = ("new_empty", "new_empty_strided", "new_full", "new_ones", "new_tensor", "new_zeros")
_DRAWING = ("bernoulli_", "exponential_", "log_normal_", "multinomial", "normal_", "random_", "uniform_")


def on_device(tensor: Tensor) -> bool:
    """Whether the tensor lies on the pretended device."""
    return _side(tensor) == _HERE


def _storage(tensor: Tensor) -> Any:
    return torch._C.TensorBase.untyped_storage(tensor)


def _side(tensor: Tensor) -> str | None:
    try:
        return getattr(_storage(tensor), _SIDE, None)
    except (NotImplementedError, RuntimeError):  # tensors without a storage
        return None


def _place(tensor: Tensor, side: str | None) -> Tensor:
    with contextlib.suppress(NotImplementedError):
        setattr(_storage(tensor), _SIDE, side)
    return tensor


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []


@functools.cache
def _only_on_cpu(name: str) -> bool:
    """Whether an operation has a kernel for the CPU and none for CUDA; a PyTorch without CUDA does not know."""
    if torch.version.cuda is None or "cpu" in name or "mkldnn" in name:  # what PyTorch chooses here, and not there
        return False
    has = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    return bool(has(name, "CPU") and not has(name, "CUDA"))


class _Watch(TorchDispatchMode):
    """Raises what CUDA would, and remembers where results lie."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors([*args, *kwargs.values()])
        sides = [_side(tensor) for tensor in given]
        if _HERE in sides:
            _check(func, args, kwargs, given, sides)
        out = func(*args, **kwargs)
        side = _HERE if _HERE in sides else None if any(side is None for side in sides) else _ANYWHERE
        if side is not None:
            own = {_storage(tensor)._cdata for tensor, at in zip(given, sides, strict=True) if at != _ANYWHERE}
            for tensor in _tensors(out):
                if _storage(tensor)._cdata not in own:
                    _place(tensor, side)
        return out


def _check(func: Any, args: Any, kwargs: Any, given: list[Tensor], sides: Sequence[str | None]) -> None:
    """Refuse an operation with a tensor of the device that CUDA would refuse."""
    name, full = func._schema.name, f"{func._schema.name}.{func._overloadname}".removesuffix(".default")
    if _only_on_cpu(full):
        raise NotImplementedError(f"Could not run '{full}' with arguments from the 'CUDA' backend (pretended)")
    if name in _FLOAT_ALONE and not (given[0].is_floating_point() or given[0].is_complex()):
        raise RuntimeError(f'"{name}_cuda" not implemented for {given[0].dtype} (pretended)')
    if name in _CROSSING or None not in sides:
        return
    scalars = torch.Tag.pointwise in func.tags or name.startswith(_SCALARS)
    if name in _INDEXED:
        owner, values = args[0], _tensors([*args[2:3], *kwargs.values()])
        others = [value for value in values if _side(value) is None and value.dim()]
        wrong = not on_device(owner) or bool(others)
    elif name.startswith("aten::_fused_"):
        wrong = any(_side(tensor) is None for tensor in _tensors(list(args)))  # a rate may lie on the CPU
    else:
        wrong = any(side is None and not (scalars and tensor.dim() == 0) for tensor, side in zip(given, sides, strict=True))
        written = args and func._schema.arguments[0].alias_info is not None and isinstance(args[0], Tensor)
        wrong = wrong or bool(written and _side(args[0]) is None)
    if wrong:
        shapes = ", ".join(f"{'cuda:0' if at else 'cpu'} {tuple(x.shape)}" for x, at in zip(given, sides, strict=True))
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"(pretended; {full}: {shapes})"
        )


class _Cross(torch.autograd.Function):
    """A copy to the other side, whose gradient comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, here: bool, options: Any) -> Tensor:
        ctx.was, ctx.dtype = on_device(tensor), tensor.dtype
        return _place(_true_to(tensor, **options, copy=True), _HERE if here else None)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return _place(_true_to(gradient, dtype=ctx.dtype, copy=True), _HERE if ctx.was else None), None, None


_true_to = torch.Tensor.to


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    copy = kwargs.pop("copy", False)
    if args and isinstance(args[0], Tensor) or "other" in kwargs:
        other = args[0] if args else kwargs.pop("other")
        args, kwargs = (other.device, other.dtype, *args[1:]), kwargs
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    if _TRUE_DEVICE.__get__(tensor).type != "cpu" or device is not None and device.type not in ("cpu", "cuda"):
        device = CPU if device is not None and device.type == "cuda" else device
        options = {"device": device, "dtype": dtype, "memory_format": memory_format}
        return _true_to(tensor, copy=copy, **{name: value for name, value in options.items() if value is not None})
    options = {"dtype": dtype or tensor.dtype}
    if memory_format is not None:
        options["memory_format"] = memory_format
    here = on_device(tensor)
    there = here if device is None else device.type == "cuda"
    if there and not here and getattr(_storage(tensor), _SIDE, None) == _ANYWHERE:
        here = True
    if here == there:
        return _true_to(tensor, copy=copy, **options)
    return _Cross.apply(tensor, there, options)  # type: ignore[no-any-return,no-untyped-call]


def _asked(kwargs: dict[str, Any]) -> torch.device | None:
    device = kwargs.get("device")
    return None if device is None else torch.device(device)


def _require_generator(kwargs: dict[str, Any], kind: str) -> None:
    source = kwargs.get("generator")
    if source is not None and source.device.type != kind:
        raise RuntimeError(f"Expected a '{kind}' device type for generator but found '{source.device.type}' (pretended)")


def _maker(true: Any) -> Any:
    """A function that makes a tensor of nothing, on the device that is named."""

    @functools.wraps(true)
    def make(*args: Any, **kwargs: Any) -> Any:
        device = _asked(kwargs)
        taken = args and isinstance(args[0], Tensor) and true in (torch_as_tensor, torch_asarray)
        if taken:
            moved = args[0] if device is None else args[0].to(device)
            return moved if kwargs.get("dtype") is None else moved.to(kwargs["dtype"])
        here = device is not None and device.type == "cuda"
        if device is None or device.type in ("cpu", "cuda"):
            _require_generator(kwargs, "cuda" if here else "cpu")
        if not here:
            out = true(*args, **kwargs)
            return out if _side(out) != _ANYWHERE else _place(out, None)
        out = true(*args, **{**kwargs, "device": CPU})
        return _place(out.clone() if true in (torch_as_tensor, torch_asarray) else out, _HERE)

    return make


torch_as_tensor, torch_asarray = torch.as_tensor, torch.asarray


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
        out = true(tensor, *args, **kwargs)
        return _place(out, _HERE if here else None)

    return make


def _drawing(true: Any) -> Any:
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


def _pin_memory(tensor: Tensor, *args: Any) -> Tensor:
    if on_device(tensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned (pretended)")
    pinned = tensor.clone()
    setattr(_storage(pinned), _PINNED, True)
    return pinned


def _record_stream(tensor: Tensor, stream: Any) -> None:
    if not on_device(tensor):
        raise NotImplementedError("Could not run 'aten::record_stream' with arguments from the 'CPU' backend (pretended)")


class Generator(torch.Generator):
    """A generator that says it is the device's."""

    def __new__(cls, device: Any = CPU) -> Generator:
        made = super().__new__(cls, device="cpu")
        made.kind = torch.device(device)
        return made

    kind: torch.device

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE if self.kind.type == "cuda" else self.kind


class Stream:
    """A stream whose work is done when it is asked for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = DEVICE

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return False


def _nothing(*_: Any, **__: Any) -> None: ...


def _gives(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _autocast(true: Any) -> Any:
    @functools.wraps(true)
    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        true(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return init


def _grouped(true: Any) -> Any:
    """Groups of an optimizer's tensors by the device that they say they have."""

    def group(*args: Any, **kwargs: Any) -> Any:
        found = true(*args, **kwargs)
        here = {key: any(map(on_device, _tensors(list(lists[0])))) for key, (lists, _) in found.items()}
        return {(DEVICE if here[key] else key[0], key[1]): value for key, value in found.items()}

    return group


_PROPERTIES = SimpleNamespace(
    total_memory=MEMORY, name="pretended", major=9, minor=0, multi_processor_count=1, warp_size=32
)
_CUDA: dict[str, Any] = {
    "is_available": _gives(True), "device_count": _gives(1), "current_device": _gives(0), "set_device": _nothing,
    "synchronize": _nothing, "empty_cache": _nothing, "reset_peak_memory_stats": _nothing, "Stream": Stream,
    "is_current_stream_capturing": _gives(False), "current_stream": lambda *_: Stream(), "default_stream": lambda *_: Stream(), "memory_allocated": _gives(0),
    "memory_reserved": _gives(0), "max_memory_allocated": _gives(0), "max_memory_reserved": _gives(0),
    "mem_get_info": _gives((MEMORY, MEMORY)), "get_device_name": _gives("a pretended device"),
    "get_device_properties": _gives(_PROPERTIES), "get_device_capability": _gives((9, 0)),
    "is_bf16_supported": _gives(True), "stream": contextlib.nullcontext, "device": contextlib.nullcontext,
    "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8), "set_rng_state": _nothing,
}  # fmt: skip


@contextlib.contextmanager
def pretended() -> Iterator[torch.device]:
    """A machine, inside, with one CUDA device; yields the device."""
    with contextlib.ExitStack() as held:

        def put(owner: Any, name: str, value: Any) -> None:
            held.enter_context(mock.patch.object(owner, name, value))

        methods = {name: _like(getattr(Tensor, name)) for name in _NEW}
        methods |= {name: _drawing(getattr(Tensor, name)) for name in _DRAWING}
        methods |= {
            "device": property(lambda x: DEVICE if on_device(x) else _TRUE_DEVICE.__get__(x)), "to": _to,
            "is_cuda": property(on_device), "is_cpu": property(lambda x: x.device.type == "cpu"),
            "get_device": lambda x: 0 if on_device(x) else -1, "cpu": lambda x, **more: x.to(CPU, **more),
            "cuda": lambda x, *_, **more: x.to(DEVICE, **more), "pin_memory": _pin_memory,
            "is_pinned": lambda x, *_: getattr(_storage(x), _PINNED, False), "record_stream": _record_stream,
            "numpy": _only_from_cpu(Tensor.numpy), "__array__": _only_from_cpu(Tensor.__array__),
        }  # fmt: skip
        makers = {name: _maker(getattr(torch, name)) for name in _MAKERS}
        makers |= {name: _like(getattr(torch, name)) for name in _LIKE}
        makers |= {"multinomial": _drawing(torch.multinomial), "bernoulli": _drawing(torch.bernoulli)}
        for name, value in makers.items():
            put(torch, name, value)
        for name, value in methods.items():
            put(Tensor, name, value)
        for name, value in _CUDA.items():
            put(torch.cuda, name, value)
        put(torch, "Generator", Generator)
        put(torch.accelerator, "is_available", _gives(True))
        put(torch.accelerator, "device_count", _gives(1))
        put(torch.accelerator, "current_stream", lambda *_: Stream())
        put(torch.accelerator, "current_device_index", _gives(0))
        put(torch.accelerator, "current_accelerator", _gives(torch.device("cuda")))
        put(torch.amp.autocast_mode.autocast, "__init__", _autocast(torch.amp.autocast_mode.autocast.__init__))
        grouped = "_group_tensors_by_device_and_dtype"
        put(torch._C, grouped, _grouped(getattr(torch._C, grouped)))
        held.enter_context(_Watch())
        yield DEVICE
