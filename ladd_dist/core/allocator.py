"""What the C library does with the memory of tensors on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of `mallopt` in glibc's malloc.h."""
_KEPT_BYTES = 1 << 30
"""Free memory at the end of the heap that stays with the process."""
_LARGEST_BYTES = 1 << 25
"""Tensors up to this are taken from it: the most that every glibc allows."""


def keep_freed_memory() -> bool:
    """Have tensors of a CPU reuse the memory of those before them; whether that was possible and not yet chosen.

    glibc gives free memory back to the system when a step's tensors are gone, and the next step takes it again, page by
    page: about a tenth of a step's time (docs/results.md). Other C libraries, and settings of the user's own in the
    environment, stay as they are. It costs memory after a large stage, up to what is kept, never during one.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
