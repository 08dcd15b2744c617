"""The kinds of inputs. A kind makes, from a number, one damaged thing in a folder and the command that meets it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.base import Base
from fuzz.judge import Order

GROUPS = (
    "received",
    "consent",
    "weights",
    "checkpoints",
    "shards",
    "flags",
    "environment",
    "data",
    "targets",
    "tuning",
)


@dataclass(frozen=True)
class Place:
    """A case's folder, with parts of the base in it (`base.lay_out`)."""

    base: Base
    root: Path

    @property
    def run(self) -> Path:
        """The received run's folder."""
        return self.root / "received" / "runs" / self.base.run

    @property
    def own_run(self) -> Path:
        """The same run as the user's own."""
        return self.root / "own" / "runs" / self.base.run

    @property
    def cache(self) -> Path:
        """The user's cache."""
        return self.root / "own" / "cache"

    @property
    def sweep(self) -> Path:
        """The received sweep's folder."""
        return self.root / "received" / "runs" / "sweeps" / "tiny-0123456789"

    @property
    def canary(self) -> Path:
        """What a canary writes when it runs."""
        return self.root / "outside" / "ran-canary"

    @property
    def canary_code(self) -> str:
        """Python that writes it."""
        return f"open({str(self.canary)!r}, 'w').write('ran')\n"


@dataclass(frozen=True)
class Made:
    """An input and the command that meets it."""

    what: str
    """The damage in a few words."""
    order: Order


Make = Callable[[Place, int, random.Random], Made]


@dataclass(frozen=True)
class Kind:
    """One kind of inputs; each number from 0 gives one, always the same."""

    name: str
    """GROUP/NAME."""
    make: Make
    parts: tuple[str, ...]
    """What of the base a case needs."""
    quick: int
    """How many the tests make."""
    full: int
    """How many `make fuzz` makes."""

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


@dataclass
class Table:
    """All kinds by name."""

    kinds: dict[str, Kind] = field(default_factory=dict)

    def add(self, name: str, *parts: str, quick: int, full: int) -> Callable[[Make], Make]:
        """Enter a function as a kind."""

        def enter(make: Make) -> Make:
            assert name not in self.kinds and name.partition("/")[0] in GROUPS, name
            self.kinds[name] = Kind(name, make, parts, min(quick, full), full)
            return make

        return enter


TABLE = Table()
RECEIVED = ("received", "own/cache")
OWN = ("own/runs", "own/cache")
