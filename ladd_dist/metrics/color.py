"""Metric `color`: are the samples still colourful, or did they collapse to grey class means?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Share, Within
from ladd_dist.core.serialize import ADDED
from ladd_dist.core.types import INK_ON_BLACK, ImageSpec
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.interval import Estimate, with_intervals

# Far below the palest digit of the data (0.6), above the tint that remains in the mean of some hundred colours.
MIN_SATURATION = 0.2
_CHUNK = 5000
_NO_INK = 0.1
_LEAST_WEIGHT = 0.01


def mean_colour(images: Tensor) -> Tensor:
    """Colour of each image's ink: images [N,3,H,W] in [-1,1] to RGB [N,3] in [0,1], as at full ink.

    The ink of a pixel is its brightest channel in [0,1]. The colour is sum(ink rgb) / sum(ink^2): the mean of rgb/ink,
    each pixel weighted by ink^2. The black background counts for nothing, and soft or blurred strokes do not darken
    the colour: a stroke of one colour gives that colour over its largest channel, whatever its shape. Pixels outside
    [-1,1] are clipped first, as a display does. An image without ink (no pixel brighter than 0.1) gives black.

    Raises:
        UserError: the images are not [N,3,H,W], or hold NaN.
    """
    rows = []
    for rgb in _shown(images):
        ink = rgb.amax(dim=1, keepdim=True)
        colour = (ink * rgb).sum(dim=(2, 3)) / ink.square().sum(dim=(2, 3)).clamp_min(1e-12)
        rows.append(torch.where(ink.amax(dim=(2, 3)) < _NO_INK, torch.zeros_like(colour), colour))
    return _without_nan(torch.cat(rows))


def _shown(images: Tensor) -> Iterator[Tensor]:
    """The images chunk by chunk as a display shows them: RGB [n,3,H,W] in [0,1], clipped."""
    _check_rgb(images)
    for part in torch.split(images, _CHUNK):
        yield (part.float().clamp(-1.0, 1.0) + 1.0) / 2.0


def _without_nan(colours: Tensor) -> Tensor:
    bad = int(colours.isnan().any(dim=1).sum())
    if bad:
        raise UserError(f"{bad} of {len(colours)} images hold NaN: look at the samples")
    return colours


def picture_colour(images: Tensor) -> Tensor:
    """Colour of each picture's colourful parts: images [N,3,H,W] in [-1,1] to RGB [N,3] in [0,1].

    The mean of the pixels, each weighted by its chroma, max - min of RGB, plus 0.01: a background of white, black or
    grey counts for little, and a grey picture has its mean grey. Pixels outside [-1,1] are clipped first.

    Raises:
        UserError: the images are not [N,3,H,W], or hold NaN.
    """
    rows = []
    for rgb in _shown(images):
        weight = rgb.amax(dim=1, keepdim=True) - rgb.amin(dim=1, keepdim=True) + _LEAST_WEIGHT
        rows.append((weight * rgb).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)))
    return _without_nan(torch.cat(rows))


def saturation(rgb: Tensor) -> Tensor:
    """Saturation (of HSV) of colours [N,3] in [0,1]: [N] in [0,1]; grey and black have 0."""
    brightest = rgb.amax(dim=1)
    return (brightest - rgb.amin(dim=1)) / brightest.clamp_min(1e-12)


def hue(rgb: Tensor) -> Tensor:
    """Hue (of HSV, as a turn: 0 red, 1/3 green, 2/3 blue) of colours [N,3] in [0,1]: [N] in [0,1); greys give 0."""
    red, green, blue = rgb.unbind(dim=1)
    brightest = rgb.argmax(dim=1)
    safe = (rgb.amax(dim=1) - rgb.amin(dim=1)).clamp_min(1e-12)
    sixths = torch.where(
        brightest == 0,
        (green - blue) / safe,
        torch.where(brightest == 1, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    # The second modulo turns a tiny negative, which the first one rounds up to 1, into 0.
    return ((sixths / 6.0) % 1.0) % 1.0


def hue_entropy(rgb: Tensor, *, bins: int = 12, min_saturation: float = MIN_SATURATION) -> float:
    """Diversity of the hues of colours [N,3] in [0,1]: 0 (one hue, or no colour at all) to 1 (all hues alike).

    Entropy of the histogram of hues over log(bins), times the share of samples that have a colour. Samples whose
    saturation is below `min_saturation` (grey, white, black) have none: rounding decides their hue, so they enter no
    bin. They are not diverse and lower the figure by their share: all grey gives 0, half grey and half of uniform hue
    gives 0.5.
    """
    return hue_estimate(rgb, bins=bins, min_saturation=min_saturation).value


def hue_estimate(rgb: Tensor, *, bins: int, min_saturation: float) -> Estimate:
    """Hue entropy of colours [N,3] in [0,1] (see `hue_entropy`) as the mean of one part per sample.

    The part is -log(share of the sample's bin) / log(bins), or 0 without a colour.

    Raises:
        UserError: there is no sample.
    """
    if len(rgb) == 0:
        raise UserError("the entropy of hues needs at least one sample")
    has_colour = (saturation(rgb) >= min_saturation).cpu()
    coloured = rgb[has_colour.to(rgb.device)]
    parts = torch.zeros(len(rgb), dtype=torch.float64)
    if len(coloured):
        index = (hue(coloured) * bins).long().clamp_max(bins - 1).cpu()
        share = torch.bincount(index, minlength=bins).double() / len(coloured)
        parts[has_colour] = -share[index].log() / math.log(bins)
    # max: one full bin gives -0.0.
    return Estimate(max(float(parts.mean()), 0.0), parts)


@register("color")
@dataclass(frozen=True)
class Color(Metric):
    """Colour diversity: hue entropy in [0,1], variance of the ink's colour over samples, mean saturation.

    `hue_entropy`: entropy of the hue of each sample's mean ink colour, in `bins` bins; samples whose saturation is
    below `min_saturation` have no hue and count as not diverse. `colour_variance`: variance of the ink's mean RGB in
    [0,1] over samples, mean of the three channels; about 0.13 for colour digits. `saturation`: mean over samples of
    the same colour's saturation. Of pictures of any kind take `of="picture"`, the colour of their colourful parts.
    """

    bins: Annotated[int, Within("[2, 65536]")] = 12
    """Number of bins of hue."""
    min_saturation: Share = MIN_SATURATION
    """Saturation in [0, 1] below which a sample has no hue."""
    of: Literal["ink", "picture"] = field(default="ink", metadata=ADDED)
    """What is measured: the ink on a black background, or the colourful parts of any picture."""
    few: ClassVar[tuple[str, ...]] = ("hue_entropy", "colour_variance", "saturation")

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        if self.of == "picture":
            return "" if image.channels == 3 else "it measures the colours of RGB pictures"
        fits = INK_ON_BLACK in shows and image.channels == 3
        return "" if fits else "it measures the colour of ink on a black background; of='picture' measures any picture"

    def needs(self) -> int:
        return 1

    def build(self, *, references: References) -> Measure:
        _check_rgb(references.real.images)

        def measure(samples: Samples) -> dict[str, float]:
            name, colour_of = ("mean", mean_colour) if self.of == "ink" else ("picture", picture_colour)
            rgb = samples.read(f"{name} colour 1", lambda images: {"rgb": colour_of(images)})["rgb"]
            exact = rgb.double().cpu()
            away = (exact - exact.mean(dim=0)).square().mean(dim=1)
            strength = saturation(rgb)
            return with_intervals(
                {
                    "hue_entropy": hue_estimate(rgb, bins=self.bins, min_saturation=self.min_saturation),
                    "colour_variance": Estimate(float(exact.var(dim=0, correction=0).mean()), away),
                    "saturation": Estimate(float(strength.mean()), strength),
                }
            )

        return measure


def _check_rgb(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise UserError(
            f"the metric 'color' needs RGB images [N,3,H,W], got {list(images.shape)}: leave it out of the recipe"
        )
