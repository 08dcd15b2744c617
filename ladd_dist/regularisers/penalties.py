"""Penalties on the heads' gradient with respect to their inputs, the teacher's features: no pass through the teacher.

Each head plays its own game, so each has its own penalty, and the penalties are averaged over heads as the losses are.
All heads go through one call and one `autograd.grad`: a head sees only its own tap, so the gradient of the sum of
all logits with respect to one tap's features is that head's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, NonNegative
from ladd_dist.regularisers import HeadsFn, PenaltyInputs, Regulariser, of_samples, one_in


def _input_gradients(heads: HeadsFn, features: dict[str, Tensor], cond_vec: Tensor, *, mean: bool) -> list[Tensor]:
    """Per tap, the gradient [B,c*h*w] (float32, with graph) of each sample's summed or mean logit."""
    inputs = {tap: value.detach().requires_grad_(True) for tap, value in features.items()}
    with torch.enable_grad():
        # Views: PyTorch's FLOP counter, under which a launch tries the step, cannot follow leaves in `autograd.grad`.
        logits = heads({tap: value.view_as(value) for tap, value in inputs.items()}, cond_vec)
        per_head = [value.float().mean(dim=1) if mean else value.float().sum(dim=1) for value in logits.values()]
        total = torch.stack([value.sum() for value in per_head]).sum()
        gradients = torch.autograd.grad(total, list(inputs.values()), create_graph=True)
    return [gradient.float().flatten(1) for gradient in gradients]


@dataclass(frozen=True)
class _SquaredSlope(Regulariser):
    gamma: NonNegative = 1.0
    """Twice the factor of the penalty in the heads' loss."""
    every: Count = 1
    """One sample in so many is looked at: the same penalty on average over batches, for less work."""

    def slope(self, inputs: PenaltyInputs, *sides: dict[str, Tensor]) -> Tensor:
        """The squared norm (0-d) of the gradient of each sample's summed logits, a sum over the sides' features of the
        mean over samples and heads; the sides go through the heads in one call."""
        picked, num = one_in(self.every, inputs.source), len(inputs.source.rows)
        shown = {tap: torch.cat([of_samples(side[tap], num, picked.rows) for side in sides]) for tap in sides[0]}
        cond_vec = torch.cat([of_samples(inputs.cond_vec, num, picked.rows)] * len(sides))
        gradients = _input_gradients(inputs.heads, shown, cond_vec, mean=False)
        slope = torch.stack([gradient.square().sum(dim=1).mean() for gradient in gradients]).mean()
        return len(sides) * picked.weight * slope

    def draws(self) -> bool:
        return False


@register("none")
@dataclass(frozen=True)
class NoRegulariser(Regulariser):
    """No penalty: zero, without calling the heads."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """A zero on the device of the inputs."""
        return torch.zeros((), device=inputs.cond_vec.device)

    def differentiates(self) -> bool:
        return False

    def draws(self) -> bool:
        return False


@register("gradient_penalty")
@dataclass(frozen=True)
class GradientPenalty(Regulariser):
    """weight E(||grad|| - 1)^2 on features between real and fake (WGAN-GP, Gulrajani et al. 2017, arXiv 1704.00028).

    The norm is taken per sample and head; a head's critic is the mean of its K logits, as in the loss. One place
    between real and fake is drawn a sample and shared by all its taps.
    """

    weight: NonNegative = 10.0
    """Factor of the penalty in the heads' loss."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """Scalar penalty; `inputs.source` draws the place between real and fake, uniform in [0, 1)."""
        place = inputs.source.uniform()
        between = {}
        for tap, value in inputs.real.items():
            share = place.to(value.dtype).view(-1, 1, 1, 1)
            between[tap] = share * value + (1 - share) * inputs.fake[tap]
        gradients = _input_gradients(inputs.heads, between, inputs.cond_vec, mean=True)
        penalties = [(gradient.norm(dim=1) - 1).square().mean() for gradient in gradients]
        return self.weight * torch.stack(penalties).mean()


@register("r1")
@dataclass(frozen=True)
class R1(_SquaredSlope):
    """gamma/2 E||d sum(real logits) / d features||^2 (Mescheder et al. 2018, arXiv 1801.04406, eq. 9)."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """Scalar penalty on the real features alone."""
        return 0.5 * self.gamma * self.slope(inputs, inputs.real)


@register("r2")
@dataclass(frozen=True)
class R2(_SquaredSlope):
    """gamma/2 E||d sum(fake logits) / d features||^2: R1 on the student's samples (arXiv 1801.04406, eq. 10)."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """Scalar penalty on the fake features alone."""
        return 0.5 * self.gamma * self.slope(inputs, inputs.fake)


@register("r1_r2")
@dataclass(frozen=True)
class R1R2(_SquaredSlope):
    """R1 plus R2 with one gamma, as R3GAN has them beside the relativistic game (Huang et al. 2024, arXiv 2501.05441).

    For two factors, take the regulariser `sum` of `r1` and `r2`.
    """

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """Scalar penalty: that on the real features plus that on the fake ones."""
        return 0.5 * self.gamma * self.slope(inputs, inputs.real, inputs.fake)
