"""Shards as other people write them, the recipe that imports them, and what the import has to leave."""

from __future__ import annotations

import dataclasses
import functools
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.recipe import Recipe, load_recipe

SIZES = (7, 13, 1, 20, 5)
"""Samples of the shards of a source: a few are in each, and one is in several chunks of ours."""
NUM = sum(SIZES)


def foreign_sample(index: int) -> np.ndarray:
    """The picture float32 [3,16,16] of a sample, in [-1, 1]."""
    return np.random.default_rng(index).uniform(-1, 1, (3, 16, 16)).astype(np.float32)


def member(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar file."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def npy(array: np.ndarray, **more: bool) -> bytes:
    """An array as an npy file."""
    data = io.BytesIO()
    np.save(data, array, **more)
    return data.getvalue()


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """A tar file of these members."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))


def members_of(samples: range) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The members of a shard: picture and class of each sample."""
    members = []
    for index in samples:
        members.append(member(f"s{index:03d}.npy", npy(foreign_sample(index))))
        members.append(member(f"s{index:03d}.cls", str(index % 10).encode()))
    return members


def write_source(folder: Path, sizes: tuple[int, ...] = SIZES) -> Path:
    """A folder of shards."""
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        first = sum(sizes[:number])
        write_tar(folder / f"{number:03d}.tar", members_of(range(first, first + size)))
    return folder


@functools.cache
def base() -> Recipe:
    """The recipe that is changed, read when asked for: a fork of a process that has it reads none."""
    return load_recipe(Path(__file__).resolve().parents[1] / "recipes" / "exp6_stored_noise.py", "smoke")


def recipe_of(source: Path, **shards: Any) -> Recipe:
    """A recipe that imports a source, in small shards."""
    own = {"source": str(source), "num_samples": 100, "samples_per_chunk": 4, "chunks_per_shard": 2} | shards
    return dataclasses.replace(base(), shards=dataclasses.replace(base().shards, **own))


def tars(folder: Path) -> dict[str, bytes]:
    """The shards in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def expected(folder: Path, num: int = NUM) -> dict[str, bytes]:
    """The shards of the same samples, written straight from memory."""

    def make(first: int, last: int) -> Chunk:
        pictures = np.stack([foreign_sample(index) for index in range(first, last)])
        return Chunk(torch.from_numpy(pictures), torch.arange(first, last) % 10, None, None)

    write_shards(
        folder, num_samples=num, samples_per_chunk=4, chunks_per_shard=2, dtype=torch.float32, make=make,
        image=base().latent(), card={},
    )  # fmt: skip
    return tars(folder)
