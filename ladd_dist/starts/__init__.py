"""Kind `start`: the noise coupling, what the student's input is made of."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Batch


class Start(Plugin):
    """Makes the student's input from a teacher's sample."""

    kind = "start"
    rule: ClassVar[Literal["sde", "ode"]] = "sde"
    """The sampling rule that matches: `sde` re-noises with new noise each step, `ode` keeps the noise's direction."""
    needs_path: ClassVar[bool] = False
    """Whether the shards must hold the teacher's states at the student's levels."""

    needs_pairs: ClassVar[bool] = False
    """Whether the sample must follow from the stored noise, as it does with a sampler that adds none."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        """The student's input [B,C,H,W] at levels sigma [B]; eps [B,C,H,W] is fresh unit noise.

        Raises:
            ValueError: the batch lacks what this coupling needs.
        """
        raise NotImplementedError
