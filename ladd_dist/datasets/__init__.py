"""Kind `dataset`: the images that the teacher learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import ImageSpec

Split = Literal["train", "test"]
Progress = Callable[[int, int], None]
"""Called with the number of pictures looked at, and that of all, 0 if it is not known; may raise to stop the work."""


class Counts(NamedTuple):
    """How many pictures there are for training and for trying out."""

    train: tuple[int, ...]
    """Number of training pictures by class id or caption."""
    held_out: int


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

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where they have some; a student's file keeps them, for pictures that it gets later."""
        return ()

    def spec(self) -> ImageSpec:
        """Shape and number of classes of the images, without reading them."""
        raise NotImplementedError

    def num_asked(self) -> int:
        """How many of the classes the pictures have: the first ones. Evaluations ask for these alone."""
        return self.spec().num_classes

    def shares(self, cache: Path) -> Tensor | None:
        """Share [num_asked] float64 of each class among the training pictures, of sum 1; None: all are as frequent.

        The teacher's samples and those of an evaluation ask for classes this often, because a distance to real pictures
        would otherwise measure that classes are asked for more often than the pictures have them.

        Args:
            cache: where `prepare` works.
        """
        return None

    def facts(self, cache: Path) -> Mapping[str, str]:
        """What there is to learn from, as name -> text for the run's record and its page; decodes no picture.

        Args:
            cache: where `prepare` works; what it left there is told too.
        """
        return {}

    def counts(self, cache: Path) -> Counts | None:
        """Number of pictures of each split, as far as it is known without decoding one; None: it is not known.

        Of pictures that turn out to be damaged it does not know.
        """
        return None

    def flips(self) -> bool:
        """Whether the teacher's training also shows the images' mirror images (left and right)."""
        return False

    def prepare(self, cache: Path, progress: Progress) -> None:
        """Make what `open` reads in `cache`, the folder of what runs share, unless it is there.

        Every process of a run calls it once, before the processes need each other, so it may take long; those that
        find another one at work wait for it (`exclusive` in `core/rundir.py`).

        Raises:
            UserError: the data cannot be used.
        """

    def open(self, *, split: Split, cache: Path) -> ImageSet:
        """Open a split of a set that may be prepared in `cache`, and is if it was not.

        Raises:
            FileNotFoundError, ValueError: as `build` raises.
        """
        return self.build(split=split)

    def build(self, *, split: Split) -> ImageSet:
        """Open a split of the set.

        Raises:
            FileNotFoundError: the files are missing and cannot be fetched; the message names the folder for them.
            ValueError: there are no images (`has_images`).
        """
        raise NotImplementedError
