"""Table of text conditions, computed once and looked up by id; the rest of the code sees only ids.

A table of N conditions has N + 1 rows in each of its tensors (encoder states, masks, pooled embeddings ...); the last
row is the null condition of guidance. The table is on disk, memory-mapped: only requested rows are read. It is an
index with its files (`core/packed_table.py`), or a single safetensors file, as earlier versions wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ladd_dist.core.condition_index import read_table_index
from ladd_dist.core.errors import UserError
from ladd_dist.core.packed_table import PackedTable
from ladd_dist.core.tensor_file import read_tensors

ON_DEVICE_BYTES = 2**30
"""Size in bytes up to which a table is copied whole to the accelerator. Rows of a larger one are copied for each new
batch; the host must know the ids for that, so it waits for the device once per batch."""
NONE = "is no readable table of conditions"


class Table(Protocol):
    """Rows that a table looks up."""

    num_rows: int
    nbytes: int

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row of each tensor."""
        ...

    def rows(self, ids: Tensor) -> dict[str, Tensor]:
        """Rows [B,...] by name for ids [B] int64 on the CPU."""
        ...

    def resident(self, device: torch.device) -> Resident:
        """A copy of all rows on a device."""
        ...


class Resident(Protocol):
    """Rows on a device."""

    def rows(self, ids: Tensor) -> dict[str, Tensor]:
        """Rows [B,...] by name for ids [B] int64 on the device."""
        ...


class DenseTable:
    """Rows of whole tensors [N+1,...], with their padding."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors.

        Raises:
            UserError: there is no tensor, or their numbers of rows differ.
        """
        lengths = {name: len(tensor) if tensor.ndim else 0 for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise UserError(f"a table of conditions needs tensors with one row a condition, got rows {lengths}")
        self._tensors, self.num_rows = dict(tensors), min(lengths.values())
        self.nbytes = sum(tensor.nbytes for tensor in tensors.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each tensor."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self._tensors.items()}

    def rows(self, ids: Tensor) -> dict[str, Tensor]:
        """Rows [B,...] by name for ids [B] int64, on the device of the tensors."""
        return {name: tensor[ids] for name, tensor in self._tensors.items()}

    def resident(self, device: torch.device) -> DenseTable:
        """A copy of all rows on a device."""
        return DenseTable({name: tensor.to(device) for name, tensor in self._tensors.items()})


class Conditions:
    """Table of conditions by id. It is no parameter or buffer: state dicts, averages and strategies ignore it."""

    def __init__(self, table: Mapping[str, Tensor] | Table) -> None:
        """Look rows up in a table, or in tensors [N+1, ...] on the CPU.

        Raises:
            UserError: there is no tensor, or their numbers of rows differ.
        """
        self._table: Table = DenseTable(table) if isinstance(table, Mapping) else table
        self.num = self._table.num_rows - 1
        """Number of conditions N: ids are 0 to N - 1, and N is the null condition."""
        self.shapes: dict[str, tuple[int, ...]] = dict(self._table.shapes)
        self._copies: dict[torch.device, Resident] = {}
        self._last: tuple[Tensor, int, dict[str, Tensor]] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Conditions:
        return self  # never written to: copies of a network share it

    @classmethod
    def blank(cls, shapes: Mapping[str, tuple[int, ...]]) -> Conditions:
        """Make a table that gives zeros of these shapes for any id, on any device, to measure a network with."""
        return _Blank({name: torch.zeros(1, 1).expand(2, *shape or (1,)) for name, shape in shapes.items()}, shapes)

    @classmethod
    def read(cls, path: Path) -> Conditions:
        """Open the table of an index (`.json`), or in a file of safetensors, memory-mapped.

        Raises:
            UserError: a file is missing or damaged; the message names it.
        """
        if path.suffix == ".json":
            return cls(PackedTable(path.parent, read_table_index(path)))
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
            return self._table.rows(ids)
        if self._table.nbytes > ON_DEVICE_BYTES:
            return {name: rows.to(ids.device) for name, rows in self._table.rows(ids.cpu()).items()}
        if ids.device not in self._copies:
            self._copies[ids.device] = self._table.resident(ids.device)
        return self._copies[ids.device].rows(ids)


class _Blank(Conditions):
    """Table that knows the shapes of rows only, and gives zeros."""

    def __init__(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(tensors)
        self.shapes = dict(shapes)

    def take(self, ids: Tensor) -> dict[str, Tensor]:
        return {name: torch.zeros(len(ids), *shape, device=ids.device) for name, shape in self.shapes.items()}
