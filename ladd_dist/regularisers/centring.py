"""What keeps the logits of real and fake samples around 0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.rng import RowSource
from ladd_dist.regularisers import HeadsFn, NearbyFn, Regulariser
from ladd_dist.regularisers.penalties import require_weight


@register("centring")
@dataclass(frozen=True)
class Centring(Regulariser):
    """weight E[(l_real + l_fake)^2]: games that see differences alone leave the logits' sum free to drift."""

    weight: float = 0.01

    def __post_init__(self) -> None:
        require_weight(self.name, "weight", self.weight)

    def __call__(
        self,
        heads: HeadsFn,
        real: dict[str, Tensor],
        fake: dict[str, Tensor],
        cond_vec: Tensor,
        source: RowSource,
        nearby: NearbyFn,
    ) -> Tensor:
        """Scalar penalty: mean over samples and logits, then over heads. Row by row: of one class and noise level."""
        both = {tap: torch.cat([value, fake[tap]]) for tap, value in real.items()}
        logits = heads(both, torch.cat([cond_vec, cond_vec]))
        pairs = [value.float().chunk(2) for value in logits.values()]
        return self.weight * torch.stack([(first + second).square().mean() for first, second in pairs]).mean()

    def differentiates(self) -> bool:
        return False
