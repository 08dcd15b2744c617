"""The index of a shard folder: its files, and where each tensor of each chunk lies in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ladd_dist.core.door import decode, read_bytes
from ladd_dist.core.errors import ShardError as ShardError
from ladd_dist.core.errors import UserError

INDEX = "index.json"
FORMAT = 1
_REMEDY = "delete it and run stage `shards` again to rebuild it"
_Size = Annotated[int, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=1)]
_Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """The place of one tensor of a chunk in the chunk's file."""

    dtype: str  # as safetensors names it
    shape: tuple[_Count, ...]
    offset: _Size  # in bytes


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """Samples that were written together."""

    samples: _Count
    tensors: dict[str, TensorEntry]

    def __post_init__(self) -> None:
        if not {"x0", "cond"} <= self.tensors.keys():
            raise ValueError(f"a chunk needs x0 and cond, this one has {sorted(self.tensors)}")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A tar file of chunks."""

    name: str
    samples: _Count
    bytes: _Size
    sha256: _Sha256
    chunks: list[ChunkEntry]

    def __post_init__(self) -> None:
        _require_file_name(self.name)
        held = sum(chunk.samples for chunk in self.chunks)
        if held != self.samples:
            raise ValueError(f"{self.name} has {self.samples} samples, its chunks have {held}")


@dataclass(frozen=True, slots=True)
class TableEntry:
    """The file with the texts' embeddings."""

    name: str
    bytes: _Size
    sha256: _Sha256

    def __post_init__(self) -> None:
        _require_file_name(self.name)


@dataclass(frozen=True, slots=True)
class _Format:
    format: int | float | str | None = None


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The part of `index.json` that a reader needs."""

    shards: list[ShardEntry]
    path_levels: tuple[float, ...] = ()
    conditions: TableEntry | None = None
    num_samples: int | None = None

    def __post_init__(self) -> None:
        names, held = {shard.name for shard in self.shards}, sum(shard.samples for shard in self.shards)
        if not self.chunks():
            raise ValueError("it has no chunk of samples")
        if len(names) < len(self.shards):
            raise ValueError("it names a shard twice")
        if self.num_samples is not None and self.num_samples != held:
            raise ValueError(f"num_samples is {self.num_samples}, its shards have {held}")

    def chunks(self) -> list[ChunkEntry]:
        """The chunks of all shards, in the order of their samples."""
        return [chunk for shard in self.shards for chunk in shard.chunks]


def read_index(path: Path) -> ShardIndex:
    """Read an `index.json`.

    Raises:
        ShardError: missing, damaged, of another format, or without a sample.
    """
    try:
        return decode_index(read_bytes(path), path)
    except ShardError:
        raise
    except UserError as error:
        raise ShardError(str(error)) from error


def decode_index(content: bytes, path: Path) -> ShardIndex:
    """The content of an `index.json`; `path` is for messages.

    Raises:
        ShardError: damaged, of another format, or without a sample.
    """
    try:
        found = decode(content, _Format, str(path), _REMEDY).format
        if found != FORMAT:
            raise ShardError(f"{path}: format {found}, this version reads {FORMAT}; run stage `shards` again")
        return decode(content, ShardIndex, str(path), _REMEDY)
    except ShardError:
        raise
    except UserError as error:
        raise ShardError(str(error)) from error


def _require_file_name(name: str) -> None:
    """Refuse a name that is not one component of a path, before it is joined to a folder.

    Raises:
        ValueError: so.
    """
    if not name or name in (".", "..") or set(name) & {"/", "\\", "\0"}:
        raise ValueError(f"{name[:80]!r} is no file name")
