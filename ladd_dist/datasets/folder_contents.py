"""The contents of a folder's files: a fingerprint of all, and which pictures are copies. Noted in the user's cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import UserError, unreadable
from ladd_dist.core.rundir import write_json
from ladd_dist.datasets.folder_listing import File, Listing, list_pictures

_READERS = 8
_AT_ONCE = 1_000
_COPIES = b"copies-1\n"
"""Hashed too where pictures have copies, which lie on one side of the split; older versions looked at names alone."""
_RACE_S = 2.0
"""Seconds since the last change from which on times tell a change, on any file system."""


@dataclass(frozen=True)
class Contents:
    """What the files of a folder hold."""

    fingerprint: str
    """Sixteen hexadecimal digits of the names and contents of all files that count; empty without any."""
    copies: tuple[tuple[int, ...], ...] = ()
    """Pictures with the same bytes, by their places in `Listing.pictures`."""


@dataclass(frozen=True)
class _Note:
    """What a user's cache notes of a folder."""

    root: str
    stamp: str
    contents: Contents


@functools.lru_cache(maxsize=4)
def listing_of(root: Path) -> Listing:
    """The files below a root; a process looks once."""
    return list_pictures(root)


@functools.lru_cache(maxsize=4)
def contents(root: Path) -> Contents:
    """The contents of the files below a root, an absolute path without links.

    They are read again if a name, a size or a time has changed since the user's cache noted the result.

    Raises:
        UserError: there is no such folder. MachineError: a file cannot be read now.
    """
    listing = listing_of(root)
    if not any(listing):
        return Contents("")
    stamp, note = listing.stamp(), _note(root)
    with contextlib.suppress(UserError, OSError):  # also of an older version
        known = read_typed(note, _Note)
        places = [place for group in known.contents.copies for place in group]
        sound = all(0 <= place < len(listing.pictures) for place in places) and len(known.contents.fingerprint) == 16
        if known.stamp == stamp and sound:
            return known.contents
    found, newest = _read(root, listing)
    if time.time() - newest > _RACE_S:
        with contextlib.suppress(UserError, OSError):
            write_json(note, asdict(_Note(ascii(str(root)), stamp, found)))
    return found


def _read(root: Path, listing: Listing) -> tuple[Contents, float]:
    """The contents, and the time of the newest change in seconds."""
    total, newest = hashlib.sha256(), 0.0
    places, marks_of = array("q"), array("Q")
    files = enumerate(listing.all())  # pictures first
    with ThreadPoolExecutor(_READERS) as pool:
        while some := list(itertools.islice(files, _AT_ONCE)):
            marks = pool.map(lambda numbered: _content(root, numbered[1]), some)
            for (place, file), mark in zip(some, marks, strict=True):
                total.update(os.fsencode(file.name) + f"\0{mark}\n".encode())
                newest = max(newest, (file.changed >> 64) / 1e9, (file.changed % 2**64) / 1e9)
                if place < len(listing.pictures) and file.size and not file.problem:
                    places.append(place)
                    marks_of.append(int(mark[:16], 16))
    copies = _groups(places, marks_of)
    if copies:
        total.update(_COPIES)
    return Contents(total.hexdigest()[:16], copies), newest


def _groups(places: Sequence[int], marks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The places with one mark, of each mark that several have."""
    _, which, counts = np.unique(np.asarray(marks, np.uint64), return_inverse=True, return_counts=True)
    groups = dict[int, list[int]]()
    for row in np.flatnonzero(counts[which] > 1).tolist():
        groups.setdefault(int(which[row]), []).append(places[row])
    return tuple(map(tuple, groups.values()))


def _content(root: Path, file: File) -> str:
    if file.problem:
        return file.problem
    try:
        with (root / file.name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(root / file.name, error) from error


def _note(root: Path) -> Path:
    """Where this user's cache notes the contents of a folder."""
    home = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return Path(home).expanduser() / "ladd_dist" / "folders" / f"{name}.json"
