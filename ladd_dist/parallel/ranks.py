"""The processes of one training: who this one is, and the few things they have to agree on."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = datetime.timedelta(days=7)
"""How long the ranks wait for a single one that works alone (a lock that another run holds, hashing of shards)."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size`; rank 0 writes the files, all compute.

    Gradients travel over the default process group. What is said here goes over `control`, a gloo group of its own:
    it works on CPU tensors, so it never makes the accelerator wait, and rank 0 may take its time.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = field(default=None, compare=False)
    background: Any = field(default=None, compare=False)
    """A second gloo group, for checkpoints that are written while training goes on."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and talks to the user."""
        return self.rank == 0

    def agree(self, ask: Callable[[], T]) -> T:
        """Rank 0's answer, on every rank; `ask` is called there alone."""
        if self.size == 1:
            return ask()
        answer: list[Any] = [ask() if self.is_first else None]
        dist.broadcast_object_list(answer, src=0, group=self.control)
        answered: T = answer[0]
        return answered

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        said = torch.tensor([int(flag)])
        dist.all_reduce(said, op=dist.ReduceOp.MAX, group=self.control)
        return bool(said.item())

    def highest(self, value: int) -> int:
        """The highest of the ranks' values."""
        if self.size == 1:
            return value
        said = torch.tensor([value])
        dist.all_reduce(said, op=dist.ReduceOp.MAX, group=self.control)
        return int(said.item())

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks of a tensor on the CPU."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, group=self.control)
        return total / self.size

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier(group=self.control)

    @contextlib.contextmanager
    def first_holds(self, lock: Callable[[], contextlib.AbstractContextManager[Any]]) -> Iterator[None]:
        """Inside, rank 0 holds the lock, and every rank knows it does."""
        with lock() if self.is_first else contextlib.nullcontext():
            self.wait()
            yield
            self.wait()


SINGLE = Ranks()


@contextlib.contextmanager
def join(backend: str, timeout_s: float, *, needs_group: bool = False) -> Iterator[Ranks]:
    """Join the processes named in the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).

    Without RANK this process is alone; `needs_group` gives it a process group of one.
    """
    timeout = datetime.timedelta(seconds=timeout_s)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    elif needs_group:
        dist.init_process_group(
            backend, timeout=timeout, store=torch.distributed.distributed_c10d.HashStore(), rank=0, world_size=1
        )
    else:
        yield SINGLE
        return
    try:
        yield Ranks(
            rank=dist.get_rank(),
            size=dist.get_world_size(),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
            control=dist.new_group(backend="gloo", timeout=PATIENCE),
            background=dist.new_group(backend="gloo", timeout=PATIENCE),
        )
    finally:
        dist.destroy_process_group()
