"""The student that the distance alone would converge to, computed from the stored pairs without a network.

Training draws a stored pair i of class c and an input x from the coupling; the target is the teacher's sample x0_i. The
function of (x, sigma, c) with the least expected squared error is the posterior mean E[x0 | x, sigma, c]. A coupling
whose input is centre_i + spread eps, eps unit noise, has

    D*(x) = sum_i w_i x0_i,   w_i proportional to exp(-|x - centre_i|^2 / (2 spread^2)),   i over the pairs of class c

(`fresh`: centre_i = x0_i, spread = sigma). With spread 0 (`stored`, `path`) each pair has a single input, where D* is
the pair's own sample: nothing is averaged. At any other input the training loss is silent; D* is then the limit of
small spread, the sample of the nearest pair, as of a student that only memorises.

The sum includes the pair that an input was made from: D* is the optimum of the loss over these shards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import generator
from ladd_dist.core.types import Batch
from ladd_dist.starts import Start

_TOLERANCE = 1e-4
_QUERIES, _PAIRS = 256, 1024
"""Inputs and pairs that are compared at a time, which bounds the memory."""


class Coupling(NamedTuple):
    """The student's input at one level, centre + spread eps with unit noise eps."""

    centre: Tensor  # [N,C,H,W] float64
    spread: float


class Weighed(NamedTuple):
    """The posterior at some inputs."""

    mean: Tensor  # [B,C,H,W] E[x0 | x, sigma, class], float32
    averaged: Tensor  # [B] effective number of samples in the mean, 1 / sum w^2 (Kish), float32


def coupling_at(start: Start, batch: Batch, sigma: float) -> Coupling:
    """The form of a coupling's inputs at a level, found by probing the coupling.

    Raises:
        UserError: the batch lacks what the coupling needs, or its noise is not added with one factor for all samples.
    """
    batch = _double(batch)
    level = torch.full((len(batch.x0),), sigma, dtype=torch.float64, device=batch.x0.device)
    centre = start(batch, level, torch.zeros_like(batch.x0))
    probe = torch.randn(batch.x0.shape, generator=generator("coupling-probe"), dtype=torch.float64)
    probe = probe.to(batch.x0.device)
    moved = start(batch, level, probe) - centre
    spread = float((moved * probe).sum() / probe.square().sum())
    scale = max(abs(spread), sigma)
    if float((moved - spread * probe).abs().max()) > _TOLERANCE * scale * float(probe.abs().max()):
        raise UserError(
            f"start {start.name!r} does not add its noise with one factor for all samples, so the posterior of its "
            "pairs has no closed form; `ladd diagnose` knows couplings of the form centre + spread * noise"
        )
    return Coupling(centre, abs(spread) if abs(spread) > _TOLERANCE * sigma else 0.0)


class PosteriorMean:
    """D*(x; sigma, c) over stored pairs, a `DenoiseFn`. Computed in float64, in chunks."""

    def __init__(self, pairs: Batch, start: Start) -> None:
        """pairs: the stored samples that stand for the whole set, x0 [N,C,H,W]."""
        self.pairs, self.start = pairs, start
        self.rows = {int(c): (pairs.cond == c).nonzero().flatten() for c in _classes(pairs.cond)}

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        return self.weigh(x, sigma, cond).mean

    def spread(self, sigma: float) -> float:
        """Standard deviation of the inputs of one pair at a level; 0: each pair has a single input."""
        few = torch.arange(min(2, len(self.pairs.x0)))
        return coupling_at(self.start, _take(self.pairs, few), sigma).spread

    def inputs(self, which: Tensor, sigma: float, eps: Tensor) -> Tensor:
        """The student's inputs [n,C,H,W] at a level, made from the pairs `which` [n] and unit noise eps [n,C,H,W]."""
        batch = _take(self.pairs, which)
        return self.start(batch, torch.full((len(which),), sigma, device=batch.x0.device), eps)

    @torch.inference_mode()
    def weigh(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Weighed:
        """The posterior at inputs x [B,C,H,W] of one level (sigma [B], all alike) and classes cond [B].

        Raises:
            UserError: sigma holds several levels, no sample of a class is stored, or the coupling is of another form.
        """
        level = float(sigma[0])
        if not bool((sigma == sigma[0]).all()):
            raise UserError("the posterior mean takes one noise level a call, got several")
        mean, averaged = torch.empty_like(x, dtype=torch.float32), torch.empty(len(x), device=x.device)
        for number in _classes(cond):
            if number not in self.rows:
                raise UserError(f"no stored sample of class {number}: use more samples (--num-samples)")
            own = _take(self.pairs, self.rows[number])
            centre, spread = coupling_at(self.start, own, level)
            for asked in torch.split((cond == number).nonzero().flatten(), _QUERIES):
                distances = _squared_distances(x[asked], centre)
                weights = _weights(distances, spread)
                mean[asked] = _mean(weights, own.x0).float()
                averaged[asked] = (1 / weights.square().sum(dim=1)).float()
        return Weighed(mean, averaged)


def _weights(distances: Tensor, spread: float) -> Tensor:
    """Weights [n,N] of the pairs from squared distances [n,N]: a softmax, or with spread 0 the nearest pair alone."""
    if spread == 0:
        return torch.nn.functional.one_hot(distances.argmin(dim=1), distances.shape[1]).double()
    return torch.softmax(distances / (-2 * spread**2), dim=1)


def _squared_distances(x: Tensor, centre: Tensor) -> Tensor:
    """|x_i - centre_j|^2 [n,N] in float64: at low noise the difference of the squares is a millionth of them."""
    query = x.flatten(1).double()
    parts = []
    for part in torch.split(centre, _PAIRS):
        there = part.flatten(1)
        parts.append(there.square().sum(dim=1) - 2 * query @ there.T)
    return torch.cat(parts, dim=1) + query.square().sum(dim=1, keepdim=True)


def _mean(weights: Tensor, x0: Tensor) -> Tensor:
    """sum_j weights[i,j] x0_j, [n,C,H,W] in float64."""
    total = torch.zeros((len(weights), x0[0].numel()), dtype=torch.float64, device=x0.device)
    for share, part in zip(torch.split(weights, _PAIRS, dim=1), torch.split(x0, _PAIRS), strict=True):
        total += share @ part.flatten(1).double()
    return total.view(-1, *x0.shape[1:])


def _take(batch: Batch, which: Tensor) -> Batch:
    noise, path = (None if tensor is None else tensor[which] for tensor in (batch.noise, batch.path))
    return Batch(batch.x0[which], batch.cond[which], noise, path, batch.path_levels)


def _double(batch: Batch) -> Batch:
    noise, path = (None if tensor is None else tensor.double() for tensor in (batch.noise, batch.path))
    return Batch(batch.x0.double(), batch.cond, noise, path, batch.path_levels)


def _classes(cond: Tensor) -> list[int]:
    return sorted(set(cond.tolist()))
