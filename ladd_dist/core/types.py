"""Shared types and the one legend of shapes.

B batch; C,H,W image channels, height, width; c,h,w the same of a feature map; E embedding; K logits of one head per
sample; L stored noise levels. Tensors are float32 unless said otherwise; images are in [-1, 1]; noise levels sigma, tau
are in the units of x0 (Karras et al. 2022, arXiv 2206.00364).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ladd_dist.core.conditions import Conditions


@dataclass(frozen=True)
class ImageSpec:
    """Images, or what a network sees of them (latents): channels, square size in pixels, number of classes."""

    channels: int
    size: int
    num_classes: int


class Batch(NamedTuple):
    """One training batch of the teacher's samples."""

    x0: Tensor  # [B,C,H,W] the teacher's sample
    cond: Tensor  # [B] int64 class ids
    noise: Tensor | None  # [B,C,H,W] unit-variance noise from which the teacher made x0, if it is known
    path: Tensor | None  # [B,L,C,H,W] the teacher's own states at the stored levels
    path_levels: tuple[float, ...]  # the L levels of `path`, descending

    def rows(self, which: slice) -> Batch:
        """Some of its rows (views)."""
        noise, path = (None if tensor is None else tensor[which] for tensor in (self.noise, self.path))
        return Batch(self.x0[which], self.cond[which], noise, path, self.path_levels)

    def repeat(self, times: int) -> Batch:
        """All of it, `times` times, one behind the other."""
        if times == 1:
            return self
        x0, cond, noise, path = (None if tensor is None else torch.cat([tensor] * times) for tensor in self[:4])
        assert x0 is not None and cond is not None
        return Batch(x0, cond, noise, path, self.path_levels)


class TapSpec(NamedTuple):
    """Shape of a tap's feature map: `channels` c, and `stride`: h = H / stride."""

    channels: int
    stride: int


class NetOutput(NamedTuple):
    """What a denoiser returns: `denoised` is None when it was not asked for."""

    denoised: Tensor | None  # [B,C,H,W]
    features: dict[str, Tensor]  # tap name -> [B,c,h,w]
    cond_vec: Tensor  # [B,E] embedding of noise level and condition


class Denoiser(nn.Module):
    """Base of every network: D(x; sigma, cond) with named taps. `taps` lists them in order of execution."""

    image: ImageSpec
    cond_dim: int
    taps: Mapping[str, TapSpec]
    has_null: bool = True
    """Whether `cond` may be the null condition: guidance needs it."""
    sigma_max: float = math.inf
    """The largest level that the network can tell from a larger one."""
    condition_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """What a row of the table of conditions holds, by name; empty where `cond` are classes."""

    def facts(self) -> dict[str, str]:
        """What a pretrained network is, in words, for the record."""
        return {}

    def attach(self, conditions: Conditions) -> None:
        """Give the table whose rows `cond` then names (`conditions.num` is the null condition).

        Raises:
            ValueError: this network takes no such table.
        """
        raise ValueError("this network takes class ids; a table of conditions is for one that reads text")

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        """Denoise x [B,C,H,W] at levels sigma [B] for classes cond [B] (`num_classes` means "no class").

        With `denoise=False` it returns at the last asked tap, without computing the rest.

        Raises:
            KeyError: an unknown tap; the message lists the catalog.
        """
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The parts that are sharded, checkpointed and compiled one by one, in order of execution; none: the whole."""
        return []


class Autoencoder(nn.Module):
    """Base of what a codec builds: images [B,C,H,W] in [-1, 1] to latents [B,c,h,w] and back."""

    def encode(self, images: Tensor) -> Tensor:
        """Latents [B,c,h,w] of images [B,C,H,W]."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B,C,H,W] of latents [B,c,h,w]; about [-1, 1], not clipped. Differentiable in its input."""
        raise NotImplementedError


DenoiseFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x [B,C,H,W], sigma [B], cond [B]) -> denoised [B,C,H,W]."""
