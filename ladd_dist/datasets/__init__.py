"""Kind `dataset`: the images that the teacher learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, Self

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import ImageSpec

Split = Literal["train", "test"]


class ImageSet(Protocol):
    """Finite set of labelled images with random access."""

    image: ImageSpec

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B,C,H,W] float32 in [-1, 1] and class ids [B] int64 for indices [B] int64 (deterministic)."""
        ...


class Dataset(Plugin):
    """Description of an image set, which it can open."""

    kind = "dataset"
    has_images: ClassVar[bool] = True
    """Whether there are real images; a pretrained teacher needs none."""
    shows: ClassVar[tuple[str, ...]] = ()
    """What the images are, for metrics that fit nothing else: `COLOUR_DIGITS`, `INK_ON_BLACK` (`core/types.py`)."""

    def fingerprint(self) -> str:
        """Text that changes when the data change, for files that the settings do not pin down; signatures hash it.

        `folder_fingerprint` makes one of a folder. Empty: the settings say it all, and a changed file goes unseen.
        """
        return ""

    def identity(self) -> Mapping[str, object]:
        found = self.fingerprint()
        return {"fingerprint": found} if found else {}

    def texts(self) -> tuple[str, ...]:
        """Text of each class, for networks that read texts; empty where they read class ids.

        Raises:
            ValueError: the file with the texts cannot be used.
        """
        return ()

    def plain(self) -> Self:
        """The same pictures without augmentation, each once: what figures compare with and features are trained on.

        A data set that mirrors its pictures for the teacher's training returns itself without that, so that a picture
        and its mirror image never stand on both sides of a comparison.
        """
        return self

    def spec(self) -> ImageSpec:
        """Shape and number of classes of the images, without reading them."""
        raise NotImplementedError

    def build(self, *, split: Split) -> ImageSet:
        """Open a split of the set.

        Raises:
            FileNotFoundError: the files are missing and cannot be fetched; the message names the folder for them.
            ValueError: there are no images (`has_images`).
        """
        raise NotImplementedError
