"""The members of a tar file from outside: every one of them or an error, whatever its bytes are.

`tarfile`, and with it `webdataset`, takes a damaged header for the end of the archive: one flipped bit loses what
stands behind it without an error. Declared sizes are compared with a limit before anything is read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import ShardError
from ladd_dist.core.tar_stream import PIECE, Stream, TarStream
from ladd_dist.core.units import si

MOST_ZEROS = 2**20
"""Bytes of zeros that may end a shard. Programs write 1 to 20 kB of them; more are pages that were never written."""
_EXTENSION_BYTES = 2**16
_MOST_DIGITS = 19
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENSIONS = (*_LONG_NAMES, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)


class Member(NamedTuple):
    """One file of a tar file."""

    name: str
    content: bytes
    offset: int  # of its header, in bytes


class _Extension(NamedTuple):
    """What a header says about the member behind it, where the member's own header has no room for it."""

    name: str | None = None
    size: int | None = None


def read_members(path: Path, most: int) -> Iterator[Member]:
    """The files in a tar file, as `read_stream` gives those of a stream.

    Raises:
        ShardError: as there. UserError: no regular file. OSError: no permission, or the disk failed.
    """
    size = require_regular(path)
    with path.open("rb") as stream:
        yield from read_stream(stream, str(path), most, size=size)


def read_stream(
    stream: Stream, name: str, most: int, *, size: int | None = None, raise_it: str = "--shards.most-member-bytes"
) -> Iterator[Member]:
    """The files in a tar file, in order, one in memory at a time; also compressed by gzip, bzip2 or xz.

    Headers have checksums and compressed streams too, and all of them are compared. The content of a member in a tar
    file that is not compressed has none: a flipped bit there is not seen.

    Args:
        stream: need not be able to go back.
        name: for messages.
        most: bytes of the largest member that is read.
        size: bytes of the whole stream, if they are known.
        raise_it: what to do about a larger member, for its message.

    Raises:
        ShardError: a header or the compressed stream is damaged, the file ends early or goes on behind its end, a
            member is larger, sparse, or a link. OSError and UserError: as the stream raises them.
    """
    source = TarStream(stream, name, most, size, raise_it)
    extension = _Extension()
    while any(block := source.take(tarfile.BLOCKSIZE)):
        at = source.offset - len(block)
        header = _header(source, block, at)
        extends = header.type in _EXTENSIONS
        size = header.size if extends or extension.size is None else extension.size
        _require_readable(source, header, size, _EXTENSION_BYTES if extends else most, at)
        if extends:
            extension = _extended(source, header, extension, source.take_whole(size, at), at)
        elif header.type == tarfile.DIRTYPE:
            extension = _Extension()
        else:
            yield Member(extension.name or header.name, source.take_whole(size, at), at)
            extension = _Extension()
    if extension != _Extension():
        source.refuse("is truncated or no tar file", "a member is missing behind its extended header")
    _require_end(source, len(block))


def _header(source: TarStream, block: bytes, at: int) -> tarfile.TarInfo:
    if len(block) < tarfile.BLOCKSIZE:
        source.refuse("is truncated or no tar file", "it ends within a header, or has none", at)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        problem = "is damaged" if at else "is truncated or no tar file"
        source.refuse(problem, f"no valid header: {error}", at)


def _require_readable(source: TarStream, header: tarfile.TarInfo, size: int, most: int, at: int) -> None:
    """Refuse a member by its header alone."""
    name = repr(header.name[:80])
    if header.type == tarfile.GNUTYPE_SPARSE:
        source.refuse("has a sparse member", f"{name}; build it without --sparse", at)
    if header.type not in (*_FILES, *_EXTENSIONS, tarfile.DIRTYPE):
        source.refuse("has a member that is no file", f"{name}, a link or a device; build it with --dereference", at)
    if size < 0:
        source.refuse("is damaged", f"{name} has a size below zero", at)
    if size > most:
        source.refuse(
            "has too large a member",
            f"{name} has {si(size, 'B')}, at most {si(most, 'B')} are read: {source.raise_it}",
            at,
        )


def _extended(source: TarStream, header: tarfile.TarInfo, before: _Extension, content: bytes, at: int) -> _Extension:
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return before._replace(name=content.rstrip(b"\0").decode("utf-8", "surrogateescape"))
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return before
    try:
        records = _pax_records(content)
        if any(key.startswith(b"GNU.sparse") for key in records):
            source.refuse("has a sparse member", "build it without --sparse", at)
        if header.type == tarfile.XGLTYPE and records.keys() & {b"path", b"size"}:
            raise ValueError("it names or sizes every member alike")
        if b"path" in records:
            before = before._replace(name=records[b"path"].decode("utf-8", "surrogateescape"))
        if b"size" in records:
            if len(records[b"size"]) > _MOST_DIGITS:
                raise ValueError("a size of too many digits")
            before = before._replace(size=int(records[b"size"]))
    except ShardError:
        raise
    except ValueError as error:
        source.refuse("is damaged", f"no valid extended header: {error}", at)
    return before


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """The records `LENGTH KEY=VALUE\\n` of an extended header (POSIX.1-2001, pax).

    Raises:
        ValueError: they are damaged.
    """
    records, at = dict[bytes, bytes](), 0
    while at < len(content):
        space = content.find(b" ", at, at + 20)
        end = at + (int(content[at:space]) if space > at else 0)
        key, equals, value = content[space + 1 : end].partition(b"=")
        if not space < end <= len(content) or not equals or not value.endswith(b"\n"):
            raise ValueError("a record of it is damaged")
        records[key] = value[:-1]
        at = end
    return records


def _require_end(source: TarStream, seen: int) -> None:
    """Refuse an archive that goes on behind its first block of zeros, or has less than two."""
    begin = source.offset - seen
    while piece := source.take(PIECE):
        rest = piece.lstrip(b"\0")
        if rest:
            at = source.offset - len(rest)
            source.refuse("is damaged", f"it goes on behind its end, which is at byte {begin:,}", at)
        seen += len(piece)
        if seen > MOST_ZEROS:
            source.refuse("is damaged", "zeros alone from there on, as in a copy that was never finished", begin)
    if seen < 2 * tarfile.BLOCKSIZE:
        source.refuse("is truncated or no tar file", "the blocks of zeros at its end are missing", begin)
