"""Where tensors of a pretended device lie, and what CUDA would refuse: the rules of `pretend_device`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch._dynamo  # a dispatch mode imports it, and it wants to list PyTorch's functions as they are
from pretend_cuda import MACHINE, require_order, waits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HERE, ANYWHERE = "device", "anywhere"
"""Sides of a storage; one of the CPU has none. `ANYWHERE`: PyTorch made it by itself, wherever it needs it."""
_SIDE, _MADE = "_pretended_side", "_pretended_made"
_CROSSING = {
    "aten::copy_", "aten::_to_copy", "aten::_local_scalar_dense", "aten::_foreach_copy_", "aten::is_pinned",
    "aten::set_", "aten::_has_compatible_shallow_copy_type",
}  # fmt: skip
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_FLOAT_ALONE = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::dot", "aten::convolution"}
_SCALARS = ("aten::_foreach", "aten::fill_", "aten::masked_fill", "aten::where", "aten::clamp")
"""Operations besides the pointwise ones that take a CPU tensor of no dimension beside tensors of the device."""
_WAITING = {
    "aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive", "aten::multinomial", "aten::bincount",
}  # fmt: skip


def on_device(tensor: Tensor) -> bool:
    """Whether the tensor lies on the pretended device."""
    return side_of(tensor) == HERE


def storage_of(tensor: Tensor) -> Any:
    """The memory of a tensor, which views share; it remembers what is said about it."""
    return torch._C.TensorBase.untyped_storage(tensor)


def side_of(tensor: Tensor) -> str | None:
    """Where the tensor lies."""
    try:
        return getattr(storage_of(tensor), _SIDE, None)
    except (NotImplementedError, RuntimeError):  # tensors without a storage
        return None


def place(tensor: Tensor, side: str | None) -> Tensor:
    """Say where a tensor lies that the current stream has made."""
    with contextlib.suppress(NotImplementedError):
        storage = storage_of(tensor)
        setattr(storage, _SIDE, side)
        setattr(storage, _MADE, (MACHINE.current, next(MACHINE.clock)))
    return tensor


def tensors(value: Any) -> list[Tensor]:
    """The tensors among nested lists."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, list | tuple) else []


@functools.cache
def _only_on_cpu(name: str) -> bool:
    """Whether an operation has a kernel for the CPU and none for CUDA; a PyTorch without CUDA does not know."""
    if torch.version.cuda is None or "cpu" in name or "mkldnn" in name:  # what PyTorch chooses here, and not there
        return False
    has = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    return bool(has(name, "CPU") and not has(name, "CUDA"))


class Watch(TorchDispatchMode):
    """Raises what CUDA would, and remembers where results lie."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors([*args, *kwargs.values()])
        sides = [side_of(tensor) for tensor in given]
        here = HERE in sides
        if here:
            _require_possible(func, args, given, sides)
            _require_one_device(func, args, kwargs, given, sides)
        out = func(*args, **kwargs)
        side = HERE if here else None if any(side is None for side in sides) else ANYWHERE
        if side is not None:
            mine = {storage_of(tensor)._cdata for tensor, at in zip(given, sides, strict=True) if at != ANYWHERE}
            written = func._schema.is_mutable
            for tensor in tensors(out):
                if storage_of(tensor)._cdata not in mine or (written and side_of(tensor) == HERE):
                    place(tensor, side)
        return out


def _full(func: Any) -> str:
    return f"{func._schema.name}.{func._overloadname}".removesuffix(".default")


def _require_possible(func: Any, args: Any, given: list[Tensor], sides: Sequence[str | None]) -> None:
    """Refuse what CUDA cannot do, or not now."""
    name, full = func._schema.name, _full(func)
    if _only_on_cpu(full):
        raise NotImplementedError(f"Could not run '{full}' with arguments from the 'CUDA' backend (pretended)")
    if name in _FLOAT_ALONE and not (given[0].is_floating_point() or given[0].is_complex()):
        raise RuntimeError(f'"{name}_cuda" not implemented for {given[0].dtype} (pretended)')
    for tensor, side in zip(given, sides, strict=True):
        if side == HERE:
            require_order(getattr(storage_of(tensor), _MADE, None), full)
    chosen = [index for index in args[1] if index is not None] if name in _INDEXED else []
    if name in _WAITING or any(index.dtype in (torch.bool, torch.uint8) or not on_device(index) for index in chosen):
        waits(full)
    if name == "aten::copy_" and None in sides and not (args[2] if len(args) > 2 else False):
        waits(full)


def _require_one_device(func: Any, args: Any, kwargs: Any, given: list[Tensor], sides: Sequence[str | None]) -> None:
    """Refuse to mix tensors of the device and of the CPU, as CUDA does."""
    name = func._schema.name
    if name in _CROSSING or None not in sides:
        return
    scalars = torch.Tag.pointwise in func.tags or name.startswith(_SCALARS)
    if name in _INDEXED:  # indices may lie on the CPU
        values = tensors([*args[2:3], *kwargs.values()])
        wrong = not on_device(args[0]) or any(side_of(value) is None and value.dim() for value in values)
    elif name.startswith("aten::_fused_"):
        wrong = any(side_of(tensor) is None for tensor in tensors(list(args)))  # a rate, by keyword, may lie on the CPU
    else:
        strangers = [tensor for tensor, side in zip(given, sides, strict=True) if side is None]
        wrong = any(not scalars or tensor.dim() > 0 for tensor in strangers)
        first = func._schema.arguments[0].alias_info
        wrong = wrong or bool(first is not None and first.is_write and tensors(args[0]) and None in sides[:1])
    if wrong:
        shapes = ", ".join(f"{'cuda:0' if at else 'cpu'} {tuple(x.shape)}" for x, at in zip(given, sides, strict=True))
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"(pretended; {_full(func)}: {shapes})"
        )
