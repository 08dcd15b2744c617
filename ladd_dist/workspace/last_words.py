"""The end of a job's log: the line that tells how the job ended, among those that SLURM and Python add to it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import UserError

TAIL_BYTES = 32_768
ERROR = re.compile(r"^(?:rank \d+: )?(error: .+|(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Stopped|LostRank): .+)$")
WORSE = re.compile(
    r"^(?:slurmstepd|srun)(?:-\w+)?: error: .+|.*\b(?:Killed|oom-kill|Segmentation fault)\b.*", re.IGNORECASE
)
HARD = re.compile(r".*\b(?:oom-kill|Out Of Memory|Segmentation fault)\b.*", re.IGNORECASE)
"""Last words about a process that could say nothing itself."""
CANCELLED = re.compile(
    r"^slurmstepd(?:-\S+)?: error: (\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO PREEMPTION)? \*\*\*)$"
)
TOLD = re.compile(r"KeyboardInterrupt|.*what is finished is saved|.*waiting for the scheduler$")
"""The last words of a process that was told to end, which is no failure."""


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The end of a text file, beginning with a whole line; empty where there is none."""
    try:
        require_regular(path)  # a pipe would be waited for
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            file.seek(max(0, length - size))
            content = file.read(size)
    except (OSError, UserError):
        return ""
    if length > size:
        content = content.partition(b"\n")[2]
    return content.decode(errors="replace")


def last_error(paths: list[Path]) -> tuple[str, Path] | None:
    """The last line that tells of an error, and its file; of several files, the first that has a cause.

    What SLURM says of a process that was told to end (`srun: error: n1: task 0: Terminated`) is no cause: the process's
    own words come first, else that the job was cancelled.
    """
    found: list[tuple[int, str, Path]] = []
    for path in paths:
        lines = [line.strip() for line in tail(path).splitlines() if line.strip()]
        if lines:
            found.append((*_last_words(lines), path))
    if not found:
        return None
    _, line, path = min(found, key=lambda item: item[0])
    return line, path


def _last_words(lines: list[str]) -> tuple[int, str]:
    """The line of a log that tells most of its end, and its rank: 0 a cause, 4 mere words."""

    def last(pattern: re.Pattern[str]) -> int:
        return next((place for place in reversed(range(len(lines))) if pattern.match(lines[place])), -1)

    cause, hard, told, cancelled, worse = map(last, (ERROR, HARD, TOLD, CANCELLED, WORSE))
    if cause >= 0:
        return 0, lines[cause]
    if hard > max(told, cancelled):
        return 1, lines[hard]
    if told >= 0:
        return 2, lines[told]
    match = CANCELLED.match(lines[cancelled]) if cancelled >= 0 else None
    if match:
        return 2, f"cancelled: {match[1]}"
    return (3, lines[worse]) if worse >= 0 else (4, lines[-1])


def is_failure(line: str) -> bool:
    """Whether last words tell of a failure, in a job of which nobody knows how it ended."""
    return not TOLD.match(line) and bool(ERROR.match(line) or WORSE.match(line))
