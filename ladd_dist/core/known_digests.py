"""The sha256 of large files, computed once a start: by this process, or by another rank that tells it.

Nothing of it stays on the disk: a bit that flips between two starts would be believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """A file as it was when it was read."""

    path: str
    bytes: int
    changed_ns: int


_known: dict[Stamp, str] = {}


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, which is read unless it is known and has its size and time of change still."""
    stamp = _stamp(path)
    if stamp not in _known:
        with path.open("rb") as stream:
            _known[stamp] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _known[stamp]


def read_digests(paths: Iterable[Path]) -> dict[Stamp, str]:
    """The digests of files, for ranks that are to `believe` them."""
    return {_stamp(path): sha256_of(path) for path in paths}


def believe(found: dict[Stamp, str]) -> None:
    """Take digests that another rank has read; a file of another size or time of change here is read all the same."""
    _known.update(found)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(str(path), status.st_size, status.st_mtime_ns)
