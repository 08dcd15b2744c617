"""Colour digits from scikit-learn's `load_digits`: 1,797 handwritten digits that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Within
from ladd_dist.core.sizes import PictureSize, height_width
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, Split
from ladd_dist.datasets.color import NUM_CLASSES, SHOWS, ColorDigits, ColourSeed

_TEST_EVERY = 6


def held_out(labels: Tensor) -> Tensor:
    """Mask bool [N] of the test split: True for every sixth digit of each class.

    The count runs within each class. The classes of this set follow each other in order for long stretches, so every
    sixth digit of the whole set would nearly always be odd.
    """
    rank = torch.zeros_like(labels)
    for digit in range(NUM_CLASSES):
        members = labels == digit
        rank[members] = torch.arange(int(members.sum()))
    return rank % _TEST_EVERY == _TEST_EVERY - 1


@register("digits")
@dataclass(frozen=True)
class Digits(Dataset):
    """Colour digits from scikit-learn's 8x8 digits, enlarged (bicubic). Needs no network.

    1,501 digits are for training and 296 for tests. With the default `repeat` they make 21,014 training images.
    """

    size: PictureSize = 16
    """Size of the images in pixels, a side or height and width; the digits are 8x8."""
    seed: ColourSeed = 0
    """Seed of the colours."""
    repeat: Annotated[int, Within("[1, 1000]")] = 14
    """Number of times that each digit appears, each time in another colour."""

    shows: ClassVar[tuple[str, ...]] = SHOWS

    def spec(self) -> ImageSpec:
        return ImageSpec(3, *height_width(self.size), NUM_CLASSES)

    def build(self, *, split: Split) -> ColorDigits:
        from sklearn.datasets import load_digits

        digits = load_digits()
        labels = torch.from_numpy(digits.target).long()
        ink = torch.from_numpy(digits.images).float().unsqueeze(1) * (255.0 / 16.0)
        if (size := height_width(self.size)) != ink.shape[2:]:
            ink = F.interpolate(ink, size=size, mode="bicubic", align_corners=False)
        # Bicubic overshoots at edges: clip before rounding.
        grey = ink.clamp(0.0, 255.0).round().to(torch.uint8)
        chosen = held_out(labels) if split == "test" else ~held_out(labels)
        return ColorDigits(grey[chosen], labels[chosen], seed=self.seed, split=split, repeat=self.repeat)
