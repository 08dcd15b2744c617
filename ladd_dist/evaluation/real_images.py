"""Real images to compare with, and others that are measured like samples: the floor of every distance to real."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.builders.data import images_of
from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.rng import generator
from ladd_dist.datasets import ImageSet
from ladd_dist.metrics import FeatureExtraction, Samples, here
from ladd_dist.recipe.fitting import feature_network
from ladd_dist.workspace.run import Run

FEWEST_HELD_OUT = 64
"""Held-out images below which there is no floor: fewer would make one much too high."""
ROW_BY_ROW = "matched"
"""The metric that compares each sample with the teacher's from the same noise, which a real image does not have."""


class RealImages:
    """The training split in a fixed random order: its first images are the references, the rest are free.

    Where features were trained on that split, others come from the held-out one: a network knows the pictures of its
    training better than any others, samples too, so that a floor of them would be too low.
    """

    def __init__(self, run: Run, trained: TrainedFeatures | None = None) -> None:
        self.images, self.device = images_of(run), run.device
        self.network, self.trained = feature_network(run.recipe), trained
        self.order = torch.randperm(len(self.images), generator=generator("references"))
        self.held_out = images_of(run, "test") if trained else None

    def __len__(self) -> int:
        return len(self.images)

    def references(self, num: int, work: FeatureExtraction = here) -> Samples:
        """The first `num` images of the order, or all if there are fewer."""
        return self._samples(self.order[:num], work)

    def others(self, num: int, *, num_references: int, seed: int, work: FeatureExtraction = here) -> Samples | None:
        """`num` images that are not among the references, drawn by the seed; None where there are fewer.

        Images of another seed are drawn from the same rest, so figures over seeds spread as those of samples do. Of
        held-out images there may be fewer than `num`, `FEWEST_HELD_OUT` or more.
        """
        if self.held_out is not None:
            drawn = torch.randperm(len(self.held_out), generator=generator("floor-real", seed))[:num]
            return self._samples(drawn, work, self.held_out) if len(drawn) >= min(num, FEWEST_HELD_OUT) else None
        rest = self.order[num_references:]
        if len(rest) < num:
            return None
        return self._samples(rest[torch.randperm(len(rest), generator=generator("floor-real", seed))[:num]], work)

    def _samples(self, rows: Tensor, work: FeatureExtraction, images: ImageSet | None = None) -> Samples:
        shown, cond = (images or self.images).batch(rows)
        return Samples(shown.to(self.device), cond.to(self.device), work, self.network, self.trained)

    def num_others(self, num: int) -> int:
        """The number of images that `others` gives where it gives any."""
        return num if self.held_out is None else min(num, len(self.held_out))

    def too_few(self, num: int, num_references: int) -> str:
        """The reason for which an evaluation has no floor of the distance to real."""
        if self.held_out is not None:
            return (
                f"it needs {min(num, FEWEST_HELD_OUT)} held-out pictures, which the features were not trained on, and "
                f"the dataset has {len(self.held_out)}"
            )
        return too_few(len(self), num, num_references)


def too_few(found: int, num: int, num_references: int) -> str:
    """The reason for which a training split of `found` images has none left for a floor."""
    return (
        f"it needs {num} real images besides the {num_references} references, and the dataset has {found}: "
        "lower evaluate.num_references or evaluate.num_samples"
    )
