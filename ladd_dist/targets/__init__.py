"""Kind `target`: what the student's sample is pulled to by the distance."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.rng import RowSource
from ladd_dist.core.types import Batch, DenoiseFn


class Pull(NamedTuple):
    """What a distance compares the student's sample with."""

    x0: Tensor  # [B,C,H,W]
    sigma: Tensor  # [B] the level by which the distance weighs, in units of x0


class Target(Plugin):
    """Makes what the student's sample should be like."""

    kind = "target"
    needs_teacher: ClassVar[bool] = False
    """Whether it asks the frozen teacher; where nothing does, a run does not hold one."""

    def __call__(
        self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, *, teacher: DenoiseFn, source: RowSource
    ) -> Pull:
        """The target of each row; called without gradients.

        Args:
            fake: the student's samples [B,C,H,W].
            x: what it made them from [B,C,H,W], at levels `sigma` [B].
            batch: the teacher's samples of these rows.
            teacher: the frozen teacher with the recipe's guidance (only if `needs_teacher`).
            source: random numbers of these rows; there is no other source.
        """
        raise NotImplementedError
