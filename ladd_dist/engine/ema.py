"""Exponential moving average of weights (Karras et al. 2022, arXiv 2206.00364, section F.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ladd_dist.parallel import FlatShard


class WeightAverage:
    """A copy of weights that follows them: w <- beta w + (1 - beta) w_new, beta = 0.5^(batch / half-life).

    Works on this rank's part of each weight, so a sharded network has a sharded average, and nothing is sent.
    """

    def __init__(self, weights: Mapping[str, FlatShard], *, half_life: int, ramp: float, batch_size: int) -> None:
        """half_life in samples (0: the copy is always the last state); ramp: half-life is at most ramp x samples
        seen (0: no such limit)."""
        self.half_life, self.ramp, self.batch_size = half_life, ramp, batch_size
        self.live = [part.tensor.detach() for part in weights.values()]
        self.weights = {name: part._replace(tensor=part.tensor.detach().clone()) for name, part in weights.items()}

    def beta(self, updates: int) -> float:
        """The decay of the update number `updates` (1 at the first)."""
        half_life: float = self.half_life
        if self.ramp > 0:
            half_life = min(half_life, self.ramp * updates * self.batch_size)
        return 0.5 ** (self.batch_size / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow the weights after their update number `updates`."""
        own = [part.tensor for part in self.weights.values()]
        torch._foreach_lerp_(own, self.live, 1 - self.beta(updates))

    def parts(self) -> dict[str, FlatShard]:
        """The tensors of a checkpoint."""
        return {f"average/{name}": part for name, part in self.weights.items()}
