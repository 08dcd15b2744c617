"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): clothes in MNIST's format, dyed like Colour MNIST."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ladd_dist.core.plugin import register
from ladd_dist.core.serialize import NEUTRAL
from ladd_dist.core.sizes import height_width
from ladd_dist.core.types import COLOUR_CLOTHES, INK_ON_BLACK, ImageSpec
from ladd_dist.datasets.color import NUM_CLASSES
from ladd_dist.datasets.mnist import MnistFiles

ROOT = "data/fashion-mnist"


@register("fashion_mnist")
@dataclass(frozen=True)
class FashionMnist(MnistFiles):
    """Colour Fashion-MNIST: 60,000 training and 10,000 test articles of clothing, each dyed with one colour.

    They are in `root`/FashionMNIST/raw, or downloaded there on first use. Classes: T-shirt, trousers, pullover, dress,
    coat, sandal, shirt, trainer, bag, ankle boot.
    """

    root: str = field(default=ROOT, metadata=NEUTRAL)
    """Folder above FashionMNIST/raw."""
    grey: bool = False
    """Whether the articles stay grey: images of one channel, without colours."""

    shows: ClassVar[tuple[str, ...]] = (COLOUR_CLOTHES, INK_ON_BLACK)
    collection: ClassVar[str] = "FashionMNIST"
    usual_root: ClassVar[str] = ROOT
    crops: ClassVar[bool] = False
    without: ClassVar[str] = "`--swap dataset=digits` needs no such files"

    def spec(self) -> ImageSpec:
        return ImageSpec(1 if self.grey else 3, *height_width(self.size), NUM_CLASSES)
