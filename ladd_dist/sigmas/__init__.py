"""Kind `sigma`: laws (distributions) from which noise levels are drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ladd_dist.core.plugin import Plugin


class SigmaLaw(Plugin):
    """Distribution of noise levels, one level per sample."""

    kind = "sigma"

    def highest(self) -> float:
        """Highest level that can be drawn; infinity for a law without a bound."""
        return math.inf

    def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        """Draw levels [num] > 0 in units of x0, on the generator's device.

        Args:
            step: number of student updates done so far.
            levels: the student's sampling levels, descending (laws that need none ignore them).

        Raises:
            UserError: the law needs levels, and these do not fit.
        """
        raise NotImplementedError
