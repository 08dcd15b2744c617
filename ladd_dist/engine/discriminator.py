"""The discriminator: the features of a frozen network, LADD's teacher or another, and light heads on them.

LADD: arXiv 2403.12015, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ladd_dist.core.gan import check_logits
from ladd_dist.core.noise import SIGMA_DATA
from ladd_dist.core.types import Denoiser
from ladd_dist.heads import Head


class CriticOutput(NamedTuple):
    """The features that the heads look at, and the embedding of level and class that they are conditioned on.

    Where the heads see the student's level, its code follows in `cond_vec`.
    """

    features: dict[str, Tensor]  # tap -> [B,c,h,w]
    cond_vec: Tensor  # [B,E]


@dataclass(frozen=True)
class LevelCode:
    """Code of the noise level that the student starts from: cos(pi k t), k = 1 .. `dim`.

    t is the level's place among the student's, 0 at the lowest and 1 at the highest, on a logarithmic scale.
    """

    lowest: float
    """Level in units of x0."""
    highest: float
    dim: ClassVar[int] = 8

    def __call__(self, sigma: Tensor) -> Tensor:
        """The code [R,dim] of levels sigma [R] in units of x0; levels beyond the ends count as the ends."""
        span = math.log(self.highest / self.lowest) or 1.0
        place = ((sigma / self.lowest).log() / span).clamp(0.0, 1.0)
        return torch.cos(math.pi * place[:, None] * torch.arange(1, self.dim + 1, device=sigma.device))


class FrozenCritic:
    """A network as a feature extractor: weights fixed, differentiable in its input, stops at the last tap."""

    def __init__(
        self, network: Denoiser, taps: tuple[str, ...], renoises: bool = True, level_code: LevelCode | None = None
    ) -> None:
        """Freeze the network.

        Args:
            renoises: whether samples are re-noised for the network, as LADD's teacher needs it.
            level_code: tells the heads the student's level; None: they do not see it.
        """
        self.network = network.eval().requires_grad_(False)
        self.taps, self.renoises, self.level_code = taps, renoises, level_code

    def features(self, x0: Tensor, cond: Tensor, tau: Tensor, eps: Tensor, sigma: Tensor) -> CriticOutput:
        """Features of x0 [B,C,H,W], re-noised (if so) to levels tau [B] with unit noise eps [B,C,H,W].

        Args:
            sigma: levels [B] from which the student makes its samples of these rows; a real sample has its row's.
        """
        seen = self._critique(self._shown(x0, tau, eps), cond, tau)
        if self.level_code is None:
            return seen
        code = self.level_code(sigma).to(seen.cond_vec.dtype)
        return seen._replace(cond_vec=torch.cat([seen.cond_vec, code], dim=1))

    @torch.no_grad()
    def nearby(self, x0: Tensor, cond: Tensor, draws: tuple[Tensor, Tensor], shift: Tensor) -> dict[str, Tensor]:
        """Features of x0 at draws = (tau, eps), of an input moved by shift [B,C,H,W] after it was re-noised.

        The shift is in units of the network's input c_in x, c_in = 1 / sqrt(tau^2 + sigma_data^2); in those of x0 where
        nothing is re-noised. A clean input against a noised one would differ by tau, not by the shift.
        """
        tau, eps = draws
        scale = torch.sqrt(tau.view(-1, 1, 1, 1) ** 2 + SIGMA_DATA**2) if self.renoises else 1.0
        return self._critique(self._shown(x0, tau, eps) + scale * shift, cond, tau).features

    def _shown(self, x0: Tensor, tau: Tensor, eps: Tensor) -> Tensor:
        return x0 + tau.view(-1, 1, 1, 1) * eps if self.renoises else x0

    def _critique(self, shown: Tensor, cond: Tensor, tau: Tensor) -> CriticOutput:
        out = self.network(shown, tau, cond, taps=self.taps, denoise=False)
        return CriticOutput(out.features, out.cond_vec)


class Heads(nn.Module):
    """The heads of a discriminator: an independent one for each tap."""

    def __init__(self, head: Head, network: Denoiser, taps: tuple[str, ...], level_dim: int = 0) -> None:
        """level_dim: numbers that follow the network's own in `cond_vec`: the code of the student's level."""
        super().__init__()
        self.head_name = head.name
        self.taps = taps
        cond_dim = network.cond_dim + level_dim
        self.heads = nn.ModuleDict(
            {tap: head.build(channels=network.taps[tap].channels, cond_dim=cond_dim) for tap in taps}
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


def join(*outputs: CriticOutput) -> CriticOutput:
    """Concatenate outputs of equally many samples along the batch, detached: one call of the heads serves all."""
    features = {tap: torch.cat([out.features[tap].detach() for out in outputs]) for tap in outputs[0].features}
    return CriticOutput(features, torch.cat([out.cond_vec.detach() for out in outputs]))


def split(logits: dict[str, Tensor], num: int) -> list[dict[str, Tensor]]:
    """The inverse of `join` on the logits of `num` outputs."""
    chunks = {tap: value.chunk(num) for tap, value in logits.items()}
    return [{tap: parts[place] for tap, parts in chunks.items()} for place in range(num)]
