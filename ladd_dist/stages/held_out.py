"""Early stop: the distance of a student to held-out pictures while it trains, and the memory of the best."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.builders.codec import decoded
from ladd_dist.builders.data import images_of
from ladd_dist.builders.sampling import sample_student
from ladd_dist.core.early_stop_file import FILE, EarlyStopFile
from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import added_noise, sample_noise
from ladd_dist.core.run_forms import FORMAT
from ladd_dist.core.rundir import write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.datasets import ImageSet
from ladd_dist.datasets.opening import spread
from ladd_dist.engine.checkpoint_files import EarlyState
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.fitting import feature_network, fitting_metrics
from ladd_dist.workspace.run import Run

PREFIX = "held_out/"


class _Judges(NamedTuple):
    """What measures a student: the distance that decides, and how near its samples are to the training pictures."""

    distance: Measure
    memorising: Measure | None
    cond: Tensor  # [N] int64 of the samples, those of the held-out pictures in turn


def distance_of(recipe: Recipe) -> Metric:
    """The first metric that measures a distance to real images: it decides when a training ends.

    Raises:
        UserError: there is none.
    """
    for metric in fitting_metrics(recipe):
        if metric.of_real() and not isinstance(metric, Memorising):
            return metric
    raise UserError(
        "recipe.train.early_stop needs a distance to real images among evaluate.metrics, such as kid with features "
        "'pixels'; add one, or use --train.early-stop.every 0"
    )


def require_held_out(run: Run) -> None:
    """Refuse to begin where the early stop has nothing to measure with.

    Raises:
        UserError: there are too few held-out pictures, or no metric that measures a distance to them.
    """
    if run.recipe.train.early_stop.every:
        distance_of(run.recipe)
        _held_out(run)


class EarlyStopping:
    """The early stop of one training; every rank holds one, rank 0 measures."""

    def __init__(self, run: Run, saved: EarlyState | None) -> None:
        """Nothing is read where the recipe does not stop early.

        Args:
            saved: the state in the checkpoint from which the training goes on.

        Raises:
            UserError: there are no held-out pictures to measure with, or no metric that can.
        """
        self.run, self.settings = run, run.recipe.train.early_stop
        self.measured: list[tuple[int, float]] = [
            (int(step), value) for step, value in (saved or {"measured": []})["measured"]
        ]
        self.pending: dict[str, float] = {}
        self.judges = _judges(run) if self.settings.every and run.ranks.is_first else None

    @property
    def best(self) -> int | None:
        """The step with the smallest distance so far, the first of equal ones; None before the first measurement."""
        return min(self.measured, key=lambda row: (row[1], row[0]))[0] if self.measured else None

    @property
    def is_over(self) -> bool:
        """Whether the last `patience` measurements were no better than the best."""
        return self.best is not None and sum(step > self.best for step, _ in self.measured) >= self.settings.patience

    def is_due(self, updates: int) -> bool:
        """Whether the student is measured after so many updates, which then need a checkpoint."""
        every = self.settings.every
        return every > 0 and (updates % every == 0 or updates == self.run.recipe.train.steps)

    def pinned(self) -> tuple[int, ...]:
        """The step whose checkpoint must stay."""
        return () if self.best is None else (self.best,)

    def to_checkpoint(self) -> EarlyState | None:
        """The state for a checkpoint."""
        return {"measured": [[step, value] for step, value in self.measured]} if self.settings.every else None

    def take_metrics(self) -> dict[str, float]:
        """The figures of the last measurement, for the log; the second call in a row returns none."""
        found, self.pending = self.pending, {}
        return found

    def after(self, updates: int, averaged: Callable[[], Denoiser | None]) -> None:
        """Measure the averaged student if that is due; every rank calls this.

        Args:
            averaged: gives it on rank 0; a collective call.
        """
        if not self.is_due(updates):
            return
        network = averaged()
        figures = self.run.ranks.from_rank0(lambda: self._figures(network))
        distance = next(iter(figures.values()))
        if not math.isfinite(
            distance
        ):  # no figure to remember: the next logged row or the guard acts on such a training
            return
        self.measured.append((updates, distance))
        self.pending = {PREFIX + name: value for name, value in figures.items()}
        if self.run.ranks.is_first and (self.is_over or updates == self.run.recipe.train.steps):
            self._tell(updates, next(iter(figures)))

    @torch.inference_mode()
    def _figures(self, network: Denoiser | None) -> dict[str, float]:
        """Figures by name, the deciding distance first."""
        assert network is not None and self.judges is not None
        recipe, cond, images = self.run.recipe, self.judges.cond, list[Tensor]()
        for rows in torch.split(torch.arange(len(cond)), recipe.evaluate.batch_size):
            indices = range(int(rows[0]), int(rows[-1]) + 1)
            noise = sample_noise(recipe.evaluate.seed, indices, recipe.latent().shape).to(self.run.device)
            source = added_noise(recipe.evaluate.seed, indices)
            latents = sample_student(
                recipe, network, noise, cond[rows].to(self.run.device), recipe.student_steps, source
            )
            images.append(decoded(self.run, latents).cpu())
        samples = Samples(torch.cat(images), cond, network=feature_network(recipe))
        name = distance_of(recipe).of_real()[0]
        if not samples.images.isfinite().all():
            return {name: math.nan}
        figures = {name: float(self.judges.distance(samples)[name])}
        if self.judges.memorising is not None:
            found = self.judges.memorising(samples)
            figures |= {name: value for name, value in found.items() if name == "nearest_train_share"}
        return figures

    def _tell(self, updates: int, name: str) -> None:
        assert self.best is not None
        told: EarlyStopFile = {
            "format": FORMAT, "figure": name, "kept": self.best, "last": updates, "measured": self.measured,
        }  # fmt: skip
        write_json(self.run.folder.path / FILE, told)
        least = dict(self.measured)[self.best]
        line = f"kept step {self.best:,} of {updates:,}: there {name} to held-out pictures is least, {least:.3g}"
        print(line, file=sys.stderr)


def _judges(run: Run) -> _Judges:
    recipe = run.recipe
    metric, network = distance_of(recipe), feature_network(recipe)
    held_out = _held_out(run)
    num = min(len(held_out), recipe.evaluate.num_references)
    rows = spread(len(held_out), num)
    rows = rows if num > 1 else rows.repeat(2)  # a distance between sets needs two; that between them is a constant
    real = Samples(*held_out.batch(rows), network=network)
    distance = metric.build(references=References(real=real, teacher=real))
    own = next((metric for metric in fitting_metrics(recipe) if isinstance(metric, Memorising)), None)
    memorising = None
    if own is not None:
        training = images_of(run)
        seen = Samples(*training.batch(spread(len(training), recipe.evaluate.num_references)), network=network)
        memorising = own.build(references=References(real=seen, teacher=seen))
    turns = -(-recipe.train.early_stop.num_samples // len(rows))
    return _Judges(distance, memorising, real.cond.repeat(turns)[: recipe.train.early_stop.num_samples])


def _held_out(run: Run) -> ImageSet:
    share = "raise dataset.pictures.held_out, add pictures, or use --train.early-stop.every 0"
    try:
        found = images_of(run, "test")
    except UserError as error:
        raise UserError(f"train.early_stop needs held-out pictures ({error}); {share}") from error
    return found
