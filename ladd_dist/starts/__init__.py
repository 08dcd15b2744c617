"""Kind `start`: the noise coupling, which makes the student's input."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Batch


class Start(Plugin):
    """Coupling of the teacher's samples with noise, which gives the student's input."""

    kind = "start"
    rule: ClassVar[Literal["sde", "ode"]] = "sde"
    """Matching sampling rule: `sde` re-noises with new noise each step, `ode` keeps the noise's direction."""
    needs_path: ClassVar[bool] = False
    """Whether the shards must hold the teacher's states at the student's levels."""

    needs_pairs: ClassVar[bool] = False
    """Whether the stored noise must determine the sample, as it does with a sampler that adds none."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        """Student's input [B,C,H,W] at levels sigma [B] in units of x0; eps [B,C,H,W] is fresh unit noise.

        Raises:
            ValueError: the batch lacks the noise or the states that this coupling needs.
        """
        raise NotImplementedError
