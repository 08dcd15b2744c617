"""Real images to compare with, and others that are measured like samples: the floor of every distance to real."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.builders.data import training_images
from ladd_dist.core.rng import generator
from ladd_dist.metrics import FeatureExtraction, Samples, here
from ladd_dist.recipe.fitting import feature_network
from ladd_dist.workspace.run import Run

ROW_BY_ROW = "matched"
"""The metric that compares each sample with the teacher's from the same noise, which a real image does not have."""


class RealImages:
    """The training split in a fixed random order: its first images are the references, the rest are free."""

    def __init__(self, run: Run) -> None:
        self.images, self.device = training_images(run), run.device
        self.network = feature_network(run.recipe)
        self.order = torch.randperm(len(self.images), generator=generator("references"))

    def __len__(self) -> int:
        return len(self.images)

    def references(self, num: int, work: FeatureExtraction = here) -> Samples:
        """The first `num` images of the order, or all if there are fewer."""
        return self._samples(self.order[:num], work)

    def others(self, num: int, *, num_references: int, seed: int, work: FeatureExtraction = here) -> Samples | None:
        """`num` images that are not among the references, drawn by the seed; None where there are fewer.

        Images of another seed are drawn from the same rest, so figures over seeds spread as those of samples do.
        """
        rest = self.order[num_references:]
        if len(rest) < num:
            return None
        return self._samples(rest[torch.randperm(len(rest), generator=generator("floor-real", seed))[:num]], work)

    def _samples(self, rows: Tensor, work: FeatureExtraction) -> Samples:
        images, cond = self.images.batch(rows)
        return Samples(images.to(self.device), cond.to(self.device), work, self.network)


def too_few(found: int, num: int, num_references: int) -> str:
    """The reason for which an evaluation has no floor of the distance to real."""
    return (
        f"it needs {num} real images besides the {num_references} references, and the dataset has {found}: "
        "lower evaluate.num_references or evaluate.num_samples"
    )
