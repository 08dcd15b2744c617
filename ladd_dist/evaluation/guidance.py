"""Which scale of guidance brings a trained teacher nearest to real images, on noise that nothing else uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ladd_dist.builders.codec import load_codec
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import derive_seed
from ladd_dist.engine.loop import StopFlag
from ladd_dist.evaluation.class_features import trained_features
from ladd_dist.evaluation.draw import asked_classes, draw, teacher_samplers, teacher_steps
from ladd_dist.evaluation.measurement import Figures, Measurement
from ladd_dist.evaluation.noise_seeds import at_seed
from ladd_dist.evaluation.real_images import RealImages
from ladd_dist.metrics import Metric, References, Samples
from ladd_dist.metrics.manifold import Manifold
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.fitting import fitting_metrics
from ladd_dist.workspace.run import Run

REAL = "real"
"""The row of real images that are not among the references, measured like samples."""
SKIPPED = ("matched", "memorising")
"""Metrics that compare with the teacher's samples of one guidance, or that look for copies."""


def at_guidance(recipe: Recipe, scale: float) -> Recipe:
    """The recipe with another scale of guidance."""
    return dataclasses.replace(recipe, shards=dataclasses.replace(recipe.shards, guidance=scale))


def measure_guidance(
    run: Run, scales: Sequence[float], num_samples: int, done: Callable[[str], None] = lambda name: None
) -> dict[str, Figures]:
    """Figures to real images of the teacher's samples by scale (`f"{scale:g}"`), and of `REAL`.

    Every scale starts from the same noise and classes. Their seed is neither the shards' nor the evaluation's, because
    a scale tuned on the evaluation's noise would look better than it is. `REAL` is the floor: as many other images of
    the training split, or half of those it has.

    Raises:
        UserError: the dataset has no images, or no metric of the recipe compares with them.
    """
    recipe = run.recipe
    metrics = metrics_to_real(recipe)
    settings = dataclasses.replace(recipe.evaluate, num_samples=num_samples)
    run = dataclasses.replace(run, recipe=dataclasses.replace(recipe, evaluate=settings))
    run = at_seed(run, derive_seed("guidance-search", recipe.evaluate.seed))
    real, others = _real_images(run, num_samples)
    measure = Measurement(metrics, References(real=real, teacher=real))
    teacher, codec = load_teacher(run), load_codec(run)
    cond = asked_classes(run)
    found = {REAL: measure({REAL: others}, num_classes=0).figures[REAL]}
    with StopFlag().listen() as stop:
        for scale in scales:
            name = f"{scale:g}"
            sampler = teacher_samplers(at_guidance(recipe, scale), teacher)[f"teacher@{teacher_steps(recipe)}"]
            images = draw(run, f"guidance {name}", sampler, codec, stop).to(run.device)
            samples = Samples(images, cond, network=real.network, trained=real.trained)
            found[name] = measure({name: samples}, num_classes=0, check=stop.check).figures[name]
            done(name)
    return {name: _to_real(figures) for name, figures in found.items()}


def metrics_to_real(recipe: Recipe) -> tuple[Metric, ...]:
    """The recipe's metrics that say something about samples and real images, with precision and recall against these.

    Raises:
        UserError: the dataset has no images, or no metric compares with them.
    """
    if not recipe.dataset.has_images:
        raise UserError(f"guidance is chosen by real images, and dataset {recipe.dataset.name!r} has none")
    found = tuple(
        dataclasses.replace(metric, against="real") if isinstance(metric, Manifold) else metric
        for metric in fitting_metrics(recipe)
        if metric.name not in SKIPPED
    )
    if not any(metric.of_real() for metric in found):
        raise UserError("none of the recipe's metrics compares with real images: add one, like clean_fid or kid")
    return found


def best_scale(found: Mapping[str, Figures], metrics: Sequence[Metric]) -> tuple[str, str]:
    """The scale with the smallest distance to real, and that distance's name: the first that the metrics give."""
    distance = next(name for metric in metrics for name in metric.of_real())
    scales = [name for name in found if name != REAL]
    return min(scales, key=lambda name: found[name][distance]), distance


def _real_images(run: Run, num_others: int) -> tuple[Samples, Samples]:
    """References and other images; at most half of the dataset's are others."""
    images, settings = RealImages(run, trained_features(run)), run.recipe.evaluate
    num_others = min(num_others, len(images) // 2)
    num_references = min(settings.num_references, len(images) - num_others)
    others = images.others(num_others, num_references=num_references, seed=settings.seed)
    if others is None:
        raise UserError(f"no other real images to compare with: {images.too_few(num_others, num_references)}")
    return images.references(num_references), others


def _to_real(figures: Figures) -> Figures:
    """The figures without those to the teacher's samples, for which real images stood in."""
    return {name: value for name, value in figures.items() if "_teacher" not in name}
