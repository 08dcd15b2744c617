"""What lies in a folder of pictures, by names alone; nothing is opened.

Left out without a word: names that begin with a dot, what systems put beside pictures (`Thumbs.db`, `desktop.ini`,
`__MACOSX`, `@eaDir`), and files whose names are those of no picture. What looks like a picture and is none that can be
read (a pipe, a broken link, a format that is not read) stays in the list, with the reason.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.errors import UserError, is_of_the_file, unreadable
from ladd_dist.core.picture_file import OTHER_SUFFIXES, SUFFIXES

METADATA = "metadata.jsonl"
TEXT_SUFFIX = ".txt"
MOST_ENTRIES = 20_000_000
"""Most files and folders below a root: with more it is no folder of pictures."""
_EFFECTIVE = os.access in os.supports_effective_ids
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})


class File(NamedTuple):
    """A file below the root."""

    name: str
    """Path from the root on, with slashes."""
    size: int = 0
    changed: int = 0
    """Time in nanoseconds of the last change of anything about it, which no program can set; and times 2^64 that of its
    content, which some file systems know alone."""
    problem: str = ""
    """Why it is no picture, or no text, that can be read; empty if it may be one."""


class Listing(NamedTuple):
    """The files below a root that count, each list in the order of the names' bytes."""

    pictures: list[File]
    texts: list[File]
    """Files that may hold a caption."""
    metadata: list[File]

    def all(self) -> Iterator[File]:
        """Every file that counts."""
        yield from (*self.pictures, *self.texts, *self.metadata)

    def stamp(self) -> str:
        """Sixteen hexadecimal digits of names, sizes and times: as long as they stay, the contents do."""
        total = hashlib.sha256()
        for file in self.all():
            total.update(os.fsencode(file.name) + f"\0{file.size}\0{file.changed}\0{file.problem}\n".encode())
        return total.hexdigest()[:16]


def list_pictures(root: Path) -> Listing:
    """List a folder and the folders below it. Each folder is read once, however many links lead to it.

    Raises:
        UserError: the root is missing or no folder, or there are more than `MOST_ENTRIES` below it.
        MachineError: the disk, the network or a limit of the machine failed.
    """
    try:
        status = root.stat()
    except (OSError, ValueError) as error:  # missing, a circle of links, too long, a NUL
        if isinstance(error, OSError) and not is_of_the_file(error):
            raise unreadable(root, error) from error
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"dataset.root {str(root)!r} cannot be opened ({reason}); name a folder of pictures") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UserError(f"dataset.root {str(root)!r} is no folder; name the folder that the pictures are in")
    found, count = Listing([], [], []), 0
    seen, waiting = {(status.st_dev, status.st_ino): "."}, [""]
    while waiting:
        folder = waiting.pop()
        below = list[str]()
        try:
            with os.scandir(root / folder) as entries:
                ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not is_of_the_file(error):
                raise unreadable(root / folder, error) from error
            if not folder:
                raise UserError(f"dataset.root {str(root)!r} cannot be read ({error.strerror})") from error
            found.pictures.append(File(folder, problem=f"the folder cannot be read ({error.strerror})"))
            continue
        count += len(ordered)
        if count > MOST_ENTRIES:
            raise UserError(f"dataset.root {str(root)!r} holds more than {MOST_ENTRIES:,} files; name a part of it")
        for entry in ordered:
            if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER:
                _enter(entry, folder, found, seen, below)
        waiting += reversed(below)
    for files in found:
        files.sort(key=lambda file: os.fsencode(file.name))
    return found


def _enter(
    entry: os.DirEntry[str], folder: str, found: Listing, seen: dict[tuple[int, int], str], below: list[str]
) -> None:
    name = f"{folder}/{entry.name}" if folder else entry.name
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  # a hundred thousand of them
    try:
        status = entry.stat()
    except OSError as error:
        if not is_of_the_file(error):
            raise unreadable(Path(entry.path), error) from error
        found.pictures.append(File(name, problem=f"it is a link to nothing, or cannot be read ({error.strerror})"))
        return
    if stat.S_ISDIR(status.st_mode):
        other = seen.setdefault((status.st_dev, status.st_ino), name)
        if other == name:
            below.append(name)
        else:
            found.pictures.append(File(name, problem=f"it is the folder {other!r} again, by a link"))
        return
    problem = "" if stat.S_ISREG(status.st_mode) else "it is a pipe, a socket or a device, not a file"
    if not problem and not os.access(entry.path, os.R_OK, effective_ids=_EFFECTIVE):
        problem = os.strerror(errno.EACCES)
    file = File(name, status.st_size, (status.st_mtime_ns << 64) + status.st_ctime_ns, problem)
    if entry.name == METADATA:
        found.metadata.append(file)
    elif suffix in SUFFIXES:
        found.pictures.append(file)
    elif suffix in OTHER_SUFFIXES:
        found.pictures.append(file._replace(problem=f"{suffix} is not read; convert it to PNG, JPEG or WebP"))
    elif suffix == TEXT_SUFFIX:
        found.texts.append(file)
