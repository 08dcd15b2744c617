"""Random access to shards: any batch of any epoch, in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.condition_index import INDEX as TABLE_INDEX
from ladd_dist.core.condition_index import Piece, read_table_index
from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.known_digests import sha256_of
from ladd_dist.core.rng import generator
from ladd_dist.core.transfer import sent
from ladd_dist.core.types import Batch, ImageSpec
from ladd_dist.engine.shard_index import INDEX, ChunkEntry, ShardError, ShardIndex, TableEntry, read_index
from ladd_dist.engine.shard_writer import Chunk, check_chunk, file_sha256

_DTYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
Array = np.ndarray[Any, Any]


class Column(NamedTuple):
    """The places of one tensor of all samples: its rows are alike, a chunk's rows lie one behind the other."""

    dtype: str
    shape: tuple[int, ...]  # of a row
    offsets: Array  # [chunks] int64, of a chunk's first row in its file

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return math.prod(self.shape) * int(np.dtype(_DTYPES[self.dtype]).itemsize)


class ShardReader:
    """The samples of a shard folder, memory-mapped: nothing is read before it is asked for.

    Its own memory grows by some bytes a chunk, and by 8 bytes a sample for the order of the epoch at hand.
    """

    def __init__(self, folder: Path) -> None:
        """Open the index.

        Raises:
            ShardError: no index, a damaged one or another format, or a shard that is missing or of the wrong size.
        """
        self.folder = folder
        index = read_index(folder / INDEX)
        shards, chunks = index.shards, index.chunks()
        self.path_levels = index.path_levels
        self._paths = [folder / shard.name for shard in shards]
        self._data = [_map(folder / shard.name, shard.bytes) for shard in shards]
        self._files = np.repeat(np.arange(len(shards)), [len(shard.chunks) for shard in shards])
        self._starts = np.cumsum([0, *(chunk.samples for chunk in chunks)])
        self._columns = _columns(folder, chunks, [shard.bytes for shard in shards for _ in shard.chunks])
        for table in _table_files(folder, index):
            _require_size(folder / table.name, table.bytes)
        self._orders: dict[tuple[int, int], Array] = {}
        self._resident: Batch | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def verify(self, image: ImageSpec) -> None:
        """Compare every shard with its sha256 and look at every sample.

        Raises:
            ShardError: names the damaged shard, or the sample that is not finite or has the wrong shape or class.
        """
        # Read again: the index is large as Python objects, and one string kept of it keeps the memory around it.
        index = read_index(self.folder / INDEX)
        for shard in index.shards:
            _require_sha256(self.folder / shard.name, file_sha256, shard.sha256)
        for table in _table_files(self.folder, index):  # the networks that read texts hash it too
            _require_sha256(self.folder / table.name, sha256_of, table.sha256)
        for number, (first, last) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            batch = self.take(np.arange(first, last))
            where = f"{self.folder}, chunk {number}"
            check_chunk(Chunk(batch.x0, batch.cond, batch.noise, batch.path), image, where)
            if batch.path is not None and batch.path.shape[1] != len(self.path_levels):
                raise ShardError(f"{where}: {batch.path.shape[1]} path states, the index has levels {self.path_levels}")

    def keep_on(self, device: torch.device) -> None:
        """Copy all samples to a device: they are given from there from now on, the same numbers without a transfer."""
        self._resident = to_device(self.take(np.arange(len(self))), device)

    def take(self, indices: Array) -> Batch:
        """The samples at global indices [B], as float32, on the CPU unless they are kept on a device.

        Raises:
            IndexError: an index that no sample has.
            ShardError: a file has shrunk since it was opened, and to read behind its end would kill the process.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"samples are 0 to {len(self) - 1}, asked for {indices.min()} to {indices.max()}")
        if self._resident is not None:
            return self._resident.rows(sent(torch.from_numpy(indices), self._resident.x0.device))
        chunks = np.searchsorted(self._starts, indices, side="right") - 1
        rows = indices - self._starts[chunks]
        for file in np.unique(self._files[chunks]).tolist():
            self._require_mapped(file)
        x0, cond, noise, path = (self._gather(name, chunks, rows) for name in ("x0", "cond", "noise", "path"))
        assert x0 is not None and cond is not None
        return Batch(
            x0.float(),
            cond,
            noise.float() if noise is not None else None,
            path.float() if path is not None else None,
            self.path_levels,
        )

    def _require_mapped(self, file: int) -> None:
        try:
            found = self._paths[file].stat().st_size
        except FileNotFoundError:  # removed, not cut: the mapping still holds its bytes
            return
        if found < len(self._data[file]):
            raise ShardError(
                f"shard {self._paths[file]} was cut to {found} bytes while it was read; delete it and run stage "
                "`shards` again to rebuild it"
            )

    def _gather(self, name: str, chunks: Array, rows: Array) -> Tensor | None:
        column = self._columns.get(name)
        if column is None:
            return None
        size = column.row_bytes
        gathered = np.empty((len(rows), *column.shape), _DTYPES[column.dtype])
        target = gathered.reshape(-1).view(np.uint8).data
        starts = column.offsets[chunks] + rows * size
        # Bytes to bytes: several times faster than an array a row, and nothing is kept for each chunk.
        for i, (file, start) in enumerate(zip(self._files[chunks].tolist(), starts.tolist(), strict=True)):
            target[i * size : (i + 1) * size] = self._data[file][start : start + size]
        return torch.from_numpy(gathered)

    def batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """The batch of a step: consecutive pieces of the epochs' orders, every sample exactly once an epoch.

        Args:
            batch_size: of the whole batch, over all ranks.
            rows: which of its rows to read, those of one rank; None: all. No other sample is touched.
        """
        rows = range(batch_size) if rows is None else rows
        assert not rows or (rows[0] in range(batch_size) and rows[-1] in range(batch_size)), (rows, batch_size)
        positions = step * batch_size + np.array(rows, dtype=np.int64)
        epochs, places = np.divmod(positions, len(self))
        indices = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            indices[epochs == epoch] = self._order(seed, int(epoch))[places[epochs == epoch]]
        return self.take(indices)

    def _order(self, seed: int, epoch: int) -> Array:
        if (seed, epoch) not in self._orders:
            order = torch.randperm(len(self), generator=generator("order", seed, epoch)).numpy()
            self._orders = {(seed, epoch): order}  # the newest alone: steps ascend
        return self._orders[seed, epoch]


def _map(path: Path, size: int) -> memoryview:
    """Map a file's bytes, by torch: Python's own mmap keeps a descriptor a file, and there may be thousands."""
    _require_size(path, size)
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy().data.toreadonly()


def _table_files(folder: Path, index: ShardIndex) -> Iterator[TableEntry | Piece]:
    """The files of the table of texts, the first of which names the others: look at each before the next."""
    if index.conditions is None:
        return
    yield index.conditions
    if index.conditions.name == TABLE_INDEX:
        try:
            yield from read_table_index(folder / TABLE_INDEX).files
        except ShardError:
            raise
        except UserError as error:
            raise ShardError(str(error)) from error


def _require_size(path: Path, size: int) -> None:
    if not path.exists():
        raise ShardError(f"shard {path} is missing; run stage `shards` again to rebuild it")
    found = require_regular(path)
    if found != size:
        raise ShardError(
            f"shard {path} is damaged: {found} bytes, the index says {size}; delete it and run stage "
            "`shards` again to rebuild it"
        )


def _require_sha256(path: Path, read: Callable[[Path], str], stated: str) -> None:
    if read(path) != stated:
        raise ShardError(
            f"shard {path} is damaged: its sha256 is not the index's; delete it and run the same command again, stage "
            "`shards` included, to rebuild it"
        )


def _columns(folder: Path, chunks: list[ChunkEntry], sizes: list[int]) -> dict[str, Column]:
    """The index's chunks as one array a tensor; `sizes` are those of the chunks' files.

    Raises:
        ShardError: chunks that do not hold the same, or do not lie in their file.
    """
    first = chunks[0].tensors
    for number, chunk in enumerate(chunks):
        if chunk.tensors.keys() != first.keys():
            held, wanted = ", ".join(sorted(chunk.tensors)), ", ".join(sorted(first))
            raise ShardError(
                f"{folder}: chunk {number} holds {held}, chunk 0 holds {wanted}; remove the folder, make them anew"
            )
    columns = {}
    for name, item in first.items():
        if item.dtype not in _DTYPES or (item.dtype == "I64") != (name == "cond"):
            raise ShardError(f"{folder}: {name} is stored as {item.dtype}; remove the folder, make the shards anew")
        offsets = np.array([chunk.tensors[name].offset for chunk in chunks], dtype=np.int64)
        columns[name] = Column(item.dtype, item.shape[1:], offsets)
        for number, (chunk, size) in enumerate(zip(chunks, sizes, strict=True)):
            found, samples = chunk.tensors[name], chunk.samples
            alike = (found.dtype, found.shape) == (item.dtype, (samples, *item.shape[1:]))
            if not alike or not 0 <= found.offset <= size - samples * columns[name].row_bytes:
                raise ShardError(
                    f"{folder}, chunk {number}: {name} has shape {found.shape} of {found.dtype} at byte "
                    f"{found.offset}, which does not fit its {samples} samples, its shard of {size} bytes or chunk "
                    f"0 ({item.shape} of {item.dtype}); remove the folder, make the shards anew"
                )
    return columns


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, images channels_last."""

    def move(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else sent(tensor, device)

    x0 = sent(batch.x0, device).contiguous(memory_format=torch.channels_last)
    return Batch(x0, sent(batch.cond, device), move(batch.noise), move(batch.path), batch.path_levels, move(batch.old))
