"""Text conditions as a table: computed once, looked up by id, so that the rest of the code knows ids alone.

A table of N conditions has N + 1 rows in each of its tensors (encoder states, masks, pooled embeddings ...); the last
is the null condition of guidance. It lies in one safetensors file, is memory-mapped, and only rows that are asked for
are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import write_atomic

ON_DEVICE_BYTES = 2**30
"""A table up to this size is kept whole on the accelerator that asks for it. From a larger one each new batch's rows
are copied, for which the host must know the ids: that waits for the device once a batch."""
_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Conditions:
    """Rows of conditions by id. Not a module's parameter or buffer: no state dict, average or strategy sees it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """A table of tensors [N+1, ...] on the CPU.

        Raises:
            UserError: no tensor, or different numbers of rows.
        """
        lengths = {name: len(tensor) if tensor.ndim else 0 for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise UserError(f"a table of conditions needs tensors with one row a condition, got rows {lengths}")
        self._tensors = dict(tensors)
        self.num = min(lengths.values()) - 1
        """N: ids are 0 to N - 1, and N is the null condition."""
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(t.shape[1:]) for name, t in tensors.items()}
        self._copies: dict[torch.device, dict[str, Tensor]] = {}
        self._last: tuple[Tensor, int, dict[str, Tensor]] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Conditions:
        return self  # never written to: copies of a network share it

    @classmethod
    def blank(cls, shapes: Mapping[str, tuple[int, ...]]) -> Conditions:
        """Zeros of these shapes for any id, on any device: for a network that is only measured."""
        return _Blank({name: torch.zeros(1, 1).expand(2, *shape or (1,)) for name, shape in shapes.items()}, shapes)

    @classmethod
    def read(cls, path: Path) -> Conditions:
        """The table of a file, memory-mapped.

        Raises:
            UserError: missing or damaged; the message names the file.
        """
        import safetensors

        try:
            with safetensors.safe_open(path, framework="pt", device="cpu") as file:
                return cls({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path} is no readable table of conditions ({error}); make the shards again") from error

    def take(self, ids: Tensor) -> dict[str, Tensor]:
        """Rows [B, ...] by name for ids [B] int64, on the ids' device; the same tensor object again is not looked up.

        Raises:
            IndexError: an id above the table's (on the CPU; an accelerator fails in its own way).
        """
        version = -1 if ids.is_inference() else ids._version  # such tensors have no count of changes
        if self._last is not None and self._last[0] is ids and self._last[1] == version >= 0:
            return self._last[2]
        found = self._look_up(ids)
        self._last = (ids, version, found)
        return found

    def _look_up(self, ids: Tensor) -> dict[str, Tensor]:
        if ids.device.type == "cpu":
            return {name: tensor[ids] for name, tensor in self._tensors.items()}
        if sum(tensor.nbytes for tensor in self._tensors.values()) > ON_DEVICE_BYTES:
            rows = ids.cpu()
            return {name: tensor[rows].to(ids.device) for name, tensor in self._tensors.items()}
        if ids.device not in self._copies:
            self._copies[ids.device] = {name: tensor.to(ids.device) for name, tensor in self._tensors.items()}
        return {name: tensor[ids] for name, tensor in self._copies[ids.device].items()}


class _Blank(Conditions):
    """Shapes without contents."""

    def __init__(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(tensors)
        self.shapes = dict(shapes)

    def take(self, ids: Tensor) -> dict[str, Tensor]:
        return {name: torch.zeros(len(ids), *shape, device=ids.device) for name, shape in self.shapes.items()}


def write_conditions(path: Path, num_rows: int, chunks: Iterable[Mapping[str, Tensor]]) -> None:
    """Write a table chunk by chunk: no more than one chunk is in memory; the file appears only when whole.

    Args:
        num_rows: N + 1; the last row is the null condition.
        chunks: rows [n, ...] by name, in order, `num_rows` of them in all; all chunks alike in names, shapes, dtypes.

    Raises:
        UserError: too few or too many rows, or chunks that differ.
    """
    write_atomic(path, lambda temporary: _fill(temporary, num_rows, chunks))


def _fill(path: Path, num_rows: int, chunks: Iterable[Mapping[str, Tensor]]) -> None:
    done, places, layout = 0, dict[str, int](), dict[str, Any]()
    with path.open("wb") as file:
        for chunk in chunks:
            own = {name: (tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in chunk.items()}
            if not layout:
                layout = own
                header, places = _header(layout, num_rows)
                file.write(header)
            num = len(next(iter(chunk.values()), ()))
            if own != layout or any(len(tensor) != num for tensor in chunk.values()):
                raise UserError(f"rows of conditions differ: {layout}, then {own} ({num} rows)")
            if done + num > num_rows:
                raise UserError(f"more conditions than the {num_rows} announced")
            for name, tensor in chunk.items():
                file.seek(places[name] + done * _row_bytes(*layout[name]))
                file.write(_bytes(tensor))
            done += num
    if done != num_rows:
        raise UserError(f"{done} conditions of the {num_rows} announced")


def _header(layout: Mapping[str, Any], num_rows: int) -> tuple[bytes, dict[str, int]]:
    """The beginning of a safetensors file, and where each tensor starts (8 bytes of length, JSON, then the data)."""
    entries, offset = dict[str, Any](), 0
    for name, (dtype, shape) in sorted(layout.items(), key=lambda item: -item[1][0].itemsize):  # keeps them aligned
        end = offset + num_rows * _row_bytes(dtype, shape)
        entries[name] = {"dtype": _NAMES[dtype], "shape": [num_rows, *shape], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    places = {name: start + entry["data_offsets"][0] for name, entry in entries.items()}
    return len(text).to_bytes(8, "little") + text, places


def _row_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data: Callable[[], bytes] = flat.view(torch.uint8).numpy().tobytes
    return data()
