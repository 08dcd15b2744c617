"""R1 and R2 without a second derivative: how far the logits move when the noised input is moved a little.

For a small eps and unit normal n, (l(x + eps n) - l(x))^2 / eps^2 = (g . n)^2 + O(eps) with g the gradient of the logit
with respect to the input, and E (g . n)^2 = |g|^2: on average over n it is the exact penalty, whose gradient would need
a second derivative of heads and teacher. (Lin et al. 2025, arXiv 2501.08316, section 3.4, who leave out the division:
their weight 100 at eps .01 is .01 here.)

In bf16, rounding moves the logits too: by 2^-9 of them or so, which eps divides. Take a larger eps there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, NonNegative, Positive
from ladd_dist.regularisers import PenaltyInputs, Regulariser, Side, of_samples, one_in


@dataclass(frozen=True)
class _Approximate(Regulariser):
    side: ClassVar[Side]
    weight: NonNegative = 0.01
    """Factor of the penalty in the heads' loss."""
    eps: Positive = 0.01
    """How far the noised input is moved, in units of the network's input c_in x."""
    every: Count = 4
    """One sample in so many is looked at: the teacher sees it once more."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """weight E[(l(x') - l(x))^2] / eps^2 over samples, logits and heads; samples 0, every, 2 every, ... of the
        global batch, whichever process has them."""
        picked, num = one_in(self.every, inputs.source), len(inputs.source.rows)
        features = inputs.real if self.side == "real" else inputs.fake
        moved = inputs.nearby(self.side, picked.rows, self.eps)
        both = {tap: torch.cat([of_samples(value, num, picked.rows), moved[tap]]) for tap, value in features.items()}
        logits = inputs.heads(both, torch.cat([of_samples(inputs.cond_vec, num, picked.rows)] * 2))
        squares = []
        for value in logits.values():
            before, after = value.float().chunk(2)
            squares.append(((after - before) / self.eps).square().mean())
        # A row that stands in for none costs a call and counts nothing: each process calls the teacher equally often.
        return self.weight * picked.weight * torch.stack(squares).mean()

    def differentiates(self) -> bool:
        return False


@register("approximate_r1")
@dataclass(frozen=True)
class ApproximateR1(_Approximate):
    """weight E[(l(x') - l(x))^2] / eps^2, x' the noised real input moved by eps: R1 on the input, approximately."""

    side = "real"


@register("approximate_r2")
@dataclass(frozen=True)
class ApproximateR2(_Approximate):
    """The same as `approximate_r1` on the student's samples."""

    side = "fake"
