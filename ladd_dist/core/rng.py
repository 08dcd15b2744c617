"""Randomness from (seed, step, purpose): the same numbers after a resume, whatever was drawn in between."""

from __future__ import annotations

import hashlib

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


def sample_noise(seed: int, indices: range, shape: tuple[int, ...]) -> Tensor:
    """Unit noise [len(indices), *shape] on the CPU; each row depends on (seed, its index) alone.

    Used where a sample must be the same whatever batch or process computes it (shards, held-out noise).
    """
    rows = [torch.randn(shape, generator=generator("noise", seed, index)) for index in indices]
    return torch.stack(rows) if rows else torch.empty((0, *shape))


def sample_starts(seed: int, indices: range, image: ImageSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """What samples start from: unit noise [len(indices),C,H,W], channels_last, and class ids, on the device."""
    noise = sample_noise(seed, indices, (image.channels, image.size, image.size)).to(device)
    cond = sample_classes(seed, indices, image.num_classes).to(device)
    return noise.contiguous(memory_format=torch.channels_last), cond


def sample_classes(seed: int, indices: range, num_classes: int) -> Tensor:
    """Class ids [len(indices)] int64; every run of `num_classes` indices holds each class once, in random order."""
    ids = []
    for index in indices:
        block, place = divmod(index, num_classes)
        order = torch.randperm(num_classes, generator=generator("classes", seed, block))
        ids.append(int(order[place]))
    return torch.tensor(ids, dtype=torch.int64)
