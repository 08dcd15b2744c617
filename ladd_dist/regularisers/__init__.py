"""Kind `regulariser`: what keeps the heads smooth."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.rng import RowSource

HeadsFn = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]
"""(features by tap [B,c,h,w], cond_vec [B,E]) -> logits by tap [B,K]."""


class Regulariser(Plugin):
    """A penalty added to the heads' loss."""

    kind = "regulariser"

    def __call__(
        self,
        heads: HeadsFn,
        real: dict[str, Tensor],
        fake: dict[str, Tensor],
        cond_vec: Tensor,
        source: RowSource,
    ) -> Tensor:
        """Scalar penalty for detached features real, fake (tap -> [B,c,h,w]) with embeddings cond_vec [B,E].

        `source` draws random numbers a sample: the same ones whichever process computes the sample.
        """
        raise NotImplementedError
