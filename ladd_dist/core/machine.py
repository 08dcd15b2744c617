"""What this machine has: cores, memory, and the refusal of what cannot fit into it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ladd_dist.core.errors import RecipeError
from ladd_dist.core.units import si

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""Where a container's limit stands; `max` for none."""


def core_numbers() -> list[int]:
    """Numbers of the CPU cores that this process may run on; at least one."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many CPU cores this process may run on; at least 1."""
    return len(core_numbers())


def memory_bytes() -> int:
    """Bytes of this machine's memory, or of its container's limit where that is lower."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        found = min(found, int(CGROUP.read_text(encoding="ascii")))
    return found


def require_memory(needed: float, field: str, has: int | None = None) -> None:
    """Refuse what the system would end without a word when memory runs out.

    Args:
        needed: bytes, at least.
        field: the field or flag that asks for them, with its value; begins the message.
        has: bytes that there are; this machine's memory unless given.

    Raises:
        RecipeError: there is less.
    """
    has = memory_bytes() if has is None else has
    if needed > has:
        raise RecipeError(f"{field}: needs {si(needed, 'B')} of memory or more, and {si(has, 'B')} are here; lower it")
