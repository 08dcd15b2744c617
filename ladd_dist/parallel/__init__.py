"""Kind `parallel`: how a network and its optimizer are spread over processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ladd_dist.core.plugin import Plugin
from ladd_dist.parallel.compute import Compute, Role
from ladd_dist.parallel.ranks import Ranks

Quantity = Literal["weight", "exp_avg", "exp_avg_sq"]
QUANTITIES: tuple[Quantity, ...] = ("weight", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Adam:
    """Settings of one AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101); `clip` <= 0 means no clipping."""

    lr: float
    betas: tuple[float, float]
    weight_decay: float
    clip: float


class FlatShard(NamedTuple):
    """A rank's part of one tensor: a contiguous range of the flattened whole, under every strategy."""

    tensor: Tensor
    """Live; its first stop - start elements in row-major order are elements start .. stop - 1 of the whole."""
    start: int
    stop: int
    shape: torch.Size
    """Shape of the whole tensor."""
    copies: bool
    """Whether every rank holds the whole."""

    def fill(self, flat: Tensor) -> None:
        """Overwrite with `flat` [stop - start]."""
        if len(flat) == self.tensor.numel():
            self.tensor.copy_(flat.view(self.tensor.shape))
        else:  # a sharded tensor is padded to the same length on every rank
            self.tensor.view(-1)[: len(flat)].copy_(flat)

    def flat(self) -> Tensor:
        """A copy of this rank's elements [stop - start]."""
        return self.tensor.detach().reshape(-1)[: self.stop - self.start].clone()


class Trainable(Protocol):
    """One network and its optimizer, whatever the strategy. The engine knows nothing else about either."""

    module: nn.Module
    accumulate: int
    """Number of micro-batches in an update."""
    group_norms: dict[str, Tensor]
    """Gradient norms (0-d) of the last update, over all ranks and before clipping, of the parts that the module names
    in `parameter_groups()`; empty where there are none, or where the strategy cannot tell (DeepSpeed)."""
    skipped: Tensor | None
    """Whether the last update left the network as it was (0-d, bool, the same on every rank), because gradients of the
    scaled loss overflowed; None where the loss is not scaled. A strategy without this attribute scales no loss."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network's forward."""
        ...

    def update(self, loss_of: Callable[[int], Tensor]) -> Tensor:
        """One optimizer step on the mean over ranks and micro-batches of `loss_of(micro-batch)`.

        `loss_of` is called with 0 .. accumulate - 1, in order. Gradients are reduced over ranks in the last one,
        clipped and cleared. Returns the gradient norm over all ranks before clipping (0-d).
        """
        ...

    def set_lr_factor(self, factor: float) -> None:
        """Multiply the base learning rate."""
        ...

    def frozen(self) -> AbstractContextManager[None]:
        """Let gradients pass through the network, inside, without keeping or reducing any; it is in eval mode.

        Eval mode because spectral norm's power iteration moves its buffers in every training-mode forward.
        """
        ...

    def local(self, quantity: Quantity) -> dict[str, FlatShard]:
        """This rank's part of every weight, or of its first or second moment, by parameter name."""
        ...

    def counters(self) -> dict[str, float]:
        """The optimizer's other state: `updates` done; for a scaled loss its `scale` and how many were `skipped`."""
        ...

    def set_counters(self, counters: dict[str, float]) -> None:
        """Restore what `counters` returned."""
        ...


class Parallel(Plugin):
    """A strategy: how trainables and the frozen teacher are made."""

    kind = "parallel"
    needs_group: ClassVar[bool] = False
    """Whether it works through a process group, also with one rank."""

    def require(self, role: Role, compute: Compute) -> None:
        """Refuse, before any stage runs, what this strategy cannot compute.

        Raises:
            UserError: says what would work.
        """

    def build(
        self, module: nn.Module, *, role: Role, adam: Adam, compute: Compute, ranks: Ranks, device: torch.device
    ) -> Trainable:
        """Move the module to the device, spread it over ranks, and give it an AdamW of its own.

        Raises:
            ValueError: this strategy cannot do what `compute` asks for, or not with these ranks.
        """
        raise NotImplementedError

    def freeze(self, module: nn.Module, *, compute: Compute, ranks: Ranks, device: torch.device) -> nn.Module:
        """The frozen teacher on the device, in the dtype of its computation: a replica on every rank, or sharded."""
        raise NotImplementedError
