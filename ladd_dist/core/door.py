"""The door for files that come from outside: what is read is a regular file, of a bounded size and of a known form.

A fifo would be waited for without end, a device has no end, and a file that claims gigabytes would take them.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ladd_dist.core.errors import UserError, is_of_the_file, unreadable
from ladd_dist.core.units import si

T = TypeVar("T")

MOST_BYTES = 256 * 2**20
"""Bytes of the largest JSON file that is read. The largest that this package writes are indices of some megabytes."""
MOST_INTEGER = 2**63 - 1
"""The largest whole number that is read, in absolute value: a longer one is no count, and no float can hold it."""
MOST_DEPTH = 100
"""Levels of lists and objects that are read: what walks the content then needs no guard against its depth."""
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
DAMAGED = "delete it and run the same command again"


def require_regular(path: Path) -> int:
    """The size in bytes of a regular file, which may stand behind a symbolic link.

    Raises:
        UserError: it is missing, or a folder, a pipe, a socket or a device; nothing was opened.
        MachineError: the disk or the network failed.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (OSError, ValueError) as error:  # too long a name, a circle of links, a NUL in the name
        if isinstance(error, OSError) and not is_of_the_file(error):
            raise unreadable(path, error) from error
        raise UserError(f"{str(path)!r} cannot be opened ({getattr(error, 'strerror', error)})") from error
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is {_name_of(found.st_mode)}, not a regular file; copy its content into one")
    return found.st_size


def _name_of(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_one, name in kinds.items() if is_one(mode)), "a device")


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        UserError: it is missing, no regular file, or larger. OSError: no permission, or the disk failed.
    """
    size = require_regular(path)
    if size > most:
        raise UserError(
            f"{path} has {si(size, 'B')}, and at most {si(most, 'B')} of such a file are read: is it another file?"
        )
    with path.open("rb") as stream:
        return stream.read(most)


def read_listed(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The content of a file that a listing has as a regular one that may be read.

    Raises:
        MachineError: it cannot be read now, or is gone. UserError: it is larger than `most`, or another kind of file.
    """
    try:
        return read_bytes(path, most=most)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError):
            raise unreadable(path, cause) from error
        raise


def decode(content: bytes | str, form: type[T], what: str, remedy: str = DAMAGED) -> T:
    """JSON as a value of a type: a dataclass, NamedTuple, TypedDict, or a mapping or list of these.

    Keys that the type does not know are left out, because a later version may have written them.

    Args:
        form: the type; `Any` accepts every JSON.
        what: the file or its part, which begins the message.
        remedy: what to do about damage, which ends the message.

    Raises:
        UserError: no JSON, no UTF-8, nested too deeply, another type somewhere (the message says where), or a number
            that is no finite double or has more than 63 bits.
    """
    try:
        value = msgspec.json.decode(content, type=form)
        raw = content.encode() if isinstance(content, str) else content
        if _LONG_NUMBER.search(raw) or _may_be_deep(raw):
            _require_sizes(value)
    except msgspec.ValidationError as error:
        raise UserError(f"{what} does not have the expected form ({error}); {remedy}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # the first is a ValueError from msgspec 0.21 on
        raise UserError(f"{what} is not valid JSON ({error}); {remedy}") from error
    return value


def read_typed(path: Path, form: type[T], remedy: str = DAMAGED) -> T:
    """A JSON file as a value of a type (`decode`).

    Raises:
        UserError: as `read_bytes` and `decode` raise; the message names the file.
    """
    return decode(read_bytes(path), form, str(path), remedy)


def fit(value: Any, form: type[T], what: str, remedy: str = DAMAGED) -> T:
    """A value that JSON was read into, as a value of a type, like `decode`.

    Raises:
        UserError: another type somewhere; the message says where.
    """
    try:
        return msgspec.convert(value, form)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UserError(f"{what} does not have the expected form ({error}); {remedy}") from error


def _may_be_deep(content: bytes) -> bool:
    """Whether brackets, those in texts too, leave it open that the content is nested too deeply."""
    brackets = content.translate(None, _NO_BRACKETS)
    for _ in range(MOST_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


def _require_sizes(value: Any) -> None:
    waiting = [(msgspec.to_builtins(value), 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise ValueError(f"nested more than {MOST_DEPTH} levels deep")
        if isinstance(item, dict):
            waiting.extend((part, depth + 1) for part in item.values())
        elif isinstance(item, list | tuple):
            waiting.extend((part, depth + 1) for part in item)
        elif type(item) is int and abs(item) > MOST_INTEGER:
            raise ValueError(f"a number of {len(str(abs(item)))} digits")
