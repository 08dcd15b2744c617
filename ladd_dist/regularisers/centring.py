"""Penalty that centres real and fake logits on 0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import NonNegative
from ladd_dist.regularisers import PenaltyInputs, Regulariser


@register("centring")
@dataclass(frozen=True)
class Centring(Regulariser):
    """weight E[(l_real + l_fake)^2]: games that see differences alone leave the logits' sum free to drift."""

    weight: NonNegative = 0.01
    """Factor of the penalty in the heads' loss."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """Scalar penalty: mean over samples and logits, then over heads. Row by row: of one class and noise level."""
        both = {tap: torch.cat([value, inputs.fake[tap]]) for tap, value in inputs.real.items()}
        logits = inputs.heads(both, torch.cat([inputs.cond_vec, inputs.cond_vec]))
        pairs = [value.float().chunk(2) for value in logits.values()]
        return self.weight * torch.stack([(first + second).square().mean() for first, second in pairs]).mean()

    def differentiates(self) -> bool:
        return False

    def draws(self) -> bool:
        return False
