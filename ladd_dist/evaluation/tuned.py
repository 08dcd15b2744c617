"""Figures of tunings alone: how near samples come to held-out new pictures, and what is left of the old ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ladd_dist.builders.codec import decode
from ladd_dist.builders.condition_names import condition_names
from ladd_dist.builders.data import images_of
from ladd_dist.builders.old_conditions import needs_old, old_conditions
from ladd_dist.builders.sampling import SampleFn
from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import to_data
from ladd_dist.core.types import Autoencoder
from ladd_dist.datasets.opening import spread
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.evaluation.draw import asked_classes, draw
from ladd_dist.evaluation.feature_cache import sharded
from ladd_dist.evaluation.measurement import Measured
from ladd_dist.evaluation.noise_seeds import at_seed
from ladd_dist.metrics import FeatureExtraction, Samples
from ladd_dist.metrics.extract import extract
from ladd_dist.metrics.interval import with_intervals
from ladd_dist.metrics.kernel import KernelReference, kernel_estimate, kernel_reference
from ladd_dist.metrics.kid import Kid
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.fitting import feature_network, fitting_metrics
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD, OLD_ROW, is_tuning
from ladd_dist.workspace.run import Run

BEFORE_AND_AFTER = ("student@", "untrained@")
"""Beginnings of the entries whose samples of old conditions are measured."""


def tunes(recipe: Recipe) -> bool:
    """Whether the recipe teaches a finished student new pictures."""
    return is_tuning(JsonObject(to_data(recipe)))


@dataclass(frozen=True)
class Tuned:
    """The references of a tuning's figures, with a reason for each figure that cannot be measured.

    Both figures are the recipe's `kid` against other references, in the same features: `kid_held_out` against held-out
    new pictures, `kid_old` against the stored samples that the student before training made of old conditions. They
    are kernel distances because of new pictures there are few: the estimate is unbiased, while that of a Frechet
    distance grows as the number of samples falls. `kid_old` of the untrained student, by other noises than the stored
    ones, is its floor: 0 on average.
    """

    metric: Kid | None
    references: Mapping[str, KernelReference]
    left_out: Mapping[str, str]

    def added(self, found: Measured, new: Mapping[str, Samples], old: Mapping[str, Samples]) -> Measured:
        """The figures with those of tunings.

        Args:
            new: samples of the new conditions, by entry.
            old: samples of old conditions, by the entry of their sampler.
        """
        figures, features = dict(found.figures), dict(found.features)
        for name, sets in ((KID_HELD_OUT, new), (KID_OLD, old)):
            if self.metric is None or name not in self.references:
                continue
            for entry, samples in sets.items():
                estimate = kernel_estimate(extract(samples, self.metric.features), self.references[name])
                figures[entry] = figures[entry] | with_intervals({name: estimate})
                features |= {name: space} if (space := self.metric.space(samples)) else {}
        return found._replace(figures=figures, features=features, left_out={**found.left_out, **self.left_out})


def tuned_of(run: Run, codec: Autoencoder, work: FeatureExtraction, trained: TrainedFeatures | None) -> Tuned | None:
    """What measures a tuning; None for every other run. A collective call.

    Raises:
        ShardError: the stored samples of old conditions are missing or damaged.
    """
    if not tunes(run.recipe):
        return None
    metric = next((metric for metric in fitting_metrics(run.recipe) if isinstance(metric, Kid)), None)
    if metric is None:
        reason = "it is that of the metric kid, which evaluate.metrics lacks"
        return Tuned(None, {}, {KID_HELD_OUT: reason, KID_OLD: reason})
    sets = {KID_HELD_OUT: _held_out(run, work, trained), KID_OLD: _stored(run, codec, work, trained)}
    left_out = {name: found for name, found in sets.items() if isinstance(found, str)}
    known = {name: found for name, found in sets.items() if not isinstance(found, str)}
    references = {name: kernel_reference(extract(found, metric.features)) for name, found in known.items()}
    return Tuned(metric, references, left_out)


def draw_old(
    run: Run, samplers: Mapping[str, SampleFn], codec: Autoencoder, stop: StopFlag, trained: TrainedFeatures | None
) -> dict[str, Samples]:
    """Samples of old conditions by student and untrained student, by entry; a collective call.

    Noise and conditions are of `evaluate.seed`; none where the run asks for no old conditions.
    """
    if not needs_old(run.recipe):
        return {}
    asked, work, network = asked_old(run), sharded(run.ranks), feature_network(run.recipe)
    own = {name: sample for name, sample in samplers.items() if name.startswith(BEFORE_AND_AFTER)}
    drawn = {name: draw(run, f"{name}{OLD_ROW}", sample, codec, stop, asked) for name, sample in own.items()}
    return {name: Samples(images.to(run.device), asked, work, network, trained) for name, images in drawn.items()}


def asked_old(run: Run) -> Tensor:
    """The old conditions [num_samples] int64 of which `draw_old` makes samples."""
    settings = run.recipe.evaluate
    return old_conditions(run.recipe, settings.seed, range(settings.num_samples)).to(run.device)


def shown_conditions(run: Run, num: int) -> dict[str, list[str]]:
    """Labels of the conditions of the first `num` samples, those of the first noise seed: `new`, and `old` if any."""
    run = at_seed(run, run.recipe.evaluate.noise_seeds()[0])
    names = condition_names(run.recipe)
    asked = {"new": asked_classes(run)} | ({"old": asked_old(run)} if needs_old(run.recipe) else {})
    return {which: [names[number] for number in cond[:num].tolist()] for which, cond in asked.items()}


def _held_out(run: Run, work: FeatureExtraction, trained: TrainedFeatures | None) -> Samples | str:
    """Held-out new pictures, `evaluate.num_references` at most, or the reason why there are too few."""
    try:
        images = images_of(run, "test")
    except UserError as error:
        return str(error)
    if len(images) < 2:
        return "a distance needs two held-out pictures, and there is one"
    shown, cond = images.batch(spread(len(images), min(len(images), run.recipe.evaluate.num_references)))
    return Samples(shown.to(run.device), cond.to(run.device), work, feature_network(run.recipe), trained)


def _stored(run: Run, codec: Autoencoder, work: FeatureExtraction, trained: TrainedFeatures | None) -> Samples | str:
    """Stored samples of old conditions, `evaluate.num_references` at most, or the reason why there are none."""
    recipe, settings = run.recipe, run.recipe.evaluate
    if not needs_old(recipe):
        return "the tuning asked for no old conditions (train.old.share)"
    if not (run.old_folder / INDEX).exists():
        raise ShardError(
            f"no samples of old conditions to compare with in {run.old_folder}; make them first: "
            "the run's own `ladd launch` line with --stages shards; or leave kid out with --metrics"
        )
    reader = ShardReader(run.old_folder)
    run.ranks.from_rank0(lambda: reader.verify(recipe.latent()))
    if len(reader) < 2:
        return "a distance needs two stored samples of old conditions, and there is one (train.old.num_samples)"
    stored = reader.take(np.arange(min(settings.num_references, len(reader))))
    with torch.inference_mode():
        made = decode(codec, stored.x0.to(run.device), settings.batch_size)
    return Samples(made, stored.cond.to(run.device), work, feature_network(recipe), trained)
