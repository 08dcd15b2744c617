"""Jobs of submitit's local executor: processes of this machine. A job's id is the process number of its controller."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

SIGNS_OF_LOCAL = "submitit.local._local"
LET_SAVE_S, LET_DIE_S = 10.0, 5.0


def controllers(name: str, logs: Path) -> list[int]:
    """The processes that control a local job: its own, or with set-up lines the child of a shell."""
    if not name.isdigit():
        return []
    pids = [int(name), *_children(int(name))]
    return [pid for pid in pids if _is_controller(pid, logs)]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_controller(pid: int, logs: Path) -> bool:
    """Whether a process controls a job that logs into `logs`: process numbers are given out anew, too."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        here = Path(f"/proc/{pid}/cwd").resolve()
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    if status == "Z" or SIGNS_OF_LOCAL not in words:
        return False
    return (here / words[words.index(SIGNS_OF_LOCAL) + 1]).resolve() == logs.resolve()


def end_local(names: Iterable[str], logs: Path) -> None:
    """End local jobs, all at once: SIGTERM, which lets them save, then submitit's own way, then by force.

    SIGINT, which is submitit's way, is ignored by what a shell's script has started in the background.
    """
    left = list(names)
    for number, seconds in ((signal.SIGTERM, LET_SAVE_S), (signal.SIGINT, LET_DIE_S), (signal.SIGKILL, LET_DIE_S)):
        pids = [pid for name in left for pid in controllers(name, logs)]
        if number == signal.SIGKILL:
            pids += [task for pid in pids for task in _children(pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while (left := [name for name in left if controllers(name, logs)]) and time.monotonic() < deadline:
            time.sleep(0.05)
