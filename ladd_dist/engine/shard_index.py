"""The index of a shard folder: its files, and where each tensor of each chunk lies in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import read_json

INDEX = "index.json"
FORMAT = 1


class ShardError(UserError):
    """A shard or its content is wrong; the message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """The place of one tensor of a chunk in the chunk's file."""

    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    offset: int  # in bytes


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """Samples that were written together."""

    samples: int
    tensors: dict[str, TensorEntry]


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A tar file of chunks."""

    name: str
    samples: int
    bytes: int
    sha256: str
    chunks: list[ChunkEntry]


@dataclass(frozen=True, slots=True)
class TableEntry:
    """The file with the texts' embeddings."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The part of `index.json` that a reader needs."""

    shards: list[ShardEntry]
    path_levels: tuple[float, ...]
    conditions: TableEntry | None

    def chunks(self) -> list[ChunkEntry]:
        """The chunks of all shards, in the order of their samples."""
        return [chunk for shard in self.shards for chunk in shard.chunks]

    def files(self) -> list[ShardEntry | TableEntry]:
        """Every file that the index describes."""
        return [*self.shards, *([] if self.conditions is None else [self.conditions])]


def shard_entry(data: Mapping[str, Any]) -> ShardEntry:
    """The inverse of `dataclasses.asdict` on JSON.

    Raises:
        KeyError, TypeError, AttributeError: it is no entry.
    """
    chunks = [
        ChunkEntry(
            chunk["samples"],
            {
                name: TensorEntry(item["dtype"], tuple(item["shape"]), item["offset"])
                for name, item in chunk["tensors"].items()
            },
        )
        for chunk in data["chunks"]
    ]
    return ShardEntry(data["name"], data["samples"], data["bytes"], data["sha256"], chunks)


def read_index(path: Path) -> ShardIndex:
    """Read an `index.json`.

    Raises:
        ShardError: missing, damaged, of another format, or without a sample.
    """
    try:
        data = read_json(path)
    except ValueError as error:
        raise ShardError(str(error)) from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ShardError(f"{path}: format {found}, this version reads {FORMAT}; run stage `shards` again")
    try:
        table = data.get("conditions")
        index = ShardIndex(
            [shard_entry(record) for record in data["shards"]],
            tuple(data.get("path_levels", ())),
            TableEntry(table["name"], table["bytes"], table["sha256"]) if table else None,
        )
        chunks = index.chunks()
        whole = bool(chunks) and all({"x0", "cond"} <= chunk.tensors.keys() and chunk.samples > 0 for chunk in chunks)
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ShardError(f"{path} is damaged; delete it and run stage `shards` again to rebuild it")
    return index
