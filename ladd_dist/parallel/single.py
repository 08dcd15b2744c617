"""One process, one device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ladd_dist.core.plugin import register
from ladd_dist.parallel import Parallel, Trainable


@register("single")
@dataclass(frozen=True)
class Single(Parallel):
    """One process on one device."""

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
        module = module.to(device)
        optimizer = torch.optim.AdamW(module.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
        return SingleTrainable(module, optimizer, clip)


class SingleTrainable:
    """A module with its AdamW; see `Trainable`."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> None:
        self.module, self.optimizer, self.clip = module, optimizer, clip
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update(self, loss: Tensor) -> Tensor:
        loss.backward()  # type: ignore[no-untyped-call]
        limit = self.clip if self.clip > 0 else float("inf")
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def set_lr_factor(self, factor: float) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        was_training = self.module.training
        self.module.eval()
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            self.module.train(was_training)

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
