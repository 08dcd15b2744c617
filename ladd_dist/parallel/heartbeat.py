"""Heartbeats: every rank records when it last did something, so that one that times out can name who is missing."""

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
"""Seconds that the ranks that timed out give each other to say so."""
ANSWER = datetime.timedelta(seconds=5)

TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)
GLOO = re.compile(r"gloo/|pair closure|(closed|reset) by peer")
"""Texts of gloo's errors, which are plain RuntimeErrors."""

ENDED = "another rank has ended (its own message, or that of what started it, says why)"


class LostRank(RuntimeError):
    """A collective that broke because of another rank."""

    def __init__(self, message: str, *, waited: bool) -> None:
        self.waited = waited
        """Whether this rank waited until the timeout; else the connection was lost, and the other rank knows why."""
        super().__init__(message)


class Heartbeat(NamedTuple):
    """The last thing that a rank did, and when."""

    what: str
    time: float
    """Seconds since 1970 by the rank's clock."""

    def __str__(self) -> str:
        return f"{self.what!r}, {max(time.time() - self.time, 0.0):.0f} s ago"


class Heartbeats:
    """The heartbeats of all ranks, in the key-value store through which they found each other.

    The store may be gone with the rank that kept it: then writing does nothing and reading finds nothing.
    """

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = dist.PrefixStore("ladd-heartbeats", store), rank, size
        self.last = 0.0
        self.broken = False

    def beat(self, what: str) -> None:
        """Record what this rank has done, at most a few times a second; `what` is shown to the user."""
        now = time.monotonic()
        if now - self.last > EVERY_S and not self.broken:
            self.last = now
            self._set(f"alive/{self.rank}", what)

    def waiting(self) -> None:
        """Record that this rank runs, and waits for another."""
        self._set(f"waiting/{self.rank}", "")

    def last_of(self, rank: int) -> Heartbeat | None:
        """The last heartbeat of a rank; None where it never gave one, or the store is gone."""
        with contextlib.suppress(RuntimeError, ValueError):
            if self.store.check([f"alive/{rank}"]):
                return Heartbeat(*json.loads(self.store.get(f"alive/{rank}")))
        return None

    def missing(self, patience_s: float) -> list[int] | None:
        """The ranks that have not called `waiting` after `patience_s` seconds; None when the store is gone."""
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


def describe(heartbeats: Heartbeats, ranks: Iterable[int]) -> str:
    """The last heartbeats of these ranks, as text for the user."""
    said = {rank: heartbeats.last_of(rank) for rank in ranks}
    return "; ".join(f"rank {rank}: {heartbeat or 'none'}" for rank, heartbeat in said.items())


def explain(error: BaseException, heartbeats: Heartbeats, timeout_s: float) -> LostRank | None:
    """The lost rank behind the error of a collective; None when the error is about something else."""
    if isinstance(error, KeyboardInterrupt) and error.__context__ is not None:
        # A launcher that sees one rank end sends SIGTERM to the others: that is no stop after a clean save.
        error = error.__context__
    text = str(error)
    if isinstance(error, KeyboardInterrupt) or not (isinstance(error, dist.DistError) or GLOO.search(text)):
        return None
    waited = TIMED_OUT.search(text) is not None
    try:
        heartbeats.waiting()
        missing = heartbeats.missing(GATHER_S if waited else GATHER_S / 3)
    except KeyboardInterrupt:
        return LostRank(f"lost the connection: {ENDED}", waited=False)
    if missing is None:
        why = "the rank that keeps the signs of life, 0 or the one that launched it, is gone"
    elif not waited:
        gone = describe(heartbeats, missing[:8]) or "none; all ranks lost a connection"
        why = f"{ENDED}. Last signs of life of those gone: {gone}"
    elif not missing:
        all_ranks = describe(heartbeats, range(min(heartbeats.size, 8)))
        why = f"every rank waits, for different things; last signs of life: {all_ranks}"
    else:
        why = "; ".join(_absent(heartbeats, rank, timeout_s) for rank in missing[:8])
        why += ". A rank that does not come hangs, or its machine is gone: look into its log"
    return LostRank(why if waited else f"lost the connection: {why}", waited=waited)


def _absent(heartbeats: Heartbeats, rank: int, timeout_s: float) -> str:
    heartbeat = heartbeats.last_of(rank)
    last = f"its last sign of life was {heartbeat}" if heartbeat else "it never gave a sign of life"
    return f"rank {rank} did not come within {timeout_s:g} s: {last}"
