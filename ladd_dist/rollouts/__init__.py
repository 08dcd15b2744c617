"""Kind `rollout`: where the student's inputs come from, off or on its own policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.rng import RowSource


class Inputs(NamedTuple):
    """What the student is asked about: R rows, the batch's B of them once or several times, one behind the other."""

    x: Tensor  # [R,C,H,W]
    sigma: Tensor  # [R] levels, in units of x0


class Rollout(Plugin):
    """Makes the student's inputs from those of the coupling and from its own steps."""

    kind = "rollout"
    needs_levels: ClassVar[bool] = False
    """Whether inputs are made at the student's own levels alone: then `student_sigma` must draw from these."""

    def repeats(self, num_levels: int) -> int:
        """How often each row of the batch is in the inputs: R = repeats x B."""
        return 1

    def __call__(
        self, given: Inputs, own: Callable[[], Iterator[Tensor]], levels: tuple[float, ...], source: RowSource
    ) -> Inputs:
        """The student's inputs; called without gradients.

        How often `own` calls the student must depend on the settings alone: sharded weights are gathered by all ranks.

        Args:
            given: the coupling's inputs, B rows.
            own: starts the student's own run from its highest level, by the coupling's rule: yields its input
                [B,C,H,W] at each of `levels`, and asks the student between them.
            source: random numbers of the B rows.
        """
        raise NotImplementedError
