"""Kind `rollout`: the source of the student's inputs, off or on its own policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.rng import RowSource


class Inputs(NamedTuple):
    """Inputs of the student: R rows, the B rows of the batch once or several times, one copy after the other."""

    x: Tensor  # [R,C,H,W]
    sigma: Tensor  # [R] levels, in units of x0


class Rollout(Plugin):
    """Source of the student's inputs: those of the coupling, its own steps, or both."""

    kind = "rollout"
    needs_levels: ClassVar[bool] = False
    """Whether inputs exist at the student's own levels only: `student_sigma` must then draw from these."""

    def keeps_pairs(self) -> bool:
        """Whether each input belongs to the batch's sample of its row, also with a coupling that draws new noise."""
        return True

    def repeats(self, num_levels: int) -> int:
        """Number of times that each row of the batch is in the inputs: R = repeats x B."""
        return 1

    def __call__(
        self, given: Inputs, own: Callable[[], Iterator[Tensor]], levels: tuple[float, ...], source: RowSource
    ) -> Inputs:
        """Make the student's inputs; called without gradients.

        The number of calls of the student must depend on the settings alone: all ranks gather sharded weights together.

        Args:
            given: the coupling's inputs, B rows.
            own: function that starts the student's own run from its highest level, by the coupling's rule; it yields
                the input [B,C,H,W] at each of `levels` and calls the student between them.
            levels: the student's sampling levels in units of x0, descending.
            source: random numbers of the B rows.
        """
        raise NotImplementedError
