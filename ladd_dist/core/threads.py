"""How many CPU threads a single process computes with, where the user does not say: as many as cores are free.

PyTorch's threads wait for each other at every operator. Where another program holds one of the cores, each operator
takes as long as its slowest thread, and a run with fewer threads is several times as fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from ladd_dist.core.machine import core_numbers, usable_cores
from ladd_dist.core.run_forms import read_run_config

WORTH_SAYING = 0.5
"""Cores that others must keep busy before threads are taken away and anything is said of it."""
LOOK_S = 0.5
"""Seconds for which `free_cores` looks at what others do."""
_seen = 0.0


def seen_busy() -> float:
    """The cores that other programs kept busy when this process chose its threads; 0 where that is not worth saying."""
    return _seen


class Watch:
    """Looks at the cores that this process may use, from its making on."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.started, self.before = time.monotonic(), self._busy_s()

    def busy_cores(self) -> float:
        """How many of these cores others have kept busy since; a process that waits for a core does not count."""
        elapsed = time.monotonic() - self.started
        return max(0.0, (self._busy_s() - self.before) / elapsed) if elapsed > 0 else 0.0

    def _busy_s(self) -> float:
        own = core_numbers()
        used = [core for index, core in enumerate(psutil.cpu_times(percpu=True)) if index in own]
        unused = ("idle", "iowait", "steal", "guest", "guest_nice")  # guests are in `user` too
        total = sum(sum(core) - sum(getattr(core, name, 0.0) for name in unused) for core in used)
        mine = self.process.cpu_times()
        busy: float = total - mine.user - mine.system
        return busy


def free_cores() -> int:
    """How many of the cores that this process may use others leave free, at least one; it looks for half a second."""
    watch = Watch()
    time.sleep(LOOK_S)
    return _left_by(watch.busy_cores())


def _left_by(busy: float) -> int:
    """The number of usable cores, less those that others keep busy if that is worth saying; at least one."""
    return usable_cores() if busy < WORTH_SAYING else max(1, usable_cores() - round(busy))


def choose_threads(watch: Watch, config: Path, say_line: Callable[[str], None]) -> None:
    """Set PyTorch's threads for a run on the CPU, unless `OMP_NUM_THREADS` does.

    A run that goes on keeps the number that it began with: another one rounds differently.

    Args:
        config: the run's config.json, which may not exist yet.
    """
    import torch

    global _seen
    if os.environ.get("OMP_NUM_THREADS"):
        return
    begun = read_run_config(config).environment.get("threads") if config.exists() else None
    cores = usable_cores()
    busy = watch.busy_cores()
    _seen = busy if busy >= WORTH_SAYING else 0.0
    if isinstance(begun, int) and 0 < begun <= cores:
        torch.set_num_threads(begun)
    elif busy >= WORTH_SAYING and (free := _left_by(busy)) < torch.get_num_threads():
        torch.set_num_threads(free)
        threads = "1 thread" if free == 1 else f"{free} threads"
        say_line(f"other programs keep {busy:.1f} of {cores} cores busy: {threads} (choose with --threads)")
