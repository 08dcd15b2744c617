"""Rollouts: the student's inputs from the teacher's samples, from its own steps, or from every one of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Share
from ladd_dist.core.rng import RowSource
from ladd_dist.rollouts import Inputs, Rollout


@register("off_policy")
@dataclass(frozen=True)
class OffPolicy(Rollout):
    """Inputs that the coupling makes from the teacher's samples, as in LADD."""

    def __call__(
        self, given: Inputs, own: Callable[[], Iterator[Tensor]], levels: tuple[float, ...], source: RowSource
    ) -> Inputs:
        return given


@register("on_policy")
@dataclass(frozen=True)
class OnPolicy(Rollout):
    """Inputs that the student's own previous steps make, from its highest level down, for a share of the rows.

    The student meets such inputs when it samples; the teacher's samples are better than its own at that point. Costs
    N - 1 forwards of the student without gradients, N its number of levels, whatever the share.
    """

    share: Share = 0.5
    """Share of the rows with the student's own inputs, 0 (off policy) to 1."""
    needs_levels = True

    def keeps_pairs(self) -> bool:
        return self.share == 0

    def __call__(
        self, given: Inputs, own: Callable[[], Iterator[Tensor]], levels: tuple[float, ...], source: RowSource
    ) -> Inputs:
        if self.share == 0:
            return given
        known = torch.tensor(levels, dtype=given.sigma.dtype).to(given.sigma.device, non_blocking=True)
        which = (known[None] - given.sigma[:, None]).abs().argmin(dim=1)
        chosen = source.uniform() < self.share
        x = given.x
        for number, state in enumerate(own()):
            x = torch.where((chosen & (which == number)).view(-1, 1, 1, 1), state, x)
        return given._replace(x=x)


@register("every_step")
@dataclass(frozen=True)
class EveryStep(Rollout):
    """Inputs at all levels of the student's own run, both losses on each step (Kandinsky 3.1, arXiv 2312.03511).

    N - 1 forwards without gradients give the inputs; one forward with a graph then takes all N x B of them. Gradients
    do not flow from a step to the one before. `student_sigma` has no effect: every row is at every level.
    """

    needs_levels = True

    def keeps_pairs(self) -> bool:
        return False

    def repeats(self, num_levels: int) -> int:
        return num_levels

    def __call__(
        self, given: Inputs, own: Callable[[], Iterator[Tensor]], levels: tuple[float, ...], source: RowSource
    ) -> Inputs:
        sigma = [torch.full_like(given.sigma, level) for level in levels]
        return Inputs(torch.cat(list(own())), torch.cat(sigma))
