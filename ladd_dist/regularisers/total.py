"""Several penalties at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.rng import RowSource
from ladd_dist.regularisers import HeadsFn, NearbyFn, Regulariser
from ladd_dist.regularisers.approximate import ApproximateR1, ApproximateR2


@register("sum")
@dataclass(frozen=True)
class Sum(Regulariser):
    """The sum of several regularisers, each with its own weight."""

    terms: tuple[Regulariser, ...] = (ApproximateR1(), ApproximateR2())

    def __call__(
        self,
        heads: HeadsFn,
        real: dict[str, Tensor],
        fake: dict[str, Tensor],
        cond_vec: Tensor,
        source: RowSource,
        nearby: NearbyFn,
    ) -> Tensor:
        """Scalar; the terms draw from the source one after the other."""
        total = torch.zeros((), device=cond_vec.device)
        for term in self.terms:
            total = total + term(heads, real, fake, cond_vec, source, nearby)
        return total

    def differentiates(self) -> bool:
        return any(term.differentiates() for term in self.terms)
