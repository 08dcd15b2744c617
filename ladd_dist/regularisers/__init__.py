"""Kind `regulariser`: what keeps the heads smooth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.rng import RowSource

HeadsFn = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]
"""(features by tap [B,c,h,w], cond_vec [B,E]) -> logits by tap [B,K]."""

Side = Literal["real", "fake"]
NearbyFn = Callable[[Side, slice, float], dict[str, Tensor]]
"""(side, rows, eps) -> the critic's features, by tap, of the noised inputs of some samples, moved by eps n.

n is new unit normal noise, eps in units of the network's input c_in x. A pass through the critic, when it is called.
"""


def of_samples(value: Tensor, num: int, rows: slice) -> Tensor:
    """The rows of some of a batch's `num` samples, of a tensor [R,...] that has each of them once or, one behind the
    other, several times."""
    if len(value) == num:
        return value[rows]
    return value.view(-1, num, *value.shape[1:])[:, rows].flatten(0, 1)


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
        nearby: NearbyFn,
    ) -> Tensor:
        """Scalar penalty for detached features real, fake (tap -> [B,c,h,w]) with embeddings cond_vec [B,E].

        `source` draws random numbers a sample: the same ones whichever process computes the sample. `nearby` has to be
        called equally often by every process, with one sample at least: the critic may be spread over them.
        """
        raise NotImplementedError

    def differentiates(self) -> bool:
        """Whether the penalty is made of gradients, so that the heads are differentiated twice."""
        return True
