"""Table of text conditions, computed once and looked up by id; the rest of the code sees only ids.

A table of N conditions has N + 1 rows in each of its tensors (encoder states, masks, pooled embeddings ...); the last
row is the null condition of guidance. The table is one safetensors file, memory-mapped: only requested rows are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import write_atomic
from ladd_dist.core.tensor_file import read_tensors

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Dtype and shape of one row of each tensor of a table, by name."""
ON_DEVICE_BYTES = 2**30
"""Size in bytes up to which a table is copied whole to the accelerator. Rows of a larger one are copied for each new
batch; the host must know the ids for that, so it waits for the device once per batch."""
NONE = "is no readable table of conditions"
_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Conditions:
    """Table of conditions by id. It is no parameter or buffer: state dicts, averages and strategies ignore it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Make a table of tensors [N+1, ...] on the CPU.

        Raises:
            UserError: there is no tensor, or their numbers of rows differ.
        """
        lengths = {name: len(tensor) if tensor.ndim else 0 for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise UserError(f"a table of conditions needs tensors with one row a condition, got rows {lengths}")
        self._tensors = dict(tensors)
        self.num = min(lengths.values()) - 1
        """Number of conditions N: ids are 0 to N - 1, and N is the null condition."""
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(t.shape[1:]) for name, t in tensors.items()}
        self._copies: dict[torch.device, dict[str, Tensor]] = {}
        self._last: tuple[Tensor, int, dict[str, Tensor]] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Conditions:
        return self  # never written to: copies of a network share it

    @classmethod
    def blank(cls, shapes: Mapping[str, tuple[int, ...]]) -> Conditions:
        """Make a table that gives zeros of these shapes for any id, on any device, to measure a network with."""
        return _Blank({name: torch.zeros(1, 1).expand(2, *shape or (1,)) for name, shape in shapes.items()}, shapes)

    @classmethod
    def read(cls, path: Path) -> Conditions:
        """Open the table in a file, memory-mapped.

        Raises:
            UserError: the file is missing or damaged; the message names it.
        """
        return cls(read_tensors(path, problem=NONE, remedy="make the shards again").tensors)

    def take(self, ids: Tensor) -> dict[str, Tensor]:
        """Rows [B, ...] by name for ids [B] int64, on the ids' device; cached for the last tensor object of ids.

        Raises:
            IndexError: an id is above N (on the CPU; an accelerator fails in its own way).
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
    """Table that knows the shapes of rows only, and gives zeros."""

    def __init__(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(tensors)
        self.shapes = dict(shapes)

    def take(self, ids: Tensor) -> dict[str, Tensor]:
        return {name: torch.zeros(len(ids), *shape, device=ids.device) for name, shape in self.shapes.items()}


def write_conditions(path: Path, num_rows: int, chunks: Iterable[Mapping[str, Tensor]]) -> None:
    """Write a table chunk by chunk, one chunk in memory at a time; the file appears only when it is complete.

    Args:
        num_rows: N + 1; the last row is the null condition.
        chunks: rows [n, ...] by name, in order, `num_rows` of them in all; all with the same names, shapes and dtypes.

    Raises:
        UserError: there are too few or too many rows, or the chunks differ.
    """
    write_atomic(path, lambda temporary: _fill(temporary, num_rows, chunks))


def _fill(path: Path, num_rows: int, chunks: Iterable[Mapping[str, Tensor]]) -> None:
    done, places, layout = 0, dict[str, int](), Layout()
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


def _header(layout: Layout, num_rows: int) -> tuple[bytes, dict[str, int]]:
    """Header of a safetensors file (8 bytes of length, then JSON), and the file offset of each tensor."""
    entries, offsets, offset = dict[str, dict[str, object]](), dict[str, int](), 0
    for name, (dtype, shape) in sorted(layout.items(), key=lambda item: -item[1][0].itemsize):  # keeps them aligned
        end = offset + num_rows * _row_bytes(dtype, shape)
        entries[name] = {"dtype": _NAMES[dtype], "shape": [num_rows, *shape], "data_offsets": [offset, end]}
        offsets[name], offset = offset, end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    places = {name: start + first for name, first in offsets.items()}
    return len(text).to_bytes(8, "little") + text, places


def _row_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data: Callable[[], bytes] = flat.view(torch.uint8).numpy().tobytes
    return data()
