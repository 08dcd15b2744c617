"""Kind `sampler`: many-step samplers of the teacher."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import DenoiseFn


class Sampler(Plugin):
    """Many-step sampler, which turns noise into samples with many calls of a denoiser."""

    kind = "sampler"
    stochastic: ClassVar[bool] = False
    """Whether sampling adds noise: a sample is then no smooth function of its initial noise."""

    def clips(self) -> bool:
        """Whether it clips the denoiser's outputs to the range of pixels, which latents do not keep to."""
        return False

    def levels(self) -> tuple[float, ...]:
        """Descending levels of the steps in units of x0, without the final 0."""
        raise NotImplementedError

    def num_calls(self) -> int:
        """Number of calls of the denoiser for one sample."""
        raise NotImplementedError

    def __call__(
        self, denoise: DenoiseFn, noise: Tensor, cond: Tensor, *, record: tuple[float, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Samples [B,C,H,W] from unit noise [B,C,H,W] and classes [B], and the states [B,L,C,H,W] at `record`.

        Raises:
            ValueError: a level of `record` is not above 0 and at most the first level.
        """
        raise NotImplementedError
