"""WebDataset shards of the teacher's samples: tar files whose members are safetensors chunks, and an index.

Chunks of 64-256 samples read twenty times faster than one `.npy` a sample (a tar header costs as much as the sample).
The index exists because a tar that was cut between members, or has a flipped bit, reads without an error.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from ladd_dist.core.door import read_typed, require_regular
from ladd_dist.core.rundir import make_folder, remove_stale, write_atomic, write_json
from ladd_dist.core.types import ImageSpec
from ladd_dist.engine.shard_index import FORMAT, INDEX, ChunkEntry, ShardEntry, ShardError, TensorEntry


class Chunk(NamedTuple):
    """Consecutive samples."""

    x0: Tensor  # [n,C,H,W]
    cond: Tensor  # [n] int64
    noise: Tensor | None  # like x0
    path: Tensor | None  # [n,L,C,H,W]


MakeChunk = Callable[[int, int], Chunk]
"""(first sample index, one past the last) -> chunk."""


def write_shards(
    folder: Path,
    *,
    num_samples: int,
    samples_per_chunk: int,
    chunks_per_shard: int,
    dtype: torch.dtype,
    make: MakeChunk,
    image: ImageSpec,
    card: Mapping[str, object],
    texts: Sequence[str] = (),
    share: tuple[int, int] | None = None,
    in_turn: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write all shards that are not there yet, then `index.json`; interrupted work goes on where it stopped.

    Args:
        share: (rank, ranks): write this rank's share of the shards, and no index; None: all, and the index.
        in_turn: the ranks take shards in turn; otherwise each takes neighbours, for samples that are read in order.
        card: facts about the samples for the index (seed, sampler, guidance, teacher's signature).
        texts: the text of each class; those of a chunk's samples lie beside it as `{key}.json`, a list in their order.
        progress: called with the number of samples that exist.

    Raises:
        ShardError: `make` gave a wrong shape or values that are not finite. OSError: disk full or not writable.
    """
    make_folder(folder)
    remove_stale(folder)
    per_shard = samples_per_chunk * chunks_per_shard
    entries = []
    for number in _numbers(-(-num_samples // per_shard), share, in_turn):
        first, last = number * per_shard, min((number + 1) * per_shard, num_samples)
        tar, record_path = folder / f"{number:06d}.tar", folder / f"{number:06d}.json"
        entry = read_typed(record_path, ShardEntry) if record_path.exists() and tar.exists() else None
        if entry is None or (entry.name, entry.bytes, entry.samples) != (tar.name, require_regular(tar), last - first):
            bounds = [(a, min(a + samples_per_chunk, last)) for a in range(first, last, samples_per_chunk)]
            entry = _write_shard(tar, _checked(make, bounds, image, tar, progress), dtype, texts)
            write_json(record_path, asdict(entry))
        progress(last)
        entries.append(asdict(entry))
    if share is not None:
        return
    write_json(folder / INDEX, {"format": FORMAT, **card, "num_samples": num_samples, "shards": entries})


def _numbers(total: int, share: tuple[int, int] | None, in_turn: bool) -> range:
    rank, ranks = share or (0, 1)
    return range(rank, total, ranks) if in_turn else range(total * rank // ranks, total * (rank + 1) // ranks)


def _checked(
    make: MakeChunk, bounds: list[tuple[int, int]], image: ImageSpec, tar: Path, progress: Callable[[int], None]
) -> Iterator[tuple[str, Chunk]]:
    for first, last in bounds:
        chunk = make(first, last)
        check_chunk(chunk, image, f"samples {first} to {last - 1} for {tar.name}")
        yield f"{first:08d}", chunk
        progress(last)


def check_chunk(chunk: Chunk, image: ImageSpec, where: str) -> None:
    """Refuse samples that no student should learn from.

    Raises:
        ShardError: wrong shape, a class out of range, or values that are not finite.
    """
    shape = (len(chunk.cond), *image.shape)
    if tuple(chunk.x0.shape) != shape:
        raise ShardError(f"{where}: x0 has shape {tuple(chunk.x0.shape)}, the recipe's dataset needs {shape}")
    if chunk.noise is not None and chunk.noise.shape != chunk.x0.shape:
        raise ShardError(f"{where}: noise has shape {tuple(chunk.noise.shape)}, x0 has {shape}")
    if chunk.path is not None and (chunk.path.shape[:1], chunk.path.shape[2:]) != (shape[:1], shape[1:]):
        raise ShardError(f"{where}: path has shape {tuple(chunk.path.shape)}, one state would have {shape}")
    for name, tensor in (("x0", chunk.x0), ("noise", chunk.noise), ("path", chunk.path)):
        if tensor is not None and not torch.isfinite(tensor).all():
            bad = (~torch.isfinite(tensor.flatten(1)).all(1)).nonzero()[0].item()
            raise ShardError(f"{where}: {name} of sample {bad} there holds NaN or infinity; remove or rebuild it")
    if len(chunk.cond) and not 0 <= int(chunk.cond.min()) <= int(chunk.cond.max()) < image.num_classes:
        low, high = int(chunk.cond.min()), int(chunk.cond.max())
        raise ShardError(f"{where}: class ids {low}..{high}, the recipe's dataset has 0..{image.num_classes - 1}")


def _write_shard(
    path: Path, chunks: Iterator[tuple[str, Chunk]], dtype: torch.dtype, texts: Sequence[str]
) -> ShardEntry:
    def write(temporary: Path) -> None:
        import webdataset

        with temporary.open("wb") as stream, webdataset.TarWriter(stream, encoder=False, mtime=0) as writer:
            for key, chunk in chunks:
                members = {"safetensors": safetensors.torch.save(_tensors(chunk, dtype))}
                if texts:
                    members["json"] = json.dumps([texts[number] for number in chunk.cond.tolist()]).encode()
                writer.write({"__key__": key, **members})

    write_atomic(path, write)
    return describe_shard(path)


def _tensors(chunk: Chunk, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {"x0": chunk.x0, "noise": chunk.noise, "path": chunk.path}
    kept = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items() if tensor is not None}
    return {**kept, "cond": chunk.cond.contiguous()}


def describe_shard(path: Path) -> ShardEntry:
    """The index entry of a shard: size, sha256, and where each tensor of each chunk lies in the file."""
    chunks = []
    with tarfile.open(path) as tar, path.open("rb") as stream:
        for member in (member for member in tar if member.name.endswith(".safetensors")):
            stream.seek(member.offset_data)
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
            base = member.offset_data + 8 + length
            tensors = {
                name: TensorEntry(item["dtype"], tuple(item["shape"]), base + item["data_offsets"][0])
                for name, item in header.items()
                if name != "__metadata__"
            }
            chunks.append(ChunkEntry(tensors["cond"].shape[0], tensors))
    samples = sum(chunk.samples for chunk in chunks)
    return ShardEntry(path.name, samples, path.stat().st_size, file_sha256(path), chunks)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
