"""What is known of picture shards, noted in the user's own cache: hashes of local files, and captions."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.door import read_typed, require_regular
from ladd_dist.core.errors import UserError, is_of_the_file, unreadable
from ladd_dist.core.rundir import exclusive, write_json
from ladd_dist.datasets.shard_urls import is_remote

_READERS = 4
_RACE_S = 2.0
"""Seconds since the last change from which on times tell a change, on any file system."""


class Fingerprint(NamedTuple):
    """What a process found when it looked at shards."""

    stamp: str
    content: str
    """Sixteen hexadecimal digits."""


@functools.lru_cache(maxsize=4)
def content_fingerprint(shards: tuple[str, ...]) -> Fingerprint:
    """Hash of the shards in their order: of the contents of files, and the texts of commands and addresses.

    Files are read again if a size or a time has changed since the result was noted; a process looks once, so that a
    run keeps its data while it trains.

    Raises:
        UserError: a shard is no regular file, or may not be read. MachineError: it cannot be read now.
    """
    files = [Path(shard).resolve() for shard in shards if not is_remote(shard)]
    stamp = stamp_of(shards)
    note = _folder() / f"{_hash(str(file) for file in files)}.json"
    with contextlib.suppress(UserError, OSError):
        known = read_typed(note, dict[str, str])
        if known.get("stamp") == stamp and len(known.get("content", "")) == 16:
            return Fingerprint(stamp, known["content"])
    with ThreadPoolExecutor(_READERS) as pool:
        sums = iter(list(pool.map(_sha256, files)))
    content = _hash(shard if is_remote(shard) else next(sums) for shard in shards)
    if files and time.time() - max(_status(file).st_mtime for file in files) > _RACE_S:
        with contextlib.suppress(OSError):
            write_json(note, {"stamp": stamp, "content": content})
    return Fingerprint(stamp, content)


def stamp_of(shards: Iterable[str]) -> str:
    """Hash of the shards' names, and of sizes and times of files: as long as it stays, the contents do."""
    return _hash(shard if is_remote(shard) else _stamp(Path(shard).resolve()) for shard in shards)


def noted_texts(identity: str, read: Callable[[], Iterable[str]]) -> tuple[str, ...]:
    """The distinct texts that `read` gives, in order; read once for each identity, while other processes wait.

    Raises:
        UserError: the note is damaged, or as `read` raises.
    """
    note = _folder() / f"texts-{identity}.json"
    if not note.exists():
        with exclusive(note):
            if not note.exists():
                write_json(note, sorted(set(read())))
    return _texts(note)


@functools.lru_cache(maxsize=4)
def _texts(note: Path) -> tuple[str, ...]:
    return tuple(read_typed(note, list[str]))


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    return Path(home).expanduser() / "ladd_dist" / "picture_shards"


def _stamp(path: Path) -> str:
    found = _status(path)
    return f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}"


def _sha256(path: Path) -> str:
    require_regular(path)
    with _reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _status(path: Path) -> os.stat_result:
    with _reading(path):
        return path.stat()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_of_the_file(error):
            raise UserError(f"dataset.urls: shard {path} cannot be read ({error.strerror})") from error
        raise unreadable(path, error) from error


def _hash(parts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()[:16]
