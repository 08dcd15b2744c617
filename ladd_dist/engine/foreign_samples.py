"""Samples of somebody else's shard: WebDataset's, with one sample a key, and chunks as this package writes them.

Nothing is decoded that could run code (no pickle, no `.pth`), and nothing is left out in silence.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ladd_dist.core.door import decode
from ladd_dist.core.errors import UserError
from ladd_dist.core.tar_members import read_members
from ladd_dist.core.tar_samples import grouped
from ladd_dist.core.types import ImageSpec
from ladd_dist.engine.plausible import Space, require_range
from ladd_dist.engine.shard_index import ShardError
from ladd_dist.engine.shard_writer import Chunk, check_chunk

MOST_MEMBER_BYTES = 2**28
"""Default for the bytes of the largest member that is read: 256 MiB, twenty samples of 3x1024x1024 as float32."""
_MOST_DIGITS = 18
_NAMES = ("x0", "noise", "path", "cond")


@dataclass(frozen=True)
class Wanted:
    """What a recipe needs of imported samples."""

    image: ImageSpec
    space: Space = "pixels"
    texts: tuple[str, ...] = ()
    """The text of each class; those that lie beside samples have to be the same."""
    path_levels: tuple[float, ...] = ()
    """Levels of the teacher's states that are wanted; empty: they are left out."""
    most_member_bytes: int = MOST_MEMBER_BYTES
    """Bytes of the largest member that is read."""


def read_samples(path: Path, wanted: Wanted) -> Iterator[tuple[str, Chunk]]:
    """The samples of a shard in its order, each verified by itself, with its place for messages.

    Raises:
        ShardError: the shard is damaged, or a sample is wrong; the message names shard, sample and byte. UserError: no
            regular file.
    """
    for sample in grouped(read_members(path, wanted.most_member_bytes), str(path)):
        where = f"sample {sample.key!r} of {path} (byte {sample.offset:,})"
        chunk = _decode(sample.members, where, wanted)
        check_chunk(chunk, wanted.image, where)
        require_range(chunk.x0, wanted.space, where)
        yield where, chunk


def _decode(members: Mapping[str, bytes], where: str, wanted: Wanted) -> Chunk:
    arrays: dict[str, Tensor] = {}
    for extension, content in members.items():
        try:
            found = _arrays(extension, content)
        except (UserError, safetensors.SafetensorError, *_DECODING) as error:
            raise ShardError(f"{where}: {extension} cannot be read ({error})") from error
        if doubled := found.keys() & arrays.keys() & set(_NAMES):
            raise ShardError(f"{where}: two members hold {min(doubled)}")
        arrays |= found
    if "x0" not in arrays or "cond" not in arrays:
        raise ShardError(
            f"{where}: needs x0 (.npy or .safetensors) and a class (.cls), it has {sorted(members)}; samples lie whole "
            "in one shard"
        )
    for name in _NAMES[:3]:
        if name in arrays and arrays[name].dtype not in _FLOATS:
            raise ShardError(f"{where}: {name} holds {arrays[name].dtype}, not floating point in [-1, 1]")
    cond = arrays["cond"]
    if cond.dtype not in _INTEGERS:
        raise ShardError(f"{where}: cond holds {cond.dtype}, class ids are integers")
    many = arrays["x0"].ndim == 4 and cond.ndim == 1
    if many and not len(cond):
        raise ShardError(f"{where}: it holds no sample")
    if not many and cond.numel() != 1:
        raise ShardError(f"{where}: cond has shape {tuple(cond.shape)}, one sample has one class")
    x0, noise, path = (
        None if tensor is None else tensor.float() if many else tensor.float()[None]
        for tensor in (arrays.get(name) for name in _NAMES[:3])
    )
    assert x0 is not None
    chunk = Chunk(x0, cond.long().reshape(-1), noise, path if wanted.path_levels else None)
    _require_states(chunk, wanted, where)
    if many and "json" in members:
        _require_texts(chunk, members["json"], wanted.texts, where)
    return chunk


_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_DECODING = (ValueError, EOFError, TypeError, KeyError, RuntimeError, OverflowError)


def _arrays(extension: str, content: bytes) -> dict[str, Tensor]:
    """The tensors of a member by name; none where it holds something else.

    Raises:
        ValueError, SafetensorError and others of `_DECODING`: it is damaged.
    """
    if extension == "safetensors":
        return safetensors.torch.load(content)
    if extension == "npy" or extension.endswith(".npy"):
        return {extension.removesuffix("npy").rstrip(".") or "x0": _npy(content)}
    if extension == "cls":
        if len(content) > _MOST_DIGITS:
            raise ValueError(f"{len(content)} bytes are no class id")
        return {"cond": torch.tensor(int(content))}
    return {}


def _npy(content: bytes) -> Tensor:
    """The array of a `.npy` member, whose declared size is compared with its bytes before any memory is taken.

    Raises:
        ValueError: it is damaged, or holds something else than numbers.
    """
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its header has version {version}; those of numbers have 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(stream)
    except Exception as error:  # numpy parses it as Python's literals: tokenize.TokenError, MemoryError and others
        raise ValueError(f"its header is damaged: {type(error).__name__}: {error}"[:200]) from error
    shape, fortran, dtype = header
    if dtype.kind not in "fiub":
        raise ValueError(f"it holds {dtype}, not numbers")
    size, found = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if min(shape, default=1) < 1 or size != found:
        raise ValueError(f"its header declares shape {shape} of {dtype}, {size} bytes, and {found} follow")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    array = flat.reshape(shape, order="F" if fortran else "C")
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))


def _require_states(chunk: Chunk, wanted: Wanted, where: str) -> None:
    num = len(wanted.path_levels)
    found = 0 if chunk.path is None or chunk.path.ndim < 2 else chunk.path.shape[1]
    if found != num:
        raise ShardError(f"{where}: it has {found} states of the teacher, start 'path' needs {num}")


def _require_texts(chunk: Chunk, content: bytes, texts: tuple[str, ...], where: str) -> None:
    """Refuse classes that mean other texts than the recipe's."""
    if not texts:
        return
    held = decode(content, list[str], f"{where}: json")
    if len(held) != len(chunk.cond):
        raise ShardError(f"{where}: json has {len(held)} texts for {len(chunk.cond)} samples")
    for number, text in zip(chunk.cond.tolist(), held, strict=True):
        if not 0 <= number < len(texts) or texts[number] != text:
            own = repr(texts[number][:60]) if 0 <= number < len(texts) else "not there"
            raise ShardError(f"{where}: class {number} is {text[:60]!r}, in the recipe's dataset it is {own}")
