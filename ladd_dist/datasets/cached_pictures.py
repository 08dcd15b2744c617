"""A split of the pictures in a cache, read by memory map; this process holds little of them, however many there are."""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.picture_file import Pixels
from ladd_dist.core.tensor_file import load_tensors
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Split
from ladd_dist.datasets.picture_cache import AGAIN, CARD, INDEX, PIXELS, Card, read_card

_DROPPED_BYTES = 16 * 2**20
"""Bytes of the file that stay mapped after they were read; the system keeps their pages, but not as ours."""
_FAULT_BYTES = 2**16
"""Bytes that the system maps around each page that is read, at most."""


def open_cache(folder: Path, *, split: Split, held_out: float, whole_classes: bool = True) -> CachedPictures:
    """The pictures of a split.

    A picture is held out (split `test`) if the hash of its base or name is below `held_out`. At least one is, if there
    are two with different ones.

    Args:
        held_out: share of the pictures, about, in [0, 1).
        whole_classes: whether each condition keeps a picture for training, as classes must and texts need not.

    Raises:
        UserError: the cache is damaged, or the split is empty.
    """
    card = read_card(folder)
    index = load_tensors(folder / INDEX, remedy=AGAIN)
    kinds = {"condition": torch.int64, "check": torch.int64, "share": torch.float64}
    if {name: (value.dtype, value.shape) for name, value in index.items()} != {
        name: (kind, (card.num,)) for name, kind in kinds.items()
    } or not 0 <= int(index["condition"].min()) <= int(index["condition"].max()) < card.num_conditions:
        raise UserError(f"{folder / INDEX} does not fit {CARD}; {AGAIN}")
    classes = index["condition"] if whole_classes else torch.zeros_like(index["condition"])
    mask = held_out_mask(index["share"], classes, held_out)
    rows = (mask if split == "test" else ~mask).nonzero().flatten()
    if not len(rows):
        raise UserError(
            f"split {split!r} of {card.num:,} pictures is empty: each class keeps a picture for training, and those "
            f"with one base or name stay together; held_out is {held_out:g}"
        )
    return CachedPictures(folder, card, rows, index["condition"], index["check"])


def condition_counts(folder: Path, num: int) -> list[int]:
    """Number of pictures in a cache by condition, of which there are `num`.

    Raises:
        UserError: the cache is damaged.
    """
    index = load_tensors(folder / INDEX, remedy=AGAIN)["condition"]
    return [int(count) for count in torch.bincount(index, minlength=num)[:num]]


def held_out_mask(share: Tensor, classes: Tensor, held_out: float) -> Tensor:
    """Mask bool [N] of the held-out pictures, of their numbers `share` [N] in [0, 1) and classes [N] int64."""
    if held_out <= 0:
        return torch.zeros_like(share, dtype=torch.bool)
    bound = max(held_out, float(share.min()) + 2.0**-53)
    mask = share < bound
    seen = torch.zeros(int(classes.max()) + 1, dtype=torch.bool)
    seen[classes[~mask]] = True
    for row in (~seen[classes]).nonzero().flatten().tolist():
        if not seen[classes[row]]:  # may have changed: a base may hold pictures of several classes
            mask &= share != share[row]
            seen[classes[~mask]] = True
    return mask


class CachedPictures:
    """`ImageSet` of pictures in a cache. Each one's CRC-32 is compared when it is read."""

    def __init__(self, folder: Path, card: Card, rows: Tensor, conditions: Tensor, checks: Tensor) -> None:
        """Map the pixels; nothing of them is read yet.

        Raises:
            UserError: the file has another size than the card says.
        """
        path, row_bytes = folder / PIXELS, 3 * card.height * card.width
        if require_regular(path) != card.num * row_bytes:
            raise UserError(f"{path} has not the size that {CARD} says; {AGAIN}")
        self.path, self.rows, self.conditions, self.checks = path, rows, conditions[rows], checks[rows].tolist()
        self.image = image_spec(card.height, card.width, card.num_conditions)
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._pixels: Pixels = np.frombuffer(self._map, np.uint8).reshape(card.num, 3, card.height, card.width)
        self._row_bytes, self._mapped = row_bytes + _FAULT_BYTES, 0

    def __len__(self) -> int:
        return len(self.rows)

    def shares(self) -> Tensor:
        """Share [num_conditions] float64 of each condition among the pictures."""
        return torch.bincount(self.conditions, minlength=self.image.num_classes).double() / len(self)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B,3,H,W] float32 in [-1, 1] and condition ids [B] int64 for indices [B] in [0, len).

        Raises:
            IndexError: an index is outside the set. UserError: the file is damaged.
        """
        if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= len(self)):
            raise IndexError(f"indices must lie in 0..{len(self) - 1}, got {int(indices.min())}..{int(indices.max())}")
        pixels = self._pixels[self.rows[indices].numpy()]
        for row, index in zip(pixels, indices.tolist(), strict=True):
            if zlib.crc32(row) != self.checks[index]:
                raise UserError(f"{self.path} is damaged at picture {int(self.rows[index])}; {AGAIN}")
        self._forget(len(indices))
        return torch.from_numpy(pixels).float().div_(127.5).sub_(1.0), self.conditions[indices]

    def _forget(self, num: int) -> None:
        """Unmap what was read once that is much: mapped pages count as this process's memory."""
        self._mapped += num * self._row_bytes
        if self._mapped > _DROPPED_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._mapped = 0


def image_spec(height: int, width: int, num_conditions: int) -> ImageSpec:
    """The `ImageSpec` of colour pictures of this size."""
    return ImageSpec(3, height, width, num_conditions)
