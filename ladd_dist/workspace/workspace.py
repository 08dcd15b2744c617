"""The folders that runs work in, and marks of what is done there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ladd_dist.core.rng import Rows, whole_batch
from ladd_dist.core.run_forms import read_marker
from ladd_dist.core.rundir import exclusive, write_json
from ladd_dist.core.serialize import RecipeError
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import SINGLE, Ranks


@dataclass(frozen=True)
class Workspace:
    """Where runs work: folders, device, and this process among several. Nothing here changes a result."""

    runs: Path
    cache: Path
    device: torch.device
    ranks: Ranks = SINGLE


def make_together(ranks: Ranks, folder: Path, is_done: Callable[[], bool], make: Callable[[], None]) -> None:
    """Call `make`, which fills `folder`, on every rank, unless it is done; another run that makes it is waited for."""
    if ranks.from_rank0(is_done):  # looked at without the lock too: a finished cache may be read-only
        return
    with ranks.first_holds(lambda: exclusive(folder)):
        if not ranks.from_rank0(is_done):
            make()


def rows_of(where: str, batch_size: int, compute: Compute, ranks: Ranks) -> Rows:
    """This rank's rows of the global batch.

    Raises:
        RecipeError: the batch cannot be shared evenly.
    """
    shares = ranks.size * compute.accumulate
    if batch_size % shares:
        below, above = batch_size // shares * shares, -(-batch_size // shares) * shares
        near = f"{below} or {above}" if below else f"{above}"
        micro = f" with {compute.accumulate} micro-batches each" if compute.accumulate > 1 else ""
        raise RecipeError(
            f"recipe.{where}: {batch_size} samples cannot be shared evenly by {ranks.size} ranks{micro}; use another "
            f"number of ranks, or --{where.replace('_', '-')} {near}"
        )
    return whole_batch(batch_size).part(ranks.rank, ranks.size)


def is_done(marker: Path, signature: str) -> bool:
    """Whether a stage finished with this signature."""
    return marker.exists() and read_marker(marker).get("signature") == signature


def mark_done(marker: Path, signature: str, **facts: Any) -> None:
    """Record that a stage finished."""
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(marker, {"signature": signature, "finished": finished, **facts})
