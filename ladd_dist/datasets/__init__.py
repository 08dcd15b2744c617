"""Kind `dataset`: the images the teacher learns from."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import ImageSpec

Split = Literal["train", "test"]


class ImageSet(Protocol):
    """A finite set of labelled images with random access."""

    image: ImageSpec

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B,C,H,W] in [-1, 1] and class ids [B] int64 for indices [B] int64 (deterministic)."""
        ...


class Dataset(Plugin):
    """Describes and opens an image set."""

    kind = "dataset"

    def spec(self) -> ImageSpec:
        """What the images look like, without reading them."""
        raise NotImplementedError

    def build(self, *, split: Split) -> ImageSet:
        """Open the set.

        Raises:
            FileNotFoundError: the files are missing and cannot be fetched; the message names the place to put them.
        """
        raise NotImplementedError
