"""The members of a tar file from outside: every one of them or an error, whatever its bytes are.

`tarfile`, and with it `webdataset`, takes a damaged header for the end of the archive: one flipped bit loses what
stands behind it without an error. Declared sizes are compared with a limit before anything is read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import ShardError
from ladd_dist.core.units import si

MOST_RATIO = 200
"""Bytes that one byte of a compressed shard may become, on average. Samples of real data become ten at most."""
MOST_ZEROS = 2**20
"""Bytes of zeros that may end a shard. Programs write 1 to 20 kB of them; more are pages that were never written."""
_PIECE = 2**18
_EXTENSION_BYTES = 2**16
_XZ_BYTES = 2**28
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
    """The files in a tar file, in order, one in memory at a time; also compressed by gzip, bzip2 or xz.

    Headers have checksums and compressed streams too, and all of them are compared. The content of a member in a tar
    file that is not compressed has none: a flipped bit there is not seen.

    Args:
        most: bytes of the largest member that is read.

    Raises:
        ShardError: a header or the compressed stream is damaged, the file ends early or goes on behind its end, a
            member is larger, sparse, or a link. UserError: no regular file. OSError: no permission, or the disk failed.
    """
    source = _Source(path, most)
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


def _header(source: _Source, block: bytes, at: int) -> tarfile.TarInfo:
    if len(block) < tarfile.BLOCKSIZE:
        source.refuse("is truncated or no tar file", "it ends within a header, or has none", at)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        problem = "is damaged" if at else "is truncated or no tar file"
        source.refuse(problem, f"no valid header: {error}", at)


def _require_readable(source: _Source, header: tarfile.TarInfo, size: int, most: int, at: int) -> None:
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
            f"{name} has {si(size, 'B')}, at most {si(most, 'B')} are read: --shards.most-member-bytes",
            at,
        )


def _extended(source: _Source, header: tarfile.TarInfo, before: _Extension, content: bytes, at: int) -> _Extension:
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


def _require_end(source: _Source, seen: int) -> None:
    """Refuse an archive that goes on behind its first block of zeros, or has less than two."""
    begin = source.offset - seen
    while piece := source.take(_PIECE):
        rest = piece.lstrip(b"\0")
        if rest:
            at = source.offset - len(rest)
            source.refuse("is damaged", f"it goes on behind its end, which is at byte {begin:,}", at)
        seen += len(piece)
        if seen > MOST_ZEROS:
            source.refuse("is damaged", "zeros alone from there on, as in a copy that was never finished", begin)
    if seen < 2 * tarfile.BLOCKSIZE:
        source.refuse("is truncated or no tar file", "the blocks of zeros at its end are missing", begin)


class _Source:
    """The unpacked bytes of a file, read forwards, with a limit on how many they become."""

    def __init__(self, path: Path, most: int) -> None:
        """Open the file.

        Raises:
            UserError: no regular file.
        """
        self.path, self.offset = path, 0
        self._most = most + MOST_RATIO * require_regular(path)
        stream = path.open("rb")
        packing = _packing(stream.read(6))
        stream.seek(0)
        self._of = f" of its unpacked {packing} stream" if packing else ""
        self._pieces = _unpacked(stream, packing)
        self._held = b""
        self._at = 0  # of the next byte in `_held`

    def take(self, num: int) -> bytes:
        """The next bytes, `num` or, at the end, fewer; no more memory is taken than there are bytes.

        Raises:
            ShardError: the compressed stream is damaged, or becomes too many bytes.
        """
        taken = self._held[self._at : self._at + num]
        self._at += len(taken)
        if len(taken) < num:
            parts, lack = [taken], num - len(taken)
            while lack and (piece := self._next()):
                parts.append(piece[:lack])
                self._held, self._at = piece, len(parts[-1])
                lack -= len(parts[-1])
            taken = b"".join(parts)
        self.offset += len(taken)
        if self.offset > self._most:
            self.refuse(
                "becomes too large",
                f"it unpacks to more than {MOST_RATIO} times its size; unpack it yourself if it is sound",
            )
        return taken

    def take_whole(self, size: int, at: int) -> bytes:
        """The content of a member whose header is at byte `at`, without the zeros that fill its last block.

        Raises:
            ShardError: the file ends before, or as `take`.
        """
        content = self.take(size)
        filled = size + len(self.take(-size % tarfile.BLOCKSIZE)) if len(content) == size else len(content)
        if filled < size or filled % tarfile.BLOCKSIZE:
            why = f"the member of {si(size, 'B')} whose header is at byte {at:,} is not whole"
            self.refuse("is truncated or no tar file", why)
        return content

    def refuse(self, problem: str, why: str, at: int | None = None) -> NoReturn:
        """Raise a ShardError about a byte; None: the one that would be read next."""
        place = f"at byte {self.offset if at is None else at:,}{self._of}"
        raise ShardError(f"shard {self.path} {problem} ({place}: {why}); fetch or build it again")

    def _next(self) -> bytes:
        try:
            return next(self._pieces, b"")
        except (EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            self._refuse_stream(error)
        except OSError as error:
            if error.errno is not None:  # the disk's
                raise
            self._refuse_stream(error)

    def _refuse_stream(self, error: Exception) -> NoReturn:
        self.refuse("is damaged or truncated", f"its compressed stream: {error}")


def _packing(magic: bytes) -> str:
    """How a file is compressed, by its first six bytes; empty: not in a way that is known here."""
    begins = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ", "zstd": b"\x28\xb5\x2f\xfd"}
    return next((name for name, begin in begins.items() if magic.startswith(begin)), "")


def _unpacked(stream: BinaryIO, packing: str) -> Iterator[bytes]:
    """The unpacked bytes of a file, in pieces that are not empty; the file is closed behind the last."""
    with stream:
        if packing == "gzip":
            with gzip.GzipFile(fileobj=stream) as unpacked:  # compares sums and lengths, and refuses what is no stream
                yield from iter(partial(unpacked.read, _PIECE), b"")
        elif packing == "bzip2":
            yield from filter(None, _streams(stream, bz2.BZ2Decompressor))
        elif packing == "xz":
            new = partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=_XZ_BYTES)
            yield from filter(None, _streams(stream, new))
        elif packing:
            raise ValueError("zstd is not read; unpack it (unzstd)")
        else:
            yield from iter(partial(stream.read, _PIECE), b"")


def _streams(
    stream: BinaryIO, new: Callable[[], bz2.BZ2Decompressor] | Callable[[], lzma.LZMADecompressor]
) -> Iterator[bytes]:
    """What one or several streams behind each other unpack to; `BZ2File` and `LZMAFile` ignore what is no stream.

    Raises:
        OSError, lzma.LZMAError: no such stream. EOFError: the last one is not whole.
    """
    decoder, packed = new(), b""
    while True:
        if decoder.eof:
            packed = decoder.unused_data or stream.read(_PIECE)
            if not packed:
                return
            decoder = new()
        elif decoder.needs_input and not (packed := stream.read(_PIECE)):
            raise EOFError("it ends early")
        yield decoder.decompress(packed, _PIECE)
        packed = b""
