"""Batches of new pictures and old samples, in a share that holds in every part of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.core.types import Batch
from ladd_dist.engine.shard_reader import ShardReader


class MixedReader:
    """Reads batches of which `num_old` rows come from the shards of old samples, and the rest from those of pictures.

    Row r of a batch is an old one if floor((r + 1) k / B) > floor(r k / B), k = `num_old`: evenly spread, so each
    process and each micro-batch has its share, and a row is the same on any number of processes.
    """

    def __init__(self, pictures: ShardReader, old: ShardReader, num_old: int) -> None:
        self.pictures, self.old, self.num_old = pictures, old, num_old

    def __len__(self) -> int:
        return len(self.pictures)

    def keep_on(self, device: torch.device) -> None:
        """Copy all samples to a device; see `ShardReader.keep_on`."""
        self.pictures.keep_on(device)
        self.old.keep_on(device)

    def batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """The rows [R] of a step's batch; see `ShardReader.batch`. `old` tells which are old; others have no noise."""
        rows = range(batch_size) if rows is None else rows
        first, stop = (row * self.num_old // batch_size for row in (rows.start, rows.stop))
        old = self.old.batch(step, self.num_old, seed, range(first, stop))
        new = self.pictures.batch(step, batch_size - self.num_old, seed, range(rows.start - first, rows.stop - stop))
        index = torch.arange(rows.start, rows.stop)
        is_old = (index + 1) * self.num_old // batch_size > index * self.num_old // batch_size
        is_old = is_old.to(new.x0.device)
        assert old.noise is not None
        noise = _placed(is_old, old.noise, torch.zeros_like(new.x0))
        return Batch(_placed(is_old, old.x0, new.x0), _placed(is_old, old.cond, new.cond), noise, None, (), is_old)


def _placed(is_old: Tensor, old: Tensor, new: Tensor) -> Tensor:
    rows = old.new_empty((len(is_old), *old.shape[1:]))
    rows[is_old], rows[~is_old] = old, new
    return rows
