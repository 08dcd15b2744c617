"""A regulariser that adds up others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.regularisers import PenaltyInputs, Regulariser
from ladd_dist.regularisers.approximate import ApproximateR1, ApproximateR2


@register("sum")
@dataclass(frozen=True)
class Sum(Regulariser):
    """The sum of several regularisers, each with its own weight."""

    terms: tuple[Regulariser, ...] = (ApproximateR1(), ApproximateR2())
    """Regularisers that are added up."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """Scalar; the terms draw from the source one after the other."""
        total = torch.zeros((), device=inputs.cond_vec.device)
        for term in self.terms:
            total = total + term(inputs)
        return total

    def differentiates(self) -> bool:
        return any(term.differentiates() for term in self.terms)

    def draws(self) -> bool:
        return any(term.draws() for term in self.terms)
