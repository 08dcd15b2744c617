"""`WithOld`: a dataset's pictures, and further conditions without pictures that a student knows and must keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, CountOrZero
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, ImageSet, Progress, Split
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.prompts import Prompts


@register("with_old")
@dataclass(frozen=True)
class WithOld(Dataset):
    """New pictures with their classes or captions, followed by old classes or texts that no picture shows."""

    pictures: Dataset = Digits()
    """The new pictures."""
    old_classes: CountOrZero = 0
    """Number of old classes, which follow those of the pictures."""
    old_texts: str = ""
    """Text file with old prompts, one a line, for a network that reads texts."""
    most_old_texts: Count = 200
    """How many prompts are taken of that file, from its beginning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.old_classes and self.old_texts:
            raise UserError("with_old: old_classes are for networks that know classes, old_texts for others; leave one")

    def identity(self) -> Mapping[str, object]:
        return {"old_texts": list(self._old_texts())} if self.old_texts else {}

    def fingerprint(self) -> str:
        return self.pictures.fingerprint()

    def texts(self) -> tuple[str, ...]:
        new = self.pictures.texts()
        if self.old_texts and not new:
            raise UserError("with_old: old_texts are for pictures with captions, and these have none")
        return (*new, *self._old_texts())

    def spec(self) -> ImageSpec:
        spec, num_old = self.pictures.spec(), self.old_classes or len(self._old_texts())
        return dataclasses.replace(spec, num_classes=spec.num_classes + num_old)

    def num_asked(self) -> int:
        return self.pictures.num_asked()

    def shares(self, cache: Path) -> Tensor | None:
        return self.pictures.shares(cache)

    def flips(self) -> bool:
        return self.pictures.flips()

    def facts(self, cache: Path) -> dict[str, str]:
        num_old = self.spec().num_classes - self.num_asked()
        return {**self.pictures.facts(cache), "old conditions": f"{num_old:,}"}

    def prepare(self, cache: Path, progress: Progress) -> None:
        self.pictures.prepare(cache, progress)

    def open(self, *, split: Split, cache: Path) -> ImageSet:
        return _Pictures(self.pictures.open(split=split, cache=cache), self.spec())

    def build(self, *, split: Split) -> ImageSet:
        return _Pictures(self.pictures.build(split=split), self.spec())

    def _old_texts(self) -> tuple[str, ...]:
        return Prompts(file=self.old_texts).texts()[: self.most_old_texts] if self.old_texts else ()


class _Pictures:
    """The pictures as a part of the larger set of conditions."""

    def __init__(self, images: ImageSet, image: ImageSpec) -> None:
        self.images, self.image = images, image

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images.batch(indices)
