"""Kind `metric`: what is measured on finished samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from ladd_dist.core.plugin import Plugin

T = TypeVar("T")
Read = dict[str, Tensor]
"""What a network sees in N images: named tensors [N, ...]."""
Reader = Callable[[Tensor], Read]
"""Images [N,C,H,W] to what is seen in them, each row of its image alone."""
FeatureExtraction = Callable[[str, Reader, Tensor], Read]
"""(name, reader, images) -> rows: who computes, and where the rows are kept."""


def here(what: str, reader: Reader, images: Tensor) -> Read:
    """Read all images in this process, and keep nothing."""
    return reader(images)


@dataclass(frozen=True, eq=False)
class Samples:
    """Finished samples and the classes they were asked for.

    What networks see in them is read once, by whichever metric asks first, and shared by all metrics and by every
    class: a whole evaluation is one pass over the images for each network.
    """

    images: Tensor
    """[N,C,H,W] in [-1, 1]"""
    cond: Tensor
    """[N] int64"""
    work: FeatureExtraction = here
    """How images are read: in this process, or in shares by several; from a cache, or anew."""
    _kept: dict[str, object] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.cond)

    def read(self, what: str, reader: Reader) -> Read:
        """What `reader` sees in the images, computed once.

        Args:
            what: a name that stands for the reader and its weights: two readers of one name must give the same rows.
        """
        return self.once(f"read {what}", lambda: self.work(what, reader, self.images))

    def once(self, what: str, make: Callable[[], T]) -> T:
        """What `make` returns, from the first call of this name on these samples."""
        if what not in self._kept:
            self._kept[what] = make()
        return self._kept[what]  # type: ignore[return-value]

    def first(self, count: int) -> Samples:
        """The first `count` of them (all, where there are no more)."""
        if count >= len(self):
            return self
        return self.once(f"first {count}", lambda: Part(self, torch.arange(count)))

    def of_class(self, number: int) -> Samples:
        """Those that were asked for one class."""
        return self.once(f"class {number}", lambda: Part(self, (self.cond == number).nonzero()[:, 0]))


class Part(Samples):
    """Some rows of other samples, by index [n]. What was read in the whole set is not read again.

    Its images are picked when they are asked for, and not kept: all classes together would be a copy of all images.
    """

    _whole: Samples
    _rows: Tensor

    def __init__(self, whole: Samples, rows: Tensor) -> None:
        values = {"cond": whole.cond[rows.to(whole.cond.device)], "work": whole.work, "_kept": {}}
        for name, value in {**values, "_whole": whole, "_rows": rows}.items():
            object.__setattr__(self, name, value)

    @property
    def images(self) -> Tensor:
        return self._pick(self._whole.images)

    def read(self, what: str, reader: Reader) -> Read:
        return {name: self._pick(rows) for name, rows in self._whole.read(what, reader).items()}

    def _pick(self, tensor: Tensor) -> Tensor:
        return tensor[self._rows.to(tensor.device)]


class References(NamedTuple):
    """What samples are compared with."""

    real: Samples
    """Images of the dataset's training split."""
    teacher: Samples
    """The teacher's stored samples, which are what the student was trained on."""
    matched: Samples | None = None
    """The teacher's many-step samples from the same noise and for the same classes, row by row, where there are any."""

    def of_class(self, number: int) -> References:
        """The same for one class."""
        matched = None if self.matched is None else self.matched.of_class(number)
        return References(self.real.of_class(number), self.teacher.of_class(number), matched)


Measure = Callable[[Samples], dict[str, float]]


class Metric(Plugin):
    """Measures samples against references."""

    kind = "metric"
    few: ClassVar[tuple[str, ...]] = ()
    """Those of its figures that say something on some tens of samples already: measured while a student trains."""

    def of_real(self) -> tuple[str, ...]:
        """Those of its figures that compare with the dataset's real images; left out where a dataset has none."""
        return ()

    def needs(self) -> int:
        """Fewest samples of a class for the figures of that class alone; 0: they are not measured."""
        return 2

    def require(self, device: torch.device) -> None:
        """Look whether this machine has what the metric needs; called before a run begins.

        Raises:
            ValueError: a file or a package is missing; the message says where to get it and which metric needs none.
        """

    def build(self, *, references: References) -> Measure:
        """A function of samples that returns named figures; statistics of the references are computed once, here.

        A figure `NAME` may come with `NAME_low` and `NAME_high`, its interval (`ladd_dist.metrics.interval`).

        Raises:
            ValueError: the metric cannot measure such images.
        """
        raise NotImplementedError
