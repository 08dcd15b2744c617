"""Search for the N levels with which Euler's method comes nearest to many steps from the same noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.noise import is_descending
from ladd_dist.core.types import DenoiseFn

ROUNDS = 6
"""Rounds of the search; each halves the step in ln sigma: .7, .35, .. .022."""
SWEEPS = 2
"""Largest number of passes over all levels in a round; a pass that changes nothing ends the round."""

Levels = tuple[float, ...]


class Found(NamedTuple):
    """Best levels, their error, and the number of sets tried."""

    levels: Levels
    error: float
    tried: int


class _Called(NamedTuple):
    """State of the sampler before and after a call of the network."""

    level: float
    x: Tensor  # [n,C,H,W] noised at `level`
    x0: Tensor  # [n,C,H,W] denoised


class Pairs:
    """Noise, classes and the many-step samples made from them; a call with levels returns their error.

    The error is the mean square difference per pixel between the sample that the `ode` rule makes in `len(levels)`
    calls (`core.noise.few_step_sample`) and the target, at the same noise. Two successive sets of levels share the
    network calls as far as they agree: a change of the last level alone costs one call.
    """

    def __init__(self, denoise: DenoiseFn, noise: Tensor, cond: Tensor, target: Tensor, *, batch_size: int) -> None:
        """Keep noise and target [N,C,H,W] and cond [N]; `batch_size` samples go through the network at a time."""
        self.denoise, self.num_values = denoise, target.numel()
        parts = (torch.split(tensor, batch_size) for tensor in (noise, cond, target))
        self._parts = list(zip(*parts, strict=True))
        self._called: list[list[_Called]] = [[] for _ in self._parts]

    @torch.inference_mode()
    def __call__(self, levels: Levels) -> float:
        """Mean square error per pixel of descending levels > 0."""
        total = 0.0
        for (noise, cond, target), called in zip(self._parts, self._called, strict=True):
            agreed = 0
            while agreed < min(len(called), len(levels)) and called[agreed].level == levels[agreed]:
                agreed += 1
            del called[agreed:]
            for level in levels[agreed:]:
                last = called[-1] if called else None
                x = noise * level if last is None else last.x0 + level / last.level * (last.x - last.x0)
                sigma = torch.full((len(x),), level, device=x.device, dtype=x.dtype)
                called.append(_Called(level, x, self.denoise(x, sigma, cond)))
            total += float((called[-1].x0 - target).double().square().sum())
        return total / self.num_values


def search_levels(
    error: Callable[[Levels], float],
    starts: Iterable[Levels],
    *,
    rounds: int = ROUNDS,
    progress: Callable[[int, Found], None] = lambda done, found: None,
) -> Found:
    """Search coordinates of ln sigma from the best of `starts`; the first level (sigma_max) stays as it is.

    Each round moves one level after the other up and down by the round's step, as long as they stay in descending
    order, and keeps changes that lower the error. The search is deterministic, and never returns levels worse than the
    best start.

    Args:
        error: error of a set of levels; NaN counts as infinite.
        starts: sets of levels of equal length, each descending and > 0.
        progress: called with the number of rounds done and the best levels so far.

    Raises:
        ValueError: there is no start, or one does not descend.
    """
    tried: dict[Levels, float] = {}

    def measure(levels: Levels) -> float:
        if levels not in tried:
            value = error(levels)
            tried[levels] = value if not math.isnan(value) else math.inf
        return tried[levels]

    candidates = list(dict.fromkeys(starts))
    if not candidates or not all(is_descending(levels) for levels in candidates):
        raise ValueError(f"the search needs descending levels > 0 to start from, got {candidates}")
    best = min(candidates, key=measure)
    for number in range(rounds):
        step = math.log(2) * 0.5**number
        for _ in range(SWEEPS):
            before = best
            for place in range(len(best) - 1, 0, -1):  # the last level first: it is the cheapest to change
                moved = [_move(best, place, factor) for factor in (math.exp(step), math.exp(-step))]
                best = min([best, *(levels for levels in moved if is_descending(levels))], key=measure)
            if best == before:
                break
        progress(number + 1, Found(best, tried[best], len(tried)))
    return Found(best, measure(best), len(tried))


def _move(levels: Levels, place: int, factor: float) -> Levels:
    return (*levels[:place], levels[place] * factor, *levels[place + 1 :])
