"""Signs of life of the ranks, so that one that waits in vain can say for whom."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import time
from collections.abc import Iterable
from typing import NamedTuple

import torch.distributed as dist

EVERY_S = 0.25
GATHER_S = 3.0
"""How long the ranks that waited in vain wait for each other's word."""
ANSWER = datetime.timedelta(seconds=5)

TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)
GLOO = re.compile(r"gloo/|pair closure|(closed|reset) by peer")
"""Gloo's errors are plain RuntimeErrors."""

ENDED = "another rank has ended (its own message, or that of what started it, says why)"


class LostRank(RuntimeError):
    """A collective broke because of another rank."""

    def __init__(self, message: str, *, waited: bool) -> None:
        self.waited = waited
        """Whether it waited until the timeout; otherwise the connection was lost, and the other rank knows why."""
        super().__init__(message)


class Sign(NamedTuple):
    """The last sign of life of a rank."""

    what: str
    time: float

    def __str__(self) -> str:
        return f"{self.what!r}, {max(time.time() - self.time, 0.0):.0f} s ago"


class Signs:
    """Where the ranks leave signs of life: the key-value store through which they found each other.

    Every call may fail, because the store may be gone with the rank that kept it; then nothing is known.
    """

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = dist.PrefixStore("ladd-signs", store), rank, size
        self.last = 0.0
        self.broken = False

    def alive(self, what: str) -> None:
        """Say what this rank has done, at most a few times a second."""
        now = time.monotonic()
        if now - self.last > EVERY_S and not self.broken:
            self.last = now
            self._set(f"alive/{self.rank}", what)

    def waiting(self) -> None:
        """Say that this rank is there and found that another is not."""
        self._set(f"waiting/{self.rank}", "")

    def sign(self, rank: int) -> Sign | None:
        """The last sign of life of a rank."""
        with contextlib.suppress(RuntimeError, ValueError):
            if self.store.check([f"alive/{rank}"]):
                return Sign(*json.loads(self.store.get(f"alive/{rank}")))
        return None

    def missing(self, patience_s: float) -> list[int] | None:
        """The ranks that do not say they are waiting within that time; None when the store is gone."""
        deadline = time.monotonic() + patience_s
        missing = [rank for rank in range(self.size) if rank != self.rank]
        try:
            while missing and time.monotonic() < deadline:
                missing = [rank for rank in missing if not self.store.check([f"waiting/{rank}"])]
                time.sleep(0.1)
        except RuntimeError:
            return None
        return missing

    def _set(self, key: str, what: str) -> None:
        try:
            self.store.set(key, json.dumps([what, time.time()]))
        except RuntimeError:
            self.broken = True


def describe(signs: Signs, ranks: Iterable[int]) -> str:
    """The last sign of life of each of these ranks."""
    said = {rank: signs.sign(rank) for rank in ranks}
    return "; ".join(f"rank {rank}: {sign or 'none'}" for rank, sign in said.items())


def explain(error: BaseException, signs: Signs, timeout_s: float) -> LostRank | None:
    """What a broken collective means; None when the error is about something else."""
    if isinstance(error, KeyboardInterrupt) and error.__context__ is not None:
        # A launcher that sees one rank end sends SIGTERM to the others: that is no stop after a clean save.
        error = error.__context__
    text = str(error)
    if isinstance(error, KeyboardInterrupt) or not (isinstance(error, dist.DistError) or GLOO.search(text)):
        return None
    waited = TIMED_OUT.search(text) is not None
    try:
        signs.waiting()
        missing = signs.missing(GATHER_S if waited else GATHER_S / 3)
    except KeyboardInterrupt:
        return LostRank(f"lost the connection: {ENDED}", waited=False)
    if missing is None:
        why = "the rank that keeps the signs of life, 0 or the one that launched it, is gone"
    elif not waited:
        gone = describe(signs, missing[:8]) or "none; all ranks lost a connection"
        why = f"{ENDED}. Last signs of life of those gone: {gone}"
    elif not missing:
        all_ranks = describe(signs, range(min(signs.size, 8)))
        why = f"every rank waits, for different things; last signs of life: {all_ranks}"
    else:
        why = "; ".join(_absent(signs, rank, timeout_s) for rank in missing[:8])
        why += ". A rank that does not come hangs, or its machine is gone: look into its log"
    return LostRank(why if waited else f"lost the connection: {why}", waited=waited)


def _absent(signs: Signs, rank: int, timeout_s: float) -> str:
    sign = signs.sign(rank)
    last = f"its last sign of life was {sign}" if sign else "it never gave a sign of life"
    return f"rank {rank} did not come within {timeout_s:g} s: {last}"
