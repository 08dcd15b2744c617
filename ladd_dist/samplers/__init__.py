"""Kind `sampler`: many-step samplers of the teacher."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import DenoiseFn


class Sampler(Plugin):
    """Turns noise into samples with many calls of a denoiser."""

    kind = "sampler"
    stochastic: ClassVar[bool] = False
    """Whether it adds noise on its way: a sample is then no smooth function of the noise that it started from."""

    def levels(self) -> tuple[float, ...]:
        """The descending levels of the steps, without the final 0."""
        raise NotImplementedError

    def num_calls(self) -> int:
        """Calls of the denoiser for one sample."""
        raise NotImplementedError

    def __call__(
        self, denoise: DenoiseFn, noise: Tensor, cond: Tensor, *, record: tuple[float, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Samples [B,C,H,W] from unit noise [B,C,H,W] and classes [B]; also the states [B,L,C,H,W] at `record`."""
        raise NotImplementedError
