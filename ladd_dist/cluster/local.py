"""Jobs of submitit's local executor: processes of this machine. A job's id is the process number of its controller."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

SIGNS_OF_LOCAL = "submitit.local._local"
LET_SAVE_S, LET_DIE_S = 10.0, 5.0


def controllers(name: str, logs: Path) -> list[psutil.Process]:
    """The processes that control a local job: its own, or with set-up lines the child of a shell."""
    if not name.isdigit():
        return []
    try:
        process = psutil.Process(int(name))
        own = [process, *process.children()]
    except psutil.Error:
        return []
    return [process for process in own if _is_controller(process, logs)]


def _is_controller(process: psutil.Process, logs: Path) -> bool:
    """Whether a process controls a job that logs into `logs`: process numbers are given out anew, too."""
    try:
        with process.oneshot():
            words, here = process.cmdline(), Path(process.cwd())
            if process.status() == psutil.STATUS_ZOMBIE or SIGNS_OF_LOCAL not in words:
                return False
        return bool((here / words[words.index(SIGNS_OF_LOCAL) + 1]).resolve() == logs.resolve())
    except (psutil.Error, OSError, IndexError):
        return False


def end_local(names: Iterable[str], logs: Path) -> None:
    """End local jobs, all at once: SIGTERM, which lets them save, then submitit's own way, then by force.

    SIGINT, which is submitit's way, is ignored by what a shell's script has started in the background.
    """
    left = list(names)
    for number, seconds in ((signal.SIGTERM, LET_SAVE_S), (signal.SIGINT, LET_DIE_S), (signal.SIGKILL, LET_DIE_S)):
        for process in [process for name in left for process in controllers(name, logs)]:
            with contextlib.suppress(psutil.Error):
                tasks = process.children() if number == signal.SIGKILL else []
                for one in (process, *tasks):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.send_signal(number)
        deadline = time.monotonic() + seconds
        while (left := [name for name in left if controllers(name, logs)]) and time.monotonic() < deadline:
            time.sleep(0.05)
