"""Kind `target`: the sample that the distance pulls the student's to."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import Plugin
from ladd_dist.core.rng import RowSource
from ladd_dist.core.types import Batch, DenoiseFn


class TargetSample(NamedTuple):
    """The sample that a distance compares the student's with."""

    x0: Tensor  # [B,C,H,W]
    sigma: Tensor  # [B] the level by which the distance weighs, in units of x0


Pull = TargetSample
"""The former name, which targets outside this package may still import."""


class Target(Plugin):
    """Makes the samples that the distance compares the student's with."""

    kind = "target"
    needs_teacher: ClassVar[bool] = False
    """Whether the target asks the frozen teacher; a run whose target does not ask holds no teacher for it."""
    needs_pairs: ClassVar[bool] = False
    """Whether it is the batch's own sample: the student's input must then belong to that sample."""

    keeps_old: ClassVar[bool] = False
    """Whether it knows old samples among the batch's (`Batch.old`), which a share of old conditions asks for."""

    def __call__(
        self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, *, teacher: DenoiseFn, source: RowSource
    ) -> TargetSample:
        """The target of each row; called without gradients.

        Args:
            fake: the student's samples [B,C,H,W].
            x: the student's inputs [B,C,H,W], at levels `sigma` [B].
            batch: the teacher's samples of these rows.
            teacher: the frozen teacher with the recipe's guidance (only if `needs_teacher`).
            source: random numbers of these rows; there is no other source.
        """
        raise NotImplementedError


def no_teacher(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """The stand-in for the teacher in a run whose target asks none.

    Raises:
        UserError: the target asked it.
    """
    raise UserError("the target asks the teacher, which this run does not hold: set needs_teacher = True in its class")
