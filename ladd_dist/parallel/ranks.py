"""The processes of one training: who this one is, and the few things they have to agree on."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ladd_dist.core.environment import env_number
from ladd_dist.core.signals import Process
from ladd_dist.parallel.heartbeat import ANSWER, Heartbeats, LostRank, explain

T = TypeVar("T")

PATIENCE = datetime.timedelta(days=7)
"""How long the ranks wait for a single one that works alone (a lock that another run holds, hashing of shards)."""


MEETING = datetime.timedelta(minutes=10)
"""How long ranks wait for each other at the start, at least: some import slower, or start later."""
LOOK_S = 0.1


@dataclass
class Groups:
    """The gloo groups over which ranks talk; gradients travel over the default process group.

    They work on CPU tensors, so they never make the accelerator wait.
    """

    control: Any = None
    background: Any = None
    """For checkpoints that are written while training goes on."""
    untimed: Any = None
    """Without a useful time limit: rank 0 may take as long as it needs."""

    def leave(self) -> None:
        """Drop the groups: the last reference to one waits for its threads.

        A thread of gloo may still hold the tensors of the last call. One that frees them while the interpreter shuts
        down aborts the process ("terminate called without an active exception").
        """
        self.control = self.background = self.untimed = None


@dataclass(frozen=True)
class Ranks:
    """This process among `size`; rank 0 writes the files, all compute."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    groups: Groups = field(default_factory=Groups, compare=False)
    heartbeats: Heartbeats | None = field(default=None, compare=False)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and talks to the user."""
        return self.rank == 0

    def from_rank0(self, make: Callable[[], T]) -> T:
        """The value that `make` returns on rank 0, on every rank; only rank 0 calls it."""
        if self.size == 1:
            return make()
        answer: list[Any] = [make() if self.is_first else None]
        dist.broadcast_object_list(answer, src=0, group=self.groups.untimed)
        answered: T = answer[0]
        return answered

    def from_all(self, value: T, *, in_background: bool = False) -> list[T]:
        """The values of all ranks, in their order, on every rank; a collective call.

        Args:
            in_background: called by the threads that write a checkpoint while training goes on.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.groups.background if in_background else self.groups.untimed)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.max(int(flag)))

    def max(self, value: int) -> int:
        """The highest of the ranks' values."""
        if self.size == 1:
            return value
        said = torch.tensor([value])
        dist.all_reduce(said, op=dist.ReduceOp.MAX, group=self.groups.control)
        return int(said.item())

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks of a tensor on the CPU."""
        return values if self.size == 1 else self.sum(values) / self.size

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks of a tensor on the CPU."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, group=self.groups.control)
        return total

    def sum_on_device(self, values: Tensor) -> Tensor:
        """Sum over ranks of a tensor on the device, in the order of its work: the host does not wait."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        if self.size > 1:
            dist.barrier(group=self.groups.untimed)

    @contextlib.contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Run the block on rank 0 first, then on the others: rank 0 may have to fetch what they then find."""
        if not self.is_first:
            self.barrier()
        yield
        if self.is_first:
            self.barrier()

    def beat(self, what: str) -> None:
        """Record a heartbeat, cheap enough for every step; a rank that times out names the last of those missing."""
        if self.heartbeats is not None:
            self.heartbeats.beat(what)

    @contextlib.contextmanager
    def first_holds(self, lock: Callable[[], contextlib.AbstractContextManager[Any]]) -> Iterator[None]:
        """Hold a lock on rank 0; inside the block every rank may rely on it."""
        with lock() if self.is_first else contextlib.nullcontext():
            self.barrier()
            yield
            self.barrier()


SINGLE = Ranks()


@contextlib.contextmanager
def join(
    backend: str, timeout_s: float, *, device: torch.device | None = None, needs_group: bool = False
) -> Iterator[Ranks]:
    """Join the processes named in the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).

    Without RANK this process is alone; `needs_group` gives it a process group of one.

    Args:
        device: this rank's, for nccl.

    Raises:
        LostRank: another rank ended, or did not come for `timeout_s`.
    """
    if "RANK" not in os.environ and not needs_group:
        yield SINGLE
        return
    timeout = datetime.timedelta(seconds=timeout_s)
    bound = device if backend == "nccl" else None
    if "RANK" in os.environ:
        _meet(backend, timeout, bound)
    else:
        dist.init_process_group(backend, timeout=timeout, store=dist.HashStore(), rank=0, world_size=1, device_id=bound)
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), env_number("LOCAL_RANK", default=0))
    heartbeats = _heartbeats(ranks)
    groups = Groups()
    try:
        for name, patience in (("control", timeout), ("background", PATIENCE), ("untimed", PATIENCE)):
            setattr(groups, name, dist.new_group(backend="gloo", timeout=patience))
        yield replace(ranks, groups=groups, heartbeats=heartbeats)
    except BaseException as error:
        if ranks.size == 1:
            dist.destroy_process_group()
        # With several ranks the group is left as it is: to take it down may wait for the others, who may be gone.
        lost = None if heartbeats is None else explain(error, heartbeats, timeout_s)
        if lost is None:
            raise
        Process.stop = None  # what told this rank to end did so because another was gone
        raise lost from error
    dist.destroy_process_group()
    groups.leave()


def _meet(backend: str, timeout: datetime.timedelta, device: torch.device | None) -> None:
    """Wait for all ranks, which may start at different times, and make the default group."""
    patience = max(timeout, MEETING)
    rank, size = env_number("RANK"), env_number("WORLD_SIZE")
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    late = f"within {patience.total_seconds():g} s; look into the log of what started them"
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=patience))
    except dist.DistError as error:
        raise LostRank(f"rank 0 (or its launcher) did not answer at {where} {late}", waited=True) from error
    came = [f"ladd-came/{number}" for number in range(size)]
    store.set(came[rank], "")
    deadline = time.monotonic() + patience.total_seconds()
    try:
        while not store.check(came) and time.monotonic() < deadline:
            time.sleep(LOOK_S)  # `store.wait` would hear no signal
        missing = [] if store.check(came) else [str(n) for n, key in enumerate(came) if not store.check([key])]
    except dist.DistError as error:
        raise LostRank(f"rank 0 (or its launcher) is gone from {where}", waited=True) from error
    if missing:
        raise LostRank(f"rank {', '.join(missing[:8])} of {size} did not come to {where} {late}", waited=True)
    group = dist.PrefixStore("ladd-group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=timeout, device_id=device)


def _heartbeats(ranks: Ranks) -> Heartbeats | None:
    """A connection of its own to the store, with a short timeout."""
    if ranks.size == 1:
        return None
    host, port = os.environ["MASTER_ADDR"], env_number("MASTER_PORT")
    return Heartbeats(dist.TCPStore(host, port, is_master=False, timeout=ANSWER), ranks.rank, ranks.size)
