"""The adversarial gradient at the student's samples, divided by its usual size: the weight then means the same whatever
the scale of the heads."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.engine.checkpoint import replicated
from ladd_dist.parallel import FlatShard
from ladd_dist.parallel.ranks import SINGLE, Ranks


class AdversarialNorm:
    """Divides by the root of a running mean of the squared norm of a sample's adversarial gradient.

    The mean is over samples of all ranks and micro-batches, then over steps: m' = decay m + (1 - decay) m_now, with
    Adam's correction of its start. A step divides by what the steps before it saw, so that all its micro-batches are
    divided by the same; the first one only looks. Nothing here waits for the device.
    """

    def __init__(self, decay: float, ranks: Ranks = SINGLE, device: torch.device | None = None) -> None:
        """decay in [0, 1); 0 turns it off."""
        self.decay, self.ranks = decay, ranks
        self.state = torch.zeros(2, device=device)
        """The running sum of mean squares, and the running sum of their weights."""
        self.seen: list[Tensor] = []
        self.factor: Tensor | None = None

    def root(self) -> Tensor:
        """The usual norm of a sample's adversarial gradient (0-d); 0 before anything was seen."""
        return torch.where(self.state[1] > 0, self.state[0] / self.state[1], 0.0).sqrt()

    def towards_heads(self, fake: Tensor) -> Tensor:
        """Return the samples [B,C,H,W] as a branch through which only the adversarial gradient comes back, divided."""
        branch = fake.view_as(fake)
        if not self.decay or not branch.requires_grad:
            return fake
        branch.register_hook(self._divide)  # type: ignore[no-untyped-call]
        return branch

    def weighed(self, loss: Tensor) -> Tensor:
        """Return the adversarial loss (0-d, a mean over samples), to be called before it is multiplied by its weight.

        Its gradient is the weight times whatever else multiplies gradients: micro-batches, fp16's scale.
        """
        if self.decay:
            loss.register_hook(self._remember)  # type: ignore[no-untyped-call]
        return loss

    def _remember(self, factor: Tensor) -> None:
        self.factor = factor.detach()

    def _divide(self, gradient: Tensor) -> Tensor:
        assert self.factor is not None
        own = gradient.detach().float() / self.factor * len(gradient)  # of each sample's own loss
        self.seen.append(own.square().sum() / len(gradient))
        root = self.root()
        return gradient * torch.where(root > 0, 1 / root, 0.0).to(gradient.dtype)

    def advance(self) -> dict[str, Tensor]:
        """Take the step into the mean, after an update, on every rank; returns the usual norm."""
        if not self.seen:
            return {}
        now = self.ranks.sum_on_device(torch.stack(self.seen).mean()) / self.ranks.size
        self.seen = []
        moved = self.decay * self.state + (1 - self.decay) * torch.stack([now, torch.ones_like(now)])
        self.state.copy_(torch.where(now.isfinite(), moved, self.state))  # an overflow in fp16 is no observation
        return {"grad_norm/adversarial": self.root()}

    def parts(self) -> dict[str, FlatShard]:
        """The tensors of a checkpoint; none where it is off."""
        return {"adv_norm/state": replicated(self.state)} if self.decay else {}
