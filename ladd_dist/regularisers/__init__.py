"""Kind `regulariser`: penalties that keep the heads smooth."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

from torch import Tensor

from ladd_dist.core.plugin import Plugin, PluginError
from ladd_dist.core.rng import RowSource

HeadsFn = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]
"""(features by tap [B,c,h,w], cond_vec [B,E]) -> logits by tap [B,K]."""

Side = Literal["real", "fake"]
NearbyFn = Callable[[Side, slice, float], dict[str, Tensor]]
"""(side, rows, eps) -> the critic's features, by tap, of the noised inputs of some samples, moved by eps n.

n is new unit normal noise, eps in units of the network's input c_in x. A pass through the critic, when it is called.
"""


class PenaltyInputs(NamedTuple):
    """The heads, and what they were shown in one micro-batch."""

    heads: HeadsFn
    real: dict[str, Tensor]
    """The critic's features of the teacher's samples, detached: tap -> [B,c,h,w]."""
    fake: dict[str, Tensor]
    """The critic's features of the student's samples, detached."""
    cond_vec: Tensor
    """The critic's embedding of level and class [B,E], the same for both."""
    source: RowSource
    """Random numbers, a row a sample, the same whichever process computes the sample."""
    nearby: NearbyFn
    """Asks the critic for features of moved inputs. Every process has to call it equally often, with one sample at
    least: the critic may be spread over them."""


def of_samples(value: Tensor, num: int, rows: slice) -> Tensor:
    """The rows of some of a batch's `num` samples, of a tensor [R,...] that has each of them once or, one behind the
    other, several times."""
    if len(value) == num:
        return value[rows]
    return value.view(-1, num, *value.shape[1:])[:, rows].flatten(0, 1)


class Picked(NamedTuple):
    """The samples of a micro-batch that a penalty looks at, where it looks at one in so many."""

    rows: slice
    """Their rows in the micro-batch; never none, for each process has to do the same calls."""
    weight: float
    """Times a mean over these rows: averaged over processes, the mean over the picked samples of the global batch. 0
    where the row only stands in, because none of this micro-batch is picked."""


def one_in(every: int, source: RowSource) -> Picked:
    """Samples 0, every, 2 every, ... of the global batch, whichever process has them."""
    batch = source.rows
    first = -batch.first % every
    if first >= len(batch):
        return Picked(slice(0, None, len(batch)), 0.0)
    count = len(range(first, len(batch), every))
    return Picked(slice(first, None, every), batch.total / math.ceil(batch.total / every) * count / len(batch))


class Regulariser(Plugin):
    """A penalty added to the heads' loss."""

    kind = "regulariser"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse a class written for an older version, when it is used rather than when its module is imported.

        Raises:
            PluginError: `__call__` does not take `PenaltyInputs` alone; the message shows how to change it.
        """
        require_current(cls)
        return super().__new__(cls)

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        """The penalty (0-d): a mean over samples."""
        raise NotImplementedError

    def differentiates(self) -> bool:
        """Whether the penalty is made of gradients, so that the heads are differentiated twice."""
        return True

    def draws(self) -> bool:
        """Whether it asks for random numbers: of `source`, or of `nearby`. Such a step cannot be recorded."""
        return True


def require_current(cls: type[Regulariser]) -> None:
    """Refuse a regulariser whose `__call__` has the signature of an earlier version.

    Raises:
        PluginError: `__call__` does not take one argument; the message shows the new line.
    """
    signature = inspect.signature(cls.__call__)
    try:
        signature.bind("self", "inputs")
    except TypeError:
        taken = [name for name, item in signature.parameters.items() if item.kind is not item.VAR_KEYWORD][1:]
        raise PluginError(
            f"regulariser {cls.name or cls.__name__!r} ({cls.__module__}.{cls.__qualname__}): __call__ takes "
            f"({', '.join(taken)}), but a regulariser is now called with one argument. Write "
            "`def __call__(self, inputs: PenaltyInputs) -> Tensor:` (from ladd_dist.regularisers) and, as its first "
            f"line, `{', '.join(PenaltyInputs._fields)} = inputs`; the rest stays as it is"
        ) from None
