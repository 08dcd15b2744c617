"""Random numbers from (seed, purpose, step): the same after a resume, whatever was drawn in between."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ladd_dist.core.types import ImageSpec

_MASK = (1 << 63) - 1


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a sequence of integers and words; different sequences give unrelated seeds."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") & _MASK


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator seeded from the parts."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


@dataclass(frozen=True)
class Rows:
    """Rows first .. stop - 1 of a batch of `total`: the share of one process or one micro-batch."""

    first: int
    stop: int
    total: int

    def __len__(self) -> int:
        return self.stop - self.first

    def part(self, number: int, parts: int) -> Rows:
        """Part `number` of `parts` equal ones.

        Raises:
            ValueError: the rows do not divide evenly (every process needs an equal share of every step).
        """
        size, rest = divmod(len(self), parts)
        if rest:
            raise ValueError(f"a batch of {len(self)} cannot be parted evenly by {parts}")
        return Rows(self.first + number * size, self.first + (number + 1) * size, self.total)


def whole_batch(size: int) -> Rows:
    """All rows of a batch."""
    return Rows(0, size, size)


class RowSource:
    """Random numbers for some rows of a batch; a row's numbers depend only on the seed and its index in the batch.

    The same sample gets the same noise on any process, and 1, 2 or 4 processes see the same numbers. Numbers are drawn
    in blocks of 64 rows; a process draws the blocks that hold its rows. With `repeats` the rows come several times,
    one copy after the other, with new numbers in each; the first copy is the one without repeats.
    """

    BLOCK = 64

    def __init__(self, rows: Rows, *parts: int | str, device: torch.device | str = "cpu", repeats: int = 1) -> None:
        self.rows, self.device, self.parts, self.repeats = rows, torch.device(device), parts, repeats

    @functools.cached_property
    def blocks(self) -> list[tuple[int, torch.Generator]]:
        """The blocks that hold the rows, and the generator of each; made when the first number is drawn."""
        first, last = self.rows.first // self.BLOCK, (self.rows.stop - 1) // self.BLOCK
        return [
            (number, generator(*self.parts, *again, *([number] if number else []), device=self.device))
            for again in [[f"again-{turn}"] if turn else [] for turn in range(self.repeats)]
            for number in range(first, last + 1)
        ]

    def normal(self, *shape: int) -> Tensor:
        """Unit normal numbers [repeats x rows, *shape] on the device; every call continues the stream."""
        return self._draw(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) [repeats x rows, *shape] on the device; every call continues the stream."""
        return self._draw(torch.rand, shape)

    def _draw(self, draw: Any, shape: tuple[int, ...]) -> Tensor:
        drawn = []
        for number, source in self.blocks:
            start = number * self.BLOCK
            height = min(self.BLOCK, self.rows.total - start)
            block = draw((height, *shape), generator=source, device=self.device)
            drawn.append(block[max(self.rows.first - start, 0) : self.rows.stop - start])
        return torch.cat(drawn) if len(drawn) > 1 else drawn[0]


class NoiseSource(Protocol):
    """A source of the noise that a sampler adds on its way: a `RowSource` in training, a `SampleSource` afterwards."""

    def normal(self, *shape: int) -> Tensor:
        """Unit normal numbers [rows, *shape]; every call continues the stream."""


class SampleSource:
    """Random numbers for samples; a sample's numbers depend only on the parts of the seed and on the sample's index.

    The same sample gets the same numbers in any batch, on any process and on any device: each has a generator on the
    CPU.
    """

    def __init__(self, indices: Iterable[int], *parts: int | str) -> None:
        self.sources = [generator(*parts, index) for index in indices]

    def normal(self, *shape: int) -> Tensor:
        """Unit normal numbers [samples, *shape] on the CPU; every call continues the stream of each sample."""
        rows = [torch.randn(shape, generator=source) for source in self.sources]
        return torch.stack(rows) if rows else torch.empty((0, *shape))


def sample_noise(seed: int, indices: range, shape: tuple[int, ...]) -> Tensor:
    """Unit noise [len(indices), *shape] on the CPU; each row depends on (seed, its index) alone.

    Used where a sample must be the same whatever batch or process computes it (shards, held-out noise).
    """
    rows = [torch.randn(shape, generator=generator("noise", seed, index)) for index in indices]
    return torch.stack(rows) if rows else torch.empty((0, *shape))


def sample_starts(
    seed: int, indices: range, image: ImageSpec, device: torch.device, shares: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Unit noise [len(indices),C,H,W], channels_last, and class ids to start samples from, on the device.

    Args:
        shares: as in `sample_classes`.
    """
    noise = sample_noise(seed, indices, image.shape).to(device)
    cond = sample_classes(seed, indices, image.num_classes, shares).to(device)
    return noise.contiguous(memory_format=torch.channels_last), cond


def added_noise(seed: int, indices: Iterable[int]) -> SampleSource:
    """Source of the noise that the sampling rule `sde` adds to the samples of `sample_starts(seed, indices, ...)`."""
    return SampleSource(indices, "sde", seed)


def sample_classes(seed: int, indices: range, num_classes: int, shares: Tensor | None = None) -> Tensor:
    """Class ids [len(indices)] int64; every run of `num_classes` indices holds each class once, in random order.

    Args:
        shares: share [num_classes] float64 of each class, of sum 1: every run of 1,000 indices holds each class as
            often as its share says, rounded up or down at random (systematic sampling), in random order.
    """
    if shares is not None:
        return _by_shares(seed, indices, shares)
    blocks = {index // num_classes for index in indices}  # an order is drawn once: there may be thousands of texts
    orders = {block: torch.randperm(num_classes, generator=generator("classes", seed, block)) for block in blocks}
    ids = [int(orders[index // num_classes][index % num_classes]) for index in indices]
    return torch.tensor(ids, dtype=torch.int64)


_RUN = 1_000
"""Indices among which classes have their shares."""


def _by_shares(seed: int, indices: range, shares: Tensor) -> Tensor:
    """Class ids [len(indices)] int64 with the shares [K]."""
    edges, blocks = shares.cumsum(0), dict[int, Tensor]()
    for block in {index // _RUN for index in indices}:
        source = generator("class-shares", seed, block)
        points = (torch.arange(_RUN) + torch.rand((), generator=source, dtype=torch.float64)) / _RUN
        ids = torch.searchsorted(edges, points, right=True).clamp(max=len(shares) - 1)
        blocks[block] = ids[torch.randperm(_RUN, generator=source)]
    return torch.tensor([int(blocks[index // _RUN][index % _RUN]) for index in indices], dtype=torch.int64)
