"""Kind `sigma`: laws from which noise levels are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.core.plugin import Plugin


class SigmaLaw(Plugin):
    """Draws one noise level a sample."""

    kind = "sigma"

    def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        """`num` levels [num] in the units of x0, on the generator's device.

        Args:
            step: student updates done so far.
            levels: the student's sampling levels, descending (laws that need none ignore them).
        """
        raise NotImplementedError
