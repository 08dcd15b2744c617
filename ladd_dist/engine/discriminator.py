"""The discriminator of LADD: the frozen teacher's features and light heads on them (arXiv 2403.12015, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ladd_dist.core.gan import check_logits
from ladd_dist.core.noise import SIGMA_DATA
from ladd_dist.core.types import Denoiser
from ladd_dist.heads import Head


class Seen(NamedTuple):
    """What the heads look at."""

    features: dict[str, Tensor]  # tap -> [B,c,h,w]
    cond_vec: Tensor  # [B,E]


class FrozenTeacher:
    """The teacher as a feature extractor: weights fixed, differentiable in its input, stops at the last tap."""

    def __init__(self, network: Denoiser, taps: tuple[str, ...]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.taps = taps

    def features(self, x0: Tensor, cond: Tensor, tau: Tensor, eps: Tensor) -> Seen:
        """Features of x0 [B,C,H,W], re-noised to levels tau [B] with unit noise eps [B,C,H,W]."""
        noised = x0 + tau.view(-1, 1, 1, 1) * eps
        return self.features_of(noised, cond, tau)

    def features_of(self, noised: Tensor, cond: Tensor, tau: Tensor) -> Seen:
        """Features of what is noised already [B,C,H,W], at levels tau [B]."""
        out = self.network(noised, tau, cond, taps=self.taps, denoise=False)
        return Seen(out.features, out.cond_vec)

    @torch.no_grad()
    def nearby(self, x0: Tensor, cond: Tensor, draws: tuple[Tensor, Tensor], shift: Tensor) -> dict[str, Tensor]:
        """Features of x0 [B,C,H,W] re-noised by draws = (tau [B], eps like x0), with the *noised* input moved by shift.

        The shift [B,C,H,W] is in units of the network's input c_in x, c_in = 1 / sqrt(tau^2 + sigma_data^2). Real and
        moved input have the same noise: a clean input against a noised one would differ by tau.
        """
        tau, eps = draws
        level = tau.view(-1, 1, 1, 1)
        noised = x0 + level * eps + shift * torch.sqrt(level**2 + SIGMA_DATA**2)
        return self.features_of(noised, cond, tau).features


class Heads(nn.Module):
    """One independent head a tap."""

    def __init__(self, head: Head, network: Denoiser, taps: tuple[str, ...]) -> None:
        super().__init__()
        self.head_name = head.name
        self.taps = taps
        self.heads = nn.ModuleDict(
            {tap: head.build(channels=network.taps[tap].channels, cond_dim=network.cond_dim) for tap in taps}
        )

    def forward(self, features: dict[str, Tensor], cond_vec: Tensor) -> dict[str, Tensor]:
        """Logits [B,K] of each head.

        Raises:
            ValueError: a head returned another shape; the message names it.
        """
        logits = {}
        for tap in self.taps:
            logits[tap] = self.heads[tap](features[tap], cond_vec)
            check_logits(tap, logits[tap], len(cond_vec), head=self.head_name)
        return logits

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The weights of each head."""
        return {tap: list(self.heads[tap].parameters()) for tap in self.taps}


def join(real: Seen, fake: Seen) -> Seen:
    """Both along the batch, detached: one call of the heads in place of two."""
    features = {tap: torch.cat([real.features[tap], fake.features[tap].detach()]) for tap in real.features}
    return Seen(features, torch.cat([real.cond_vec, fake.cond_vec]).detach())


def split(logits: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inverse of `join` on logits: (real, fake)."""
    halves = {tap: value.chunk(2) for tap, value in logits.items()}
    return {tap: half[0] for tap, half in halves.items()}, {tap: half[1] for tap, half in halves.items()}
