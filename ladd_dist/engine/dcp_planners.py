"""Sharded tensors through `torch.distributed.checkpoint`, in a form that no strategy and no number of ranks owns.

A tensor is written flattened, in contiguous ranges, one a rank; any other division into ranges reads it back. Files
are safetensors with their offsets inside: nothing read here can run code (DCP's own format has its table in a pickle).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner, Metadata, SavePlan
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from ladd_dist.core.compat import own_file_a_rank
from ladd_dist.core.errors import UserError

# It says so at every call without a process group, which is what `no_dist` asks for.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


@dataclass(frozen=True)
class FlatChunk:
    """Elements start .. start + len(flat) - 1 of a flattened tensor of `total` elements."""

    flat: Tensor
    start: int
    total: int


class _Save(DefaultSavePlanner):
    """Plans the writing of chunks."""

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan([_write_item(name, chunk) for name, chunk in self.state_dict.items()])
        return self.plan

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        self.global_plan, self.metadata = create_default_global_save_plan(all_plans)
        return self.global_plan, self.metadata

    def lookup_object(self, index: MetadataIndex) -> Any:
        return self.state_dict[index.fqn].flat


def _write_item(name: str, chunk: FlatChunk) -> WriteItem:
    offset = torch.Size([chunk.start])
    data = TensorWriteData(
        chunk=ChunkStorageMetadata(offsets=offset, sizes=chunk.flat.size()),
        properties=TensorProperties.create_from_tensor(chunk.flat),
        size=torch.Size([chunk.total]),
    )
    return WriteItem(index=MetadataIndex(name, offset), type=WriteItemType.SHARD, tensor_data=data)


class _Load(DefaultLoadPlanner):
    """Plans the reading of chunks, in place."""

    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        # The default looks for tensors in nested containers, and drops what else it finds.
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        items: list[ReadItem] = []
        for name, chunk in self.state_dict.items():
            stored = self.metadata.state_dict_metadata.get(name)
            if not isinstance(stored, TensorStorageMetadata):
                raise UserError(f"it holds no {name}")
            if stored.size != torch.Size([chunk.total]):
                raise UserError(f"{name} has {stored.size[0]} elements there, {chunk.total} are needed")
            wanted = ChunkStorageMetadata(offsets=torch.Size([chunk.start]), sizes=chunk.flat.size())
            found = create_read_items_for_chunk_list(name, stored, [wanted])
            if sum(item.lengths[0] for item in found) != len(chunk.flat):
                raise UserError(f"{name} is not whole there: the file of another rank is missing")
            items += found
        return LoadPlan(items)

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        flat: Tensor = self.state_dict[read_item.dest_index.fqn].flat
        return flat.narrow(0, read_item.dest_offsets[0], read_item.lengths[0])

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        pass


def write_chunks(folder: Path, chunks: Mapping[str, FlatChunk], group: Any) -> None:
    """Write this rank's chunks; `group` is a gloo process group of all that write, or None for one process.

    Returns on rank 0 when every rank's file is on disk. All ranks' chunks together must make whole tensors.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save

    writer = HuggingFaceStorageWriter(str(folder), **own_file_a_rank())
    save(dict(chunks), storage_writer=writer, planner=_Save(), process_group=group, no_dist=group is None)


def read_chunks(folder: Path, chunks: Mapping[str, FlatChunk]) -> None:
    """Fill the chunks from whatever ranges were written; every rank reads what it asks for, by itself.

    Raises:
        UserError: a tensor is not there, or has another size.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    reader = HuggingFaceStorageReader(str(folder))
    reader.read_metadata()  # a damaged file is an error here; within `load` it would be a traceback in the log first
    load(dict(chunks), storage_reader=reader, planner=_Load(), no_dist=True)
