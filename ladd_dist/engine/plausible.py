"""Ranges of samples that were made elsewhere: what lies far outside is in other units, or damaged."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ladd_dist.engine.shard_index import ShardError

Space = Literal["pixels", "latents"]

LIMITS: dict[Space, float] = {"pixels": 10.0, "latents": 50.0}
"""Largest absolute value of a number of x0. Pixels are in [-1, 1], and guided samples leave it: teachers of a few
hundred steps reach 3.4 at guidance 4, trained ones 2. Latents have a variance of 1 or .25 in every codec here, and no
bounds; 50 is what no Gaussian number of such a variance reaches. Bytes (0 to 255) are outside both."""
_EXPECTED: dict[Space, str] = {
    "pixels": "expected is [-1, 1], and up to 10 is accepted of guided samples; bytes become it by x / 127.5 - 1",
    "latents": "expected is a deviation of about 1, and up to 50 is accepted; apply the codec's scaling_factor",
}
_SLACK = 0.1
_ERRORS = 6.0


def require_range(x0: Tensor, space: Space, where: str) -> None:
    """Refuse samples x0 [n,C,H,W], finite, with a number above `LIMITS`.

    Raises:
        ShardError: the message gives the number and the range.
    """
    low, high = (float(x0.min()), float(x0.max())) if x0.numel() else (0.0, 0.0)
    if max(-low, high) > LIMITS[space]:
        raise ShardError(f"{where}: x0 reaches from {low:.4g} to {high:.4g}; {_EXPECTED[space]}")


class Moments(NamedTuple):
    """Sums over numbers of noise."""

    num: int
    total: float
    squares: float


class NoiseMoments:
    """Mean and deviation of all noise so far, which has to be unit normal.

    The tolerance is .1 and six standard errors, so a set is never refused by chance.
    """

    def __init__(self) -> None:
        self.moments = Moments(0, 0.0, 0.0)

    def add(self, noise: Tensor, where: str) -> None:
        """Add noise, finite, of any shape.

        Raises:
            ShardError: mean or deviation of all noise so far is not that of unit normal noise.
        """
        if not noise.numel():
            return
        variance, mean = (float(figure) for figure in torch.var_mean(noise, correction=0))
        num = noise.numel()
        self.include(Moments(num, num * mean, num * (variance + mean**2)), where)

    def include(self, moments: Moments, where: str) -> None:
        """Add noise of which the sums are known, of at least one number.

        Raises:
            ShardError: as `add`.
        """
        own = self.moments
        num, total, squares = own.num + moments.num, own.total + moments.total, own.squares + moments.squares
        self.moments = Moments(num, total, squares)
        mean = total / num
        deviation = math.sqrt(max(0.0, squares / num - mean**2))
        error = _ERRORS / math.sqrt(num)
        # Squares of large numbers overflow to infinity and further to NaN, which no comparison accepts.
        if not (abs(mean) <= _SLACK + error and abs(deviation - 1) <= _SLACK + error / math.sqrt(2)):
            raise ShardError(
                f"{where}: the noise so far has mean {mean:.4g} and deviation {deviation:.4g}; expected is unit normal "
                "noise (mean 0, deviation 1), from which the teacher made x0"
            )
