"""Reader of `metrics.jsonl` that copes with what a killed run left; for trackers, report and comparison."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from ladd_dist.core.door import MOST_INTEGER, require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.units import si

Row = dict[str, float]
"""One logged step: `step` and the figures; a figure that is written as null is NaN here."""
MOST_ROWS = 50_000
"""Lines of a longer file that a page reads, evenly spread: no run logs so many, and they take a few hundred MB."""
MOST_LOG = 8 * 10**9
"""Bytes of the longest file that is read: ten million lines of many figures."""
LONGEST_LINE = 2**20
"""Bytes of a line that is read."""
MOST_STEPS = 2.0**53

_SOUND = msgspec.json.Decoder(dict[str, int | float])
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def read_rows(path: Path, at_most: int | None = None) -> tuple[list[Row], int]:
    """Rows of the log in order of steps, and the number of broken lines. The last row of a step counts.

    A resumed run logs a step twice. A killed run leaves a half-written last line, which does not count as broken. A
    missing file has no rows.

    Args:
        at_most: read about this many lines of a longer file, evenly spread: enough for a curve.

    Raises:
        UserError: it is a folder, a pipe or a device, or larger than `MOST_LOG`.
    """
    if not path.exists():
        return [], 0
    if (size := require_regular(path)) > MOST_LOG:
        raise UserError(f"{path} has {si(size, 'B')}, and at most {si(MOST_LOG, 'B')} of a log are read: move it away")
    every = 1 if at_most is None else max(1, -(-_count_lines(path) // at_most))
    rows: dict[float, Row] = {}
    broken, last_is_broken = 0, False
    with path.open("rb") as stream:
        for index, line in enumerate(_lines(stream)):
            last_is_broken = False
            if index % every or not line.strip():
                continue
            if row := parse_row(line):
                rows[row["step"]] = row
            else:
                broken, last_is_broken = broken + 1, True
    return [rows[step] for step in sorted(rows)], broken - last_is_broken


def parse_row(line: bytes) -> Row | None:
    """The row in a line; None where it is broken. What is no number is left out.

    The steps of a sound row are a number of 0 or more. NaN and infinities are read, because a training that diverges
    logs them.
    """
    try:
        row: Row | None = _SOUND.decode(line) if not _LONG_NUMBER.search(line) else _parse_odd(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        row = _parse_odd(line)
    step = row.get("step") if row else None
    return row if step is not None and 0 <= step <= MOST_STEPS else None


def _parse_odd(line: bytes) -> Row | None:
    try:
        found: object = json.loads(line)
        "".join(found if isinstance(found, dict) else ()).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    figures = {key: math.nan if value is None else value for key, value in found.items()}
    return {
        key: value
        for key, value in figures.items()
        if isinstance(value, float) or (type(value) is int and abs(value) <= MOST_INTEGER)
    }


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines; of one that is too long, only its beginning, which is no JSON."""
    while line := stream.readline(LONGEST_LINE):
        rest = line
        while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE)
        yield line


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return 1 + sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(LONGEST_LINE), b""))
