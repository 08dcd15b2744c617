"""Fingerprint of a folder of files, for a data set that reads them: a changed folder is another data set."""

from __future__ import annotations

import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_READERS = 8


def folder_fingerprint(folder: str | Path, pattern: str = "**/*", *, contents: bool = True) -> str:
    """Sixteen hexadecimal digits of names, sizes and contents of the files below a folder; empty without any.

    The folder may be moved or copied: paths count from the folder on, times do not count. Files whose name begins with
    a dot are left out. A process reads each folder once, so that a run keeps its signature while it trains.

    Args:
        pattern: which files count, like `**/*.png`.
        contents: whether to read the files, about a second for a gigabyte that was read before; False takes the time
            of the last change in place of the content, for folders that are too large. Copies then differ.
    """
    return _fingerprint(str(Path(folder).expanduser().resolve()), pattern, contents)


@functools.cache
def _fingerprint(folder: str, pattern: str, contents: bool) -> str:
    root = Path(folder)
    files = sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("."))
    if not files:
        return ""
    with ThreadPoolExecutor(_READERS) as pool:
        marks = list(pool.map(_content if contents else _time, files))
    total = hashlib.sha256()
    for path, mark in zip(files, marks, strict=True):
        total.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0{mark}\n".encode())
    return total.hexdigest()[:16]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _time(path: Path) -> str:
    return str(path.stat().st_mtime_ns)
