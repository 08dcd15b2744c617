"""Attributes of coloured digits: how much of one an image has, and the edit that gives it more or less.

An edit at strength s makes the pair that a concept slider learns from; s = 0 changes nothing. A measure is one number
for each image; its mean over samples is a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ladd_dist.core.errors import UserError
from ladd_dist.metrics.color import hue, mean_colour

PULL = 0.5
"""Share of the way towards red that the hue edit turns a colour at strength 1."""
FINE = 4
"""Strokes are widened on a grid so many times finer than the pixels'."""
RADIUS = 0.5
"""Pixels that the stroke edit adds on each side at strength 1."""
GAIN = 1.5
"""Factor of brightness at strength 1."""


class Attribute(NamedTuple):
    """A property of an image that has a degree."""

    what: str
    """Description of the measure, with its unit."""
    measure: Callable[[Tensor], Tensor]
    """Maps images [N,3,H,W] in [-1,1] to values [N]."""
    edit: Callable[[Tensor, float], Tensor]
    """Maps images [N,3,H,W] in [-1,1] and a strength s to images with more of it (s > 0) or less (s < 0)."""


def signed_turn(turns: Tensor) -> Tensor:
    """Signed angle of a hue from red, in turns [-0.5, 0.5)."""
    return (turns + 0.5) % 1.0 - 0.5


def redness(images: Tensor) -> Tensor:
    """Nearness [N] of the ink's hue to red: 1 red, 0 a quarter turn away, -1 cyan; linear in the angle between."""
    return 1.0 - 4.0 * signed_turn(hue(mean_colour(images))).abs()


def turn_hue(images: Tensor, strength: float) -> Tensor:
    """Turn hues towards red (s > 0) or cyan (s < 0), keeping each pixel's largest and smallest channel.

    A hue at signed angle a from the pole goes to a (1 - PULL |s|): hues that are spread evenly over the circle end
    within a half of it, and the mean of `redness` goes from 0 to PULL s. Hues keep their order, so `unturn_hue` inverts
    it. Channels outside [-1,1] are turned like any others.
    """
    if not strength:
        return images
    return _scale_angle(images, pole=0.0 if strength > 0 else 0.5, factor=1.0 - PULL * abs(strength))


def unturn_hue(images: Tensor, strength: float) -> Tensor:
    """The inverse of `turn_hue` for the same strength, |s| < 1 / PULL."""
    return _scale_angle(images, pole=0.0 if strength > 0 else 0.5, factor=1.0 / (1.0 - PULL * abs(strength)))


def _scale_angle(images: Tensor, *, pole: float, factor: float) -> Tensor:
    largest, smallest = images.amax(dim=1), images.amin(dim=1)
    turns = hue(images.transpose(0, 1).reshape(3, -1).T).view_as(largest)
    turns = pole + factor * signed_turn(turns - pole)
    # Smith 1978, "Color gamut transform pairs": channel = v - (v - m) max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6.
    k = (torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1) + 6.0 * turns[:, None]) % 6.0
    return largest[:, None] - (largest - smallest)[:, None] * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)


def ink(images: Tensor) -> Tensor:
    """Ink [N,H,W] in [0,1]: each pixel's brightest channel."""
    return (images.float().clamp(-1.0, 1.0).amax(dim=1) + 1.0) / 2.0


def stroke_width(images: Tensor) -> Tensor:
    """Mean width [N] of the strokes in pixels: twice the ink's area over the length of its edges.

    A stroke of width w and length L >> w has area w L and edges of length 2 L; brightness cancels, because the edges'
    length is the total variation of the ink (the sum of its gradients' lengths). No ink gives 0.
    """
    grey = F.pad(ink(images), (1, 1, 1, 1))
    down, right = grey[:, 1:, :-1] - grey[:, :-1, :-1], grey[:, :-1, 1:] - grey[:, :-1, :-1]
    edges = torch.sqrt(down.square() + right.square()).sum(dim=(1, 2))
    return torch.where(edges > 1e-6, 2.0 * grey.sum(dim=(1, 2)) / edges.clamp_min(1e-6), torch.zeros_like(edges))


def widen(images: Tensor, strength: float) -> Tensor:
    """Widen (s > 0) or narrow (s < 0) strokes by RADIUS |s| pixels on each side, on a black ground.

    A dilation or erosion by a square, on a finer grid: pixels of 16 x 16 digits are too coarse for it.
    """
    reach = round(RADIUS * abs(strength) * FINE)
    if reach == 0:
        return images
    fine = F.interpolate(images, scale_factor=FINE, mode="bilinear", align_corners=False)
    sign = 1.0 if strength > 0 else -1.0
    fine = sign * F.max_pool2d(sign * fine, 2 * reach + 1, stride=1, padding=reach)
    return F.avg_pool2d(fine, FINE)


def brightness(images: Tensor) -> Tensor:
    """Mean [N] of the ink, weighted by itself so that the background does not count, in [0,1]; no ink gives 0."""
    grey = ink(images)
    return grey.square().sum(dim=(1, 2)) / grey.sum(dim=(1, 2)).clamp_min(1e-6)


def brighten(images: Tensor, strength: float) -> Tensor:
    """Multiply brightness by GAIN^s; pixels brighter than full ink are scaled back to it and keep their hue."""
    light = (images + 1.0) / 2.0 * GAIN**strength
    return light / light.amax(dim=1, keepdim=True).clamp_min(1.0) * 2.0 - 1.0 if strength else images


ATTRIBUTES: dict[str, Attribute] = {
    "hue": Attribute("nearness to red: 1 red, 0 a quarter turn away, -1 cyan", redness, turn_hue),
    "stroke": Attribute("mean width of the strokes, pixels", stroke_width, widen),
    "value": Attribute("brightness of the ink, 0 to 1", brightness, brighten),
}


def attribute(name: str) -> Attribute:
    """The attribute of that name.

    Raises:
        UserError: the name is unknown; the message lists the known ones.
    """
    if name not in ATTRIBUTES:
        raise UserError(f"unknown attribute {name!r}; there are {', '.join(ATTRIBUTES)}")
    return ATTRIBUTES[name]
