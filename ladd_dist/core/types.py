"""Shared types, and the legend of shapes.

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
from ladd_dist.core.sizes import size_text

COLOUR_DIGITS = "colour digits"
"""Images that show one of the digits 0 to 9, which is their class, in one colour on a black background."""
COLOUR_CLOTHES = "colour clothes"
"""Images that show an article of one of Fashion-MNIST's ten classes, in one colour or in grey on a black background."""
INK_ON_BLACK = "ink on black"
"""Images whose background is black: everything brighter counts as the subject, and has the subject's colours."""


@dataclass(frozen=True)
class ImageSpec:
    """Shape of images or latents: channels, height and width in pixels, and number of classes."""

    channels: int
    height: int
    width: int
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return (self.channels, self.height, self.width)

    @property
    def num_values(self) -> int:
        """Numbers in one image, C H W."""
        return math.prod(self.shape)

    @property
    def size_text(self) -> str:
        """Height and width for messages: `32` for a square, `32 x 48` for others."""
        return size_text(self.height, self.width)

    def divides(self, factor: int) -> bool:
        """Whether height and width are multiples of a number."""
        return not (self.height % factor or self.width % factor)

    def identity(self) -> dict[str, int]:
        """What signatures hash. A square has one side there, as before images could be rectangles."""
        sides = {"height": self.height, "width": self.width}
        sides = {"size": self.height} if self.height == self.width else sides
        return {"channels": self.channels, **sides, "num_classes": self.num_classes}


class Batch(NamedTuple):
    """One training batch of the teacher's samples."""

    x0: Tensor  # [B,C,H,W] the teacher's sample
    cond: Tensor  # [B] int64 class ids
    noise: Tensor | None  # [B,C,H,W] unit-variance noise from which the teacher made x0, if it is known
    path: Tensor | None  # [B,L,C,H,W] the teacher's own states at the stored levels
    path_levels: tuple[float, ...]  # the L levels of `path`, descending
    old: Tensor | None = None  # [B] bool: rows that ask for an old condition, whose `noise` counts alone; None: none

    def rows(self, which: slice | Tensor) -> Batch:
        """Batch of the selected rows: views for a slice, copies for indices [B] int64 on the batch's device."""
        noise, path, old = (None if tensor is None else tensor[which] for tensor in (self.noise, self.path, self.old))
        return Batch(self.x0[which], self.cond[which], noise, path, self.path_levels, old)

    def repeat(self, times: int) -> Batch:
        """Batch of all rows `times` times, one copy after the other."""
        if times == 1:
            return self
        tensors = (*self[:4], self.old)
        x0, cond, noise, path, old = (None if tensor is None else torch.cat([tensor] * times) for tensor in tensors)
        assert x0 is not None and cond is not None
        return Batch(x0, cond, noise, path, self.path_levels, old)


class TapSpec(NamedTuple):
    """Shape of a tap's feature map: `channels` c, and `stride`: h = H / stride."""

    channels: int
    stride: int


class NetOutput(NamedTuple):
    """Output of a denoiser; `denoised` is None if it was not requested."""

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
    """Largest noise level that the network distinguishes from larger ones, in units of x0."""
    sigma_min: float = 0.0
    """Smallest noise level that the network distinguishes from smaller ones, in units of x0."""
    condition_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Shapes of one row of the table of conditions, by name; empty where `cond` are class ids."""
    reads_padding: bool = True
    """Whether the output depends on the states of tokens that only fill a text up."""

    def facts(self) -> dict[str, str]:
        """Description of a pretrained network for the run's record, as name -> text."""
        return {}

    def attach(self, conditions: Conditions) -> None:
        """Set the table whose rows `cond` then indexes (`conditions.num` is the null condition).

        Raises:
            ValueError: this network takes no such table.
        """
        raise ValueError("this network takes class ids; a table of conditions is for one that reads text")

    def rescaled(self, guided: Tensor, conditional: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """Guided prediction [B,C,H,W] as this network's own sampler scales it; most leave it as it is.

        Args:
            guided: classifier-free guidance of D(x; sigma, cond), of which `conditional` is the conditional half.
        """
        return guided

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        """Denoise x [B,C,H,W] at levels sigma [B] for classes cond [B] (`num_classes` means "no class").

        With `denoise=False` it returns after the last requested tap, without computing the rest.

        Raises:
            KeyError: an unknown tap; the message lists the catalog.
        """
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """Modules to shard, checkpoint and compile one by one, in order of execution; empty: the whole network."""
        return []


class Autoencoder(nn.Module):
    """Base of every codec's network: images [B,C,H,W] in [-1, 1] to latents [B,c,h,w] and back."""

    def encode(self, images: Tensor) -> Tensor:
        """Latents [B,c,h,w] of images [B,C,H,W]."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B,C,H,W] of latents [B,c,h,w]; about [-1, 1], not clipped. Differentiable in its input."""
        raise NotImplementedError


DenoiseFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x [B,C,H,W], sigma [B], cond [B]) -> denoised [B,C,H,W]."""
