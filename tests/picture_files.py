"""Picture files of every sort, made for tests."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def plain(colour: Any = RED, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """An image of one colour."""
    return Image.new(mode, size, colour)


def png(
    width: int, height: int, bits: int, kind: int, rows: bytes, chunks: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG of any bit depth and colour type, which Pillow cannot write; `rows` without filter bytes."""
    height_given, height = height, height if rows else 0
    stride = len(rows) // height if height else 0
    raw = b"".join(b"\0" + rows[stride * row : stride * (row + 1)] for row in range(height))
    parts = [(b"IHDR", struct.pack(">2I5B", width, height_given, bits, kind, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def big_endian(*values: int) -> bytes:
    """Numbers of 16 bits."""
    return np.array(values, dtype=">u2").tobytes()


def halves(left: Any = RED, right: Any = BLUE, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """An image whose left half has one colour and whose right half another."""
    image = plain(left, size)
    image.paste(right, (size[0] // 2, 0, *size))
    return image
