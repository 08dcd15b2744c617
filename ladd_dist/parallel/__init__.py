"""Kind `parallel`: how a network and its optimizer are spread over processes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ladd_dist.core.plugin import Plugin


class Trainable(Protocol):
    """One network and its optimizer, whatever the strategy. The engine knows nothing else about either."""

    module: nn.Module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward."""
        ...

    def update(self, loss: Tensor) -> Tensor:
        """Backward, clip, one optimizer step, gradients cleared; returns the gradient norm before clipping (0-d)."""
        ...

    def set_lr_factor(self, factor: float) -> None:
        """Multiply the base learning rate."""
        ...

    def frozen(self) -> AbstractContextManager[None]:
        """Inside, gradients pass through the network but none are kept in it, and it is in eval mode.

        Eval mode because spectral norm's power iteration moves its buffers in every training-mode forward.
        """
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Parallel(Plugin):
    """Makes trainables."""

    kind = "parallel"

    def build(
        self,
        module: nn.Module,
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        clip: float,
        device: torch.device,
    ) -> Trainable:
        """Move the module to the device and give it an AdamW of its own. `clip` <= 0 means no clipping."""
        raise NotImplementedError
