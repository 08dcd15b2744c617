"""Kind `dataset`: the images the teacher learns from."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

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
    has_images: ClassVar[bool] = True
    """Whether there are real images; a pretrained teacher needs none."""

    def texts(self) -> tuple[str, ...]:
        """The text that each class stands for, where the network reads texts and not class ids.

        Raises:
            ValueError: the file with the texts cannot be used.
        """
        return ()

    def spec(self) -> ImageSpec:
        """What the images look like, without reading them."""
        raise NotImplementedError

    def build(self, *, split: Split) -> ImageSet:
        """Open the set.

        Raises:
            FileNotFoundError: the files are missing and cannot be fetched; the message names the place to put them.
            ValueError: there are no images (`has_images`).
        """
        raise NotImplementedError
