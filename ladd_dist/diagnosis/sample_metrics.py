"""Figures of `eval.json` for samples that no student made: the same references, features and colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.features import DigitColorNet, load_features
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.metrics.color import MIN_SATURATION, hue, hue_entropy, mean_colour, saturation
from ladd_dist.metrics.frechet import Moments, frechet_distance, moments
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.fitting import feature_network, fitting_metrics

_CHUNK = 500

ToImages = Callable[[Tensor], Tensor]
"""Decodes samples [N,c,h,w] to images [N,C,H,W] in [-1, 1]; the identity for a recipe on pixels."""


class SampleFigures(TypedDict, total=False):
    """Figures of a set of samples, under their names in `eval.json`; those that the data do not have are absent."""

    colour_variance: float
    hue_entropy: float
    accuracy: float
    fd_teacher: float
    share: float
    """Colour variance over that of the stored samples, where it was compared."""
    in_class: float
    """The same of the variance within classes."""


class SampleAttributes(NamedTuple):
    """Digit and hue of N samples; None where the data have no such attribute."""

    digit: Tensor | None  # [N] int64
    hue: Tensor | None  # [N] in [0, 1), NaN for samples without a colour


def sees_digits(recipe: Recipe) -> bool:
    """Whether the recipe measures with a shipped network of class and colour, which is then made for its data."""
    return any(metric.name == "digit_color" for metric in fitting_metrics(recipe))


def sees_colours(recipe: Recipe) -> bool:
    """Whether the recipe's samples are colour images."""
    return recipe.dataset.spec().channels == 3


def colour_variance(images: Tensor) -> float:
    """Variance of the ink's mean colour over images [N,3,H,W], as in `eval.json`."""
    return float(mean_colour(images).double().cpu().var(dim=0, correction=0).mean())


def in_class_variance(images: Tensor, cond: Tensor) -> float:
    """Variance of the ink's mean colour around that of its class, over images [N,3,H,W] of classes cond [N]."""
    colours = mean_colour(images).double().cpu()
    cond = cond.cpu()
    for number in set(cond.tolist()):
        colours[cond == number] -= colours[cond == number].mean(dim=0)
    return float(colours.square().mean())


class SampleMetrics:
    """Metrics of images [N,C,H,W] that the stage `evaluate` also computes, as far as the recipe's data allow."""

    def __init__(
        self, recipe: Recipe, reader: ShardReader | None, to_images: ToImages = lambda samples: samples
    ) -> None:
        """Load the feature network, and compute the moments of the references.

        Args:
            reader: the recipe's shards, whose first samples are the references of `fd_teacher`; None: no such figure.
            to_images: decodes the shards' samples.
        """
        self.colours = sees_colours(recipe)
        self.net: DigitColorNet | None = None
        if sees_digits(recipe) and self.colours:
            self.net = load_features(name=feature_network(recipe))
        self.references: Moments | None = None
        if self.net is not None and reader is not None:
            stored = reader.take(np.arange(min(recipe.evaluate.num_references, len(reader))))
            self.references = moments(self._extract(to_images(stored.x0))[0])

    def __call__(self, images: Tensor, cond: Tensor) -> SampleFigures:
        """The figures of images [N,C,H,W] that were made for classes cond [N]."""
        figures: SampleFigures = {}
        if self.colours:
            figures["colour_variance"] = colour_variance(images)
            figures["hue_entropy"] = hue_entropy(mean_colour(images))
        if self.net is not None:
            features, digit = self._extract(images)
            figures["accuracy"] = float((digit == cond.to(digit.device)).double().mean())
            if self.references is not None:
                figures["fd_teacher"] = frechet_distance(*moments(features), *self.references)
        return figures

    def fd(self, images: Tensor) -> float:
        """Frechet distance of images [N,C,H,W] to the references, which must be there."""
        assert self.references is not None
        return frechet_distance(*moments(self._extract(images)[0]), *self.references)

    def attributes(self, images: Tensor) -> SampleAttributes:
        """Digit and hue of each of N images [N,C,H,W]."""
        digit = self._extract(images)[1].cpu() if self.net is not None else None
        if not self.colours:
            return SampleAttributes(digit, None)
        rgb = mean_colour(images).cpu()
        return SampleAttributes(digit, hue(rgb).where(saturation(rgb) >= MIN_SATURATION, torch.nan))

    @torch.inference_mode()
    def _extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N,F] and digits [N] of images [N,C,H,W]."""
        assert self.net is not None
        self.net.to(images.device)
        outputs = [self.net(part) for part in torch.split(images, _CHUNK)]
        return torch.cat([out.features for out in outputs]), torch.cat([out.digit.argmax(dim=1) for out in outputs])
