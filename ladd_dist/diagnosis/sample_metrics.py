"""The figures of `eval.json` for other people's samples: the same references, features and colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.features import DigitColorNet, load_features
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.metrics.color import MIN_SATURATION, hue, hue_entropy, mean_colour, saturation
from ladd_dist.metrics.frechet import Moments, frechet_distance, moments
from ladd_dist.recipe import Recipe

_CHUNK = 500


Show = Callable[[Tensor], Tensor]


class Reading(NamedTuple):
    """What is seen in N samples; None where this data have no such thing."""

    digit: Tensor | None  # [N] int64
    hue: Tensor | None  # [N] in [0, 1), NaN for samples without a colour


def sees_digits(recipe: Recipe) -> bool:
    """Whether the digit-and-colour network is made for the recipe's data: the recipe measures with it."""
    return any(metric.name == "digit_color" for metric in recipe.evaluate.metrics)


def sees_colours(recipe: Recipe) -> bool:
    """Whether what the recipe's samples show are colour pictures."""
    return recipe.dataset.spec().channels == 3


def colour_variance(images: Tensor) -> float:
    """Variance over samples [N,3,H,W] of the ink's mean colour, as `eval.json` has it."""
    return float(mean_colour(images).double().cpu().var(dim=0, correction=0).mean())


class Yardstick:
    """Measures pictures [N,C,H,W] as the stage `evaluate` does, as far as the recipe's data allow."""

    def __init__(self, recipe: Recipe, reader: ShardReader | None, show: Show = lambda samples: samples) -> None:
        """
        Args:
            reader: the recipe's shards, whose first samples are the references of `fd_teacher`; None: no such figure.
            show: makes pictures of samples, where those are latents.
        """
        self.colours = sees_colours(recipe)
        self.net: DigitColorNet | None = load_features() if sees_digits(recipe) and self.colours else None
        self.references: Moments | None = None
        if self.net is not None and reader is not None:
            stored = reader.take(np.arange(min(recipe.evaluate.num_references, len(reader))))
            self.references = moments(self._look(show(stored.x0))[0])

    def __call__(self, images: Tensor, cond: Tensor) -> dict[str, float]:
        """`colour_variance`, `hue_entropy`, `fd_teacher` and `accuracy` of samples, those that this data have."""
        figures: dict[str, float] = {}
        if self.colours:
            figures["colour_variance"] = colour_variance(images)
            figures["hue_entropy"] = hue_entropy(mean_colour(images))
        if self.net is not None:
            features, digit = self._look(images)
            figures["accuracy"] = float((digit == cond.to(digit.device)).double().mean())
            if self.references is not None:
                figures["fd_teacher"] = frechet_distance(*moments(features), *self.references)
        return figures

    def fd(self, images: Tensor) -> float:
        """Frechet distance to the references; needs them."""
        assert self.references is not None
        return frechet_distance(*moments(self._look(images)[0]), *self.references)

    def read(self, images: Tensor) -> Reading:
        """Digit and hue of each sample."""
        digit = self._look(images)[1].cpu() if self.net is not None else None
        if not self.colours:
            return Reading(digit, None)
        rgb = mean_colour(images).cpu()
        return Reading(digit, hue(rgb).where(saturation(rgb) >= MIN_SATURATION, torch.nan))

    @torch.inference_mode()
    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N,F] and digits [N]."""
        assert self.net is not None
        self.net.to(images.device)
        seen = [self.net(part) for part in torch.split(images, _CHUNK)]
        return torch.cat([part.features for part in seen]), torch.cat([part.digit.argmax(dim=1) for part in seen])
