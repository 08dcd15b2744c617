"""Kind `metric`: measurements on finished samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.features import DIGITS
from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import DenoiseFn, ImageSpec

T = TypeVar("T")
Read = dict[str, Tensor]
"""Outputs of a network for N images: named tensors [N, ...]."""
Reader = Callable[[Tensor], Read]
"""Function from images [N,C,H,W] to outputs [N, ...]; each row depends on its own image alone."""
FeatureExtraction = Callable[[str, Reader, Tensor], Read]
"""Function (name, reader, images) -> outputs that decides which process computes them and whether to cache them."""


def here(what: str, reader: Reader, images: Tensor) -> Read:
    """Read all images in this process, without a cache."""
    return reader(images)


@dataclass(frozen=True, eq=False)
class Samples:
    """Finished samples and the classes requested for them.

    A network reads the images once, for whichever metric asks first; all metrics and classes share its outputs. A
    whole evaluation is one pass over the images for each network.
    """

    images: Tensor
    """Images [N,C,H,W] in [-1, 1]."""
    cond: Tensor
    """Class ids [N] int64."""
    work: FeatureExtraction = here
    """Function that reads the images: in this process or in several, with or without a cache."""
    network: str = DIGITS
    """Shipped feature network that was made for such images: a name of `core.features.NETWORKS`."""
    trained: TrainedFeatures | None = None
    """Feature network that was trained on the data set's own pictures; None where no metric asks for one."""
    _kept: dict[str, object] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.cond)

    def read(self, what: str, reader: Reader) -> Read:
        """Outputs of `reader` for the images, computed once.

        Args:
            what: name of the reader and its weights; two readers with the same name must give the same rows.
        """
        return self.once(f"read {what}", lambda: self.work(what, reader, self.images))

    def once(self, what: str, make: Callable[[], T]) -> T:
        """Result of `make` from the first call with this name on these samples."""
        if what not in self._kept:
            self._kept[what] = make()
        return self._kept[what]  # type: ignore[return-value]

    def first(self, count: int) -> Samples:
        """First `count` samples, or all if there are fewer."""
        if count >= len(self):
            return self
        return self.once(f"first {count}", lambda: Part(self, torch.arange(count)))

    def of_class(self, number: int) -> Samples:
        """Samples requested for one class."""
        return self.once(f"class {number}", lambda: Part(self, (self.cond == number).nonzero()[:, 0]))


class Part(Samples):
    """Rows of other samples, by index [n]; networks need not read them again after the whole set.

    Its images are selected on each access and not kept: the parts of all classes would be a copy of all images.
    """

    _whole: Samples
    _rows: Tensor

    def __init__(self, whole: Samples, rows: Tensor) -> None:
        values = {
            "cond": whole.cond[rows.to(whole.cond.device)],
            "work": whole.work,
            "network": whole.network,
            "trained": whole.trained,
            "_kept": {},
        }
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
    """Sets that samples are compared with."""

    real: Samples
    """Images of the dataset's training split."""
    teacher: Samples
    """The teacher's stored samples, on which the student was trained."""
    matched: Samples | None = None
    """The teacher's many-step samples from the same noise and for the same classes, row by row; None without any."""
    denoise: DenoiseFn | None = None
    """The teacher without guidance, if it denoises pixels; None where no figure of the teacher itself is asked for."""

    def of_class(self, number: int) -> References:
        """References of one class."""
        matched = None if self.matched is None else self.matched.of_class(number)
        return References(self.real.of_class(number), self.teacher.of_class(number), matched, self.denoise)


Measure = Callable[[Samples], dict[str, float]]


class Metric(Plugin):
    """Measurement of samples against references."""

    kind = "metric"
    few: ClassVar[tuple[str, ...]] = ()
    """Names of the figures that mean something for a few dozen samples; they are measured while a student trains."""

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        """Reason why the figures would mean nothing on such images; empty if they fit. Such a metric is left out.

        Args:
            shows: what the dataset says of its images (`Dataset.shows`).
        """
        return ""

    def of_real(self) -> tuple[str, ...]:
        """Names of the figures that compare with the dataset's real images; left out if a dataset has none."""
        return ()

    def space(self, samples: Samples) -> str:
        """Name of the features in which the metric compares such samples; empty for one that uses none.

        Figures of different features do not compare, so it tells apart the weights of a network too.
        """
        return ""

    def needs(self) -> int:
        """Fewest samples of a class for figures of that class alone; 0: no figures by class."""
        return 2

    def require(self, device: torch.device) -> None:
        """Check that this machine has the files and packages that the metric needs; called before a run begins.

        Raises:
            ValueError: a file or a package is missing; the message says where to get it and which metric needs none.
        """

    def build(self, *, references: References) -> Measure:
        """Build a function of samples that returns figures by name; it computes statistics of the references once.

        A figure `NAME` may come with `NAME_low` and `NAME_high`, its interval (`ladd_dist.metrics.interval`).

        Raises:
            ValueError: the metric cannot measure such images.
        """
        raise NotImplementedError
