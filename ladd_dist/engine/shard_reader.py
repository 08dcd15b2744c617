"""Random access to shards: any batch of any epoch, in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.rng import generator
from ladd_dist.core.rundir import read_json
from ladd_dist.core.types import Batch, ImageSpec
from ladd_dist.engine.shard_writer import FORMAT, INDEX, Chunk, ShardError, check_chunk, file_sha256

_DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


class ShardReader:
    """The samples of a shard folder, memory-mapped: nothing is read before it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Open the index.

        Raises:
            ShardError: no index, a damaged one or another format, or a shard that is missing or of the wrong size.
        """
        self.folder = folder
        self.index = _read_index(folder / INDEX)
        self.path_levels: tuple[float, ...] = tuple(self.index.get("path_levels", ()))
        self._views: list[dict[str, np.ndarray[Any, Any]]] = []
        self._orders: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        starts = [0]
        for record in self.index["shards"]:
            data = self._map(record)
            for chunk in record["chunks"]:
                self._views.append({name: _view(data, item) for name, item in chunk["tensors"].items()})
                starts.append(starts[-1] + chunk["samples"])
        self._starts = np.array(starts)
        for number, view in enumerate(self._views):
            if view.keys() != self._views[0].keys():
                held, first = ", ".join(sorted(view)), ", ".join(sorted(self._views[0]))
                raise ShardError(
                    f"{folder}: chunk {number} holds {held}, chunk 0 holds {first}; remove the folder, make them anew"
                )

    def _map(self, record: dict[str, Any]) -> mmap.mmap:
        path = self.folder / record["name"]
        if not path.exists():
            raise ShardError(f"shard {path} is missing; run stage `shards` again to rebuild it")
        size = path.stat().st_size
        if size != record["bytes"]:
            raise ShardError(
                f"shard {path} is damaged: {size} bytes, the index says {record['bytes']}; delete it and run stage "
                "`shards` again to rebuild it"
            )
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def verify(self, image: ImageSpec) -> None:
        """Compare every shard with its sha256 and look at every sample.

        Raises:
            ShardError: names the damaged shard, or the sample that is not finite or has the wrong shape or class.
        """
        for record in self.index["shards"]:
            path = self.folder / record["name"]
            if file_sha256(path) != record["sha256"]:
                raise ShardError(
                    f"shard {path} is damaged: its sha256 is not the index's; delete it and run the same command "
                    "again, stage `shards` included, to rebuild it"
                )
        for number, view in enumerate(self._views):
            tensors = {name: torch.from_numpy(array.copy()) for name, array in view.items()}  # torch wants it writable
            chunk = Chunk(tensors["x0"], tensors["cond"], tensors.get("noise"), tensors.get("path"))
            where = f"{self.folder}, chunk {number}"
            check_chunk(chunk, image, where)
            if chunk.path is not None and chunk.path.shape[1] != len(self.path_levels):
                raise ShardError(f"{where}: {chunk.path.shape[1]} path states, the index has levels {self.path_levels}")

    def take(self, indices: np.ndarray[Any, Any]) -> Batch:
        """The samples at global indices [B], on the CPU, as float32."""
        chunks = np.searchsorted(self._starts, indices, side="right") - 1
        rows = indices - self._starts[chunks]

        def gather(name: str) -> Tensor | None:
            if name not in self._views[0]:
                return None
            return torch.from_numpy(np.stack([self._views[c][name][r] for c, r in zip(chunks, rows, strict=True)]))

        x0, cond, noise, path = (gather(name) for name in ("x0", "cond", "noise", "path"))
        assert x0 is not None and cond is not None
        return Batch(
            x0.float(),
            cond,
            noise.float() if noise is not None else None,
            path.float() if path is not None else None,
            self.path_levels,
        )

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of a step: consecutive pieces of the epochs' orders, every sample exactly once an epoch."""
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        epochs, places = np.divmod(positions, len(self))
        indices = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            indices[epochs == epoch] = self._order(seed, int(epoch))[places[epochs == epoch]]
        return self.take(indices)

    def _order(self, seed: int, epoch: int) -> np.ndarray[Any, Any]:
        if (seed, epoch) not in self._orders:
            order = torch.randperm(len(self), generator=generator("order", seed, epoch)).numpy()
            self._orders = {(seed, epoch): order}  # the newest alone: steps ascend
        return self._orders[seed, epoch]


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise ShardError(str(error)) from error
    found = index.get("format") if isinstance(index, dict) else None
    if found != FORMAT:
        raise ShardError(f"{path}: format {found}, this version reads {FORMAT}; run stage `shards` again")
    try:
        chunks = [chunk for record in index["shards"] for chunk in record["chunks"]]
        whole = all({"x0", "cond"} <= chunk["tensors"].keys() and chunk["samples"] > 0 for chunk in chunks)
        whole &= all({"name", "bytes", "sha256"} <= record.keys() for record in index["shards"])
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole or not chunks:
        raise ShardError(f"{path} is damaged; delete it and run stage `shards` again to rebuild it")
    return index


def _view(data: mmap.mmap, item: dict[str, Any]) -> np.ndarray[Any, Any]:
    count = int(np.prod(item["shape"]))
    dtype = _DTYPES[item["dtype"]]
    return np.frombuffer(data, dtype=dtype, count=count, offset=item["offset"]).reshape(item["shape"])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, images channels_last."""

    def move(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    x0 = batch.x0.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    return Batch(x0, batch.cond.to(device, non_blocking=True), move(batch.noise), move(batch.path), batch.path_levels)
