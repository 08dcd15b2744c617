"""Targets of a student that learns new pictures: old conditions keep what they gave, new ones are free or held."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ladd_dist.core.plugin import register
from ladd_dist.core.rng import RowSource
from ladd_dist.core.types import Batch, DenoiseFn
from ladd_dist.targets import Target, TargetSample
from ladd_dist.targets.pulls import TeacherDenoised


def _with_old(batch: Batch, new: TargetSample, sigma: torch.Tensor) -> TargetSample:
    """The target whose rows of old conditions are the batch's own, at the levels of the student's inputs.

    There the batch has what the student before training makes of the same input (`MicroBatches.before`).
    """
    if batch.old is None:
        return new
    old = batch.old.view(-1, 1, 1, 1)
    return TargetSample(torch.where(old, batch.x0, new.x0), torch.where(batch.old, sigma, new.sigma))


@register("old")
@dataclass(frozen=True)
class OldSample(Target):
    """What the student gave before training where a row asks for an old condition; elsewhere the fake: no pull.

    A distance is then a mean over all rows of which a share counts, so `distill_weight` times that share is its weight.
    """

    keeps_old = True

    def __call__(
        self,
        fake: torch.Tensor,
        x: torch.Tensor,
        sigma: torch.Tensor,
        batch: Batch,
        *,
        teacher: DenoiseFn,
        source: RowSource,
    ) -> TargetSample:
        return _with_old(batch, TargetSample(fake.detach(), sigma), sigma)


@register("old_or_denoised")
@dataclass(frozen=True)
class OldOrDenoised(TeacherDenoised):
    """What the student gave before training where a row asks for an old condition; elsewhere the base's view.

    See `teacher_denoised`. The base has never seen the new pictures, so its view holds samples near what it knows.
    """

    keeps_old = True

    def __call__(
        self,
        fake: torch.Tensor,
        x: torch.Tensor,
        sigma: torch.Tensor,
        batch: Batch,
        *,
        teacher: DenoiseFn,
        source: RowSource,
    ) -> TargetSample:
        view = super().__call__(fake, x, sigma, batch, teacher=teacher, source=source)
        return _with_old(batch, view, sigma)
