"""Kind `metric`: what is measured on finished samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ladd_dist.core.plugin import Plugin


class Samples(NamedTuple):
    """Finished samples and the classes they were asked for."""

    images: Tensor  # [N,C,H,W] in [-1, 1]
    cond: Tensor  # [N] int64


class References(NamedTuple):
    """What samples are compared with."""

    real: Samples  # images of the dataset
    teacher: Samples  # the teacher's samples in the shards


Measure = Callable[[Samples], dict[str, float]]


class Metric(Plugin):
    """Measures samples against references."""

    kind = "metric"

    def build(self, *, references: References) -> Measure:
        """A function of samples that returns named figures; statistics of the references are computed once, here.

        Raises:
            ValueError: the metric cannot measure such images.
        """
        raise NotImplementedError
