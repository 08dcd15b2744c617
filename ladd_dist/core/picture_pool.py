"""Pictures decoded by several processes, in their order, a bounded number of them in memory.

No torch here: a process that decodes imports this file and `picture_file.py` alone, and takes some 60 MB.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import types
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ladd_dist.core.door import read_listed
from ladd_dist.core.errors import MachineError, UserError, unreadable
from ladd_dist.core.machine import usable_cores
from ladd_dist.core.picture_file import Fitting, PictureError, Pixels, decode, fitted
from ladd_dist.core.printable import one_line
from ladd_dist.core.signals import held_back

FEW = 256
"""Number of pictures up to which starting processes takes longer than decoding."""
MOST_WORKERS = 32
_PIECE_PICTURES = 64
_PIECE_BYTES = 8 * 2**20
"""Bytes of a piece's contents, and of its pixels, that end the piece."""


class Picture(NamedTuple):
    """A picture as a source gives it."""

    name: str
    """Name for messages; which split the picture is in depends on it, where there is no `base`."""
    content: Path | bytes | Pixels
    """A file, which the decoding process reads; the content of one; or pixels uint8 [H,W,3] or [H,W]. A file that can
    no longer be read stops the decoding: whoever names it has looked (`bad`)."""
    condition: int | str
    """Class id; or the class's name or the caption, of which the cache makes ids in the order of sorted texts. A
    source gives one of the two throughout."""
    base: str = ""
    """Name that near-duplicates share: they stay in one split."""
    bad: str = ""
    """Why the source already knows that it is none; it is not decoded."""


class Bad(NamedTuple):
    """A picture that could not be decoded, and why."""

    name: str
    reason: str


class Decoded(NamedTuple):
    """Some pictures after decoding, in their order."""

    pixels: Pixels
    """uint8 [n,3,H,W]"""
    checks: list[int]
    """CRC-32 of each one's bytes."""
    contents: list[int]
    """Hash of each one's content before decoding, in [-2^63, 2^63): that of copies is the same."""
    kept: list[Picture]
    """The n pictures, without content."""
    bad: list[Bad]


def decode_all(pictures: Iterable[Picture], fitting: Fitting, *, total: int = 0) -> Generator[Decoded, None, None]:
    """Decode pictures piece by piece, by as many processes as this one has cores.

    Args:
        total: number of pictures, if it is known; few are decoded in this process.

    Raises:
        UserError: a process ended that was decoding; the message names the pictures.
        MachineError: a file cannot be read now, or memory is too little: that is no fault of the picture.
    """
    pieces = _pieces(pictures, fitting)
    num = min(usable_cores(), MOST_WORKERS)
    if 0 < total <= FEW or num == 1 or multiprocessing.current_process().daemon:  # a daemon may start none
        yield from (_decode_piece(piece, fitting) for piece in pieces)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    resource_tracker.ensure_running()  # it lets signals in again where it starts
    with ProcessPoolExecutor(num, mp_context=context, initializer=_prepare_worker) as pool:
        waiting = deque[tuple[Future[Decoded], str]]()
        try:
            for piece in pieces:
                with _without_main(), held_back():  # starts another process while there are too few
                    future = pool.submit(_decode_piece, piece, fitting)
                waiting.append((future, f"{piece[0].name} to {piece[-1].name}"))
                if len(waiting) > 2 * num:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:  # also when whoever reads this has stopped
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program's main module from processes that start: they would run it again, up to this very place.

    That is a script of somebody who opens the data set outside of a function; and it may import much.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _result(future: Future[Decoded], which: str) -> Decoded:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"a process that decoded pictures was ended from outside, or ran out of memory, at {one_line(which)} or a "
            "little before; look at their sizes, free memory, and run the same command again"
        ) from error


def _pieces(pictures: Iterable[Picture], fitting: Fitting) -> Iterator[list[Picture]]:
    most = max(1, min(_PIECE_PICTURES, _PIECE_BYTES // (3 * fitting.height * fitting.width)))
    piece, size = list[Picture](), 0
    for picture in pictures:
        piece.append(picture)
        size += _num_bytes(picture.content)
        if len(piece) == most or size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _num_bytes(content: Path | bytes | Pixels) -> int:
    """Bytes that a picture's content takes in memory before it is decoded."""
    if isinstance(content, Path):
        return 0
    return len(content) if isinstance(content, bytes) else content.nbytes


def _decode_piece(piece: Sequence[Picture], fitting: Fitting) -> Decoded:
    pixels, kept, bad, contents = list[Pixels](), list[Picture](), list[Bad](), list[int]()
    for picture in piece:
        try:
            decoded, content = _decode(picture, fitting)
            pixels.append(decoded)
            contents.append(content)
            kept.append(picture._replace(content=b""))
        except MachineError:
            raise
        except UserError as error:
            bad.append(Bad(picture.name, str(error)))
        except OSError as error:
            raise unreadable(Path(picture.name), error) from error
        except MemoryError as error:
            raise MachineError(
                f"there is too little memory to decode {one_line(picture.name)}, so nothing is kept: free memory, or "
                "scale the picture down, and run the same command again"
            ) from error
    shape = (len(pixels), 3, fitting.height, fitting.width)
    stacked = np.stack(pixels) if pixels else np.zeros(shape, np.uint8)
    return Decoded(stacked, [zlib.crc32(row.data) for row in pixels], contents, kept, bad)


def _decode(picture: Picture, fitting: Fitting) -> tuple[Pixels, int]:
    """The pixels, and the hash of the content."""
    if picture.bad:
        raise PictureError(picture.bad)
    content = read_listed(picture.content) if isinstance(picture.content, Path) else picture.content
    if isinstance(content, bytes):
        return decode(content, fitting), _hash(content)
    return fitted(content, fitting), _hash(str(content.shape).encode() + content.tobytes())


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little", signed=True)


def _prepare_worker() -> None:
    """Leave signals to the process that started this one, and end with it, however it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    with contextlib.suppress(OSError):
        parent.join()
    os._exit(1)


def shown(bad: Sequence[Bad], num: int, most: int = 5) -> str:
    """The first of `num` bad pictures, for a message."""
    first = "; ".join(one_line(f"{name[:200]}: {reason[:300]}") for name, reason in itertools.islice(bad, most))
    return first + (f"; and {num - most:,} more" if num > most else "")
