"""The bytes of a tar file from outside, unpacked where it is compressed: read forwards, bounded, each sum compared."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, NoReturn, Protocol, cast

from ladd_dist.core.errors import ShardError, UserError
from ladd_dist.core.units import si

MOST_RATIO = 200
"""Bytes that one byte of a compressed shard may become, on average. Samples of real data become ten at most."""
PIECE = 2**18
"""Bytes that are read at a time."""
_MAGIC_BYTES = 6
_XZ_BYTES = 2**28


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


class _Counted:
    """A stream whose first bytes have been looked at, and whose bytes are counted."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self.count, self._head = stream, 0, b""
        while len(self._head) < _MAGIC_BYTES and (more := stream.read(_MAGIC_BYTES - len(self._head))):
            self._head += more
        self.magic = self._head

    def read(self, size: int = PIECE) -> bytes:
        """The next bytes, at least one unless the stream has ended."""
        found, self._head = self._head[:size] or self._stream.read(size), self._head[size:]
        self.count += len(found)
        return found


class TarStream:
    """The unpacked bytes of a stream, read forwards, with a limit on how many they become."""

    def __init__(self, stream: Stream, name: str, most: int, size: int | None, raise_it: str) -> None:
        """Look at the first bytes; the arguments are those of `read_stream` (`tar_members.py`)."""
        self.name, self.offset, self.raise_it = name, 0, raise_it
        self._most, self._size, self._packed = most, size, _Counted(stream)
        packing = _packing(self._packed.magic)
        self._of = f" of its unpacked {packing} stream" if packing else ""
        self._pieces = _unpacked(self._packed, packing)
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
        if self.offset > self._most + MOST_RATIO * (self._packed.count if self._size is None else self._size):
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
        raise ShardError(f"shard {self.name} {problem} ({place}: {why}); fetch or build it again")

    def _next(self) -> bytes:
        try:
            return next(self._pieces, b"")
        except UserError:  # the stream's own
            raise
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


def _unpacked(stream: _Counted, packing: str) -> Iterator[bytes]:
    """The unpacked bytes of a stream, in pieces that are not empty."""
    if packing == "gzip":
        with gzip.GzipFile(fileobj=cast("BinaryIO", stream)) as unpacked:  # compares sums and lengths; only reads
            yield from iter(partial(unpacked.read, PIECE), b"")
    elif packing == "bzip2":
        yield from filter(None, _streams(stream, bz2.BZ2Decompressor))
    elif packing == "xz":
        new = partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=_XZ_BYTES)
        yield from filter(None, _streams(stream, new))
    elif packing:
        raise ValueError("zstd is not read; unpack it (unzstd)")
    else:
        yield from iter(partial(stream.read, PIECE), b"")


def _streams(
    stream: _Counted, new: Callable[[], bz2.BZ2Decompressor] | Callable[[], lzma.LZMADecompressor]
) -> Iterator[bytes]:
    """What one or several streams behind each other unpack to; `BZ2File` and `LZMAFile` ignore what is no stream.

    Raises:
        OSError, lzma.LZMAError: no such stream. EOFError: the last one is not whole.
    """
    decoder, packed = new(), b""
    while True:
        if decoder.eof:
            packed = decoder.unused_data or stream.read(PIECE)
            if not packed:
                return
            decoder = new()
        elif decoder.needs_input and not (packed := stream.read(PIECE)):
            raise EOFError("it ends early")
        yield decoder.decompress(packed, PIECE)
        packed = b""
