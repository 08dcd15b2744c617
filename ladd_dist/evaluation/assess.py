"""Student and teacher on the same held-out noise, measured against real images and stored samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ladd_dist.builders.codec import decode, is_pixels, load_codec
from ladd_dist.builders.data import images_of
from ladd_dist.builders.networks import denoiser
from ladd_dist.builders.sampling import SampleFn
from ladd_dist.builders.shards import open_shards
from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.rng import generator
from ladd_dist.core.run_forms import FEATURES, Evaluation
from ladd_dist.core.types import Autoencoder, Denoiser
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.evaluation.class_features import trained_features
from ladd_dist.evaluation.draw import asked_classes, draw, teacher_samplers, teacher_samples, teacher_steps
from ladd_dist.evaluation.feature_cache import cached, sharded
from ladd_dist.evaluation.figure_cache import cached_figures
from ladd_dist.evaluation.measurement import Figures, Measured, Measurement, floor, without_real
from ladd_dist.evaluation.noise_seeds import PER_SEED, at_seed, over_seeds, without_bounds
from ladd_dist.evaluation.real_images import ROW_BY_ROW, RealImages
from ladd_dist.evaluation.timing import time_in_turns
from ladd_dist.evaluation.tuned import draw_old, tuned_of
from ladd_dist.metrics import FeatureExtraction, References, Samples, here
from ladd_dist.recipe.fitting import feature_network, fitting_metrics, unfit_metrics
from ladd_dist.reports.distances import FLOOR
from ladd_dist.reports.tunings import OLD_ROW
from ladd_dist.workspace.run import Run

NUM_SHOWN = 16
RECONSTRUCTION = "reconstruction"


class Assessed(NamedTuple):
    """Figures and images of a student and its teacher."""

    figures: Evaluation
    measured: Measured
    """Figures by class, and what was left out."""
    samples: dict[str, Tensor]
    """Entry -> images [N,C,H,W] in [-1, 1], from the noise of the first seed; also those of old conditions where the
    recipe asks for some, by the entry with `OLD_ROW` behind it."""
    networks: dict[str, str]
    """A sentence on each feature network that was trained on the data, by its name in `eval.json`."""


class OneSeed(NamedTuple):
    """Figures and images from the noise of one seed."""

    measured: Measured
    samples: dict[str, Tensor]
    sets: dict[str, Samples]
    """The same samples as the metrics see them."""


def assess(run: Run, teacher: Denoiser, samplers: Mapping[str, SampleFn], stop: StopFlag) -> Assessed:
    """Draw the recipe's held-out samples by each sampler and by the teacher, measure them, and time the samplers.

    Args:
        teacher: the recipe's teacher, without guidance.
        samplers: those of the student, by entry.

    Raises:
        UserError: samples are not finite, or a metric of the recipe cannot measure them.
    """
    recipe, settings = run.recipe, run.recipe.evaluate
    codec, of_teacher, seeds = load_codec(run), teacher_samplers(recipe, teacher), settings.noise_seeds()
    trained = trained_features(run)
    real = RealImages(run, trained) if recipe.dataset.has_images else None
    against = references(run, codec, real, cached(run.workspace.cache / "features", run.ranks), trained)
    against = against._replace(denoise=denoiser(teacher) if is_pixels(recipe) else None)
    tuned = tuned_of(run, codec, cached(run.workspace.cache / "features", run.ranks), trained)
    found, samples = [], dict[str, Tensor]()
    for seed in seeds:
        at = at_seed(run, seed)
        one = _on_one_seed(at, samplers, of_teacher, codec, against, real, stop)
        old = draw_old(at, samplers, codec, stop, trained)
        found.append(tuned.added(one.measured, one.sets, old) if tuned else one.measured)
        samples = samples or one.samples | {f"{name}{OLD_ROW}": own.images.cpu() for name, own in old.items()}
    measured = over_seeds(found)._replace(unfit=unfit_metrics(recipe))
    facts = {"num_samples": float(settings.num_samples), "seed": float(seeds[0])}
    facts |= {"num_seeds": float(len(seeds))} if len(seeds) > 1 else {}
    costs = time_in_turns(run, {**samplers, **of_teacher}, codec, stop, f"teacher@{teacher_steps(recipe)}")
    figures: Evaluation = {
        name: {**facts, **costs.get(name, {}), **of_entry} for name, of_entry in measured.figures.items()
    }
    if len(seeds) > 1:
        for name, entry in figures.items():
            pairs = zip(seeds, found, strict=True)
            entry[PER_SEED] = {str(seed): without_bounds(one.figures[name]) for seed, one in pairs}
    if not is_pixels(recipe) and recipe.dataset.has_images:
        own = {"num_samples": facts["num_samples"], "seed": facts["seed"]}
        figures[RECONSTRUCTION] = {**own, **reconstruction(run, codec, against, stop)}
    if real is not None and FLOOR in figures:
        figures[FLOOR]["num_samples"] = float(real.num_others(settings.num_samples))
    _name_features(figures, measured)
    return Assessed(figures, measured, samples, {} if trained is None else {trained.label: trained.told})


def _name_features(figures: Evaluation, measured: Measured) -> None:
    """Put into each entry the names of the features that its figures were measured in."""
    for entry in figures.values():
        if named := {name: label for name, label in measured.features.items() if name in entry}:
            entry[FEATURES] = named


def _on_one_seed(
    run: Run,
    samplers: Mapping[str, SampleFn],
    of_teacher: Mapping[str, SampleFn],
    codec: Autoencoder,
    against: References,
    real: RealImages | None,
    stop: StopFlag,
) -> OneSeed:
    """Draw and measure samples from the noise and classes of `evaluate.seed`.

    The entry `floor@N` has the floor of distances to the teacher, and `floor@real` that of distances to real images.

    Args:
        against: the references, without the teacher's samples from the same noise.
        real: the dataset's images; None where it has none.
    """
    recipe, extract = run.recipe, sharded(run.ranks)
    extract_cached, many = cached(run.workspace.cache / "features", run.ranks), teacher_steps(recipe)
    cond = asked_classes(run)
    teacher = teacher_samples(run, of_teacher, codec, stop)
    networks = feature_network(recipe), against.real.trained
    theirs = {name: Samples(images.to(run.device), cond, extract_cached, *networks) for name, images in teacher.items()}
    against = against._replace(matched=theirs[f"teacher@{many}"])
    metrics = fitting_metrics(recipe)
    measure = Measurement(metrics, against)
    sampled = {name: draw(run, name, sample, codec, stop) for name, sample in samplers.items()}
    own = {name: Samples(images.to(run.device), cond, extract, *networks) for name, images in sampled.items()}
    # A text has too few samples for figures of its own.
    num_classes = 0 if recipe.dataset.texts() else recipe.dataset.num_asked()

    def measure_teacher() -> Measured:
        found = measure(theirs, num_classes=num_classes, check=stop.check)
        lowest = floor(metrics, theirs[f"teacher@{many}"], against, check=stop.check)
        found = found._replace(figures={**found.figures, f"floor@{many}": lowest})
        return found if real is None else _with_real(found, measure, real, run, extract_cached, stop)

    measured = measure(own, num_classes=num_classes, check=stop.check).joined(
        cached_figures(run, measure_teacher, against.real.trained)
    )
    if not recipe.dataset.has_images:
        measured = without_real(metrics, measured)
    return OneSeed(measured, sampled | teacher, own | theirs)


def _with_real(
    found: Measured, measure: Measurement, real: RealImages, run: Run, work: FeatureExtraction, stop: StopFlag
) -> Measured:
    """The figures, and those of as many other real images, which no sampler can be nearer to real than."""
    settings = run.recipe.evaluate
    given = {"num_references": settings.num_references, "seed": settings.seed}
    others = real.others(settings.num_samples, **given, work=work)
    if others is None:
        reason = real.too_few(settings.num_samples, settings.num_references)
        return found._replace(left_out={**found.left_out, FLOOR: reason})
    of_real = measure.without(ROW_BY_ROW)({FLOOR: others}, num_classes=0, check=stop.check).figures
    return found._replace(figures={**found.figures, **of_real})


def references(
    run: Run,
    codec: Autoencoder,
    real: RealImages | None,
    extraction: FeatureExtraction,
    trained: TrainedFeatures | None = None,
) -> References:
    """Up to `num_references` real images and as many of the teacher's stored samples.

    Where the run's shards are the dataset's pictures, the teacher's samples have shards of their own, which the stage
    `evaluate` makes. For a dataset without images the stored samples stand in for the real ones; `without_real` drops
    those figures.

    Raises:
        ShardError: the teacher's samples are missing or damaged.
    """
    recipe, network = run.recipe, feature_network(run.recipe)
    made_by_teacher = Run(recipe.with_teacher_samples(), run.workspace)
    if recipe.shards.samples == "dataset" and not (made_by_teacher.shards_folder / INDEX).exists():
        where = made_by_teacher.shards_folder
        raise ShardError(f"no samples of the teacher to compare with in {where}; make them first: --stages evaluate")
    reader, device = open_shards(made_by_teacher), run.device
    stored = reader.take(np.arange(min(recipe.evaluate.num_references, len(reader))))
    made = decode(codec, stored.x0.to(device), recipe.evaluate.batch_size)
    teacher = Samples(made, stored.cond.to(device), extraction, network, trained)
    return References(teacher if real is None else real.references(recipe.evaluate.num_references, extraction), teacher)


def reconstruction(run: Run, codec: Autoencoder, against: References, stop: StopFlag) -> Figures:
    """Figures of real images that were encoded and decoded: the best that samples in this latent space can reach.

    `matched_error` compares each image with the one that was encoded.
    """
    recipe, images = run.recipe, images_of(run)
    picked = torch.randperm(len(images), generator=generator("reconstruction"))[: recipe.evaluate.num_samples]
    x0, cond = (tensor.to(run.device) for tensor in images.batch(picked))
    with torch.inference_mode():
        latents = torch.cat([codec.encode(part) for part in torch.split(x0, recipe.evaluate.batch_size)])
    networks = feature_network(recipe), against.real.trained
    back = Samples(decode(codec, latents, recipe.evaluate.batch_size), cond, here, *networks)
    measure = Measurement(fitting_metrics(recipe), against._replace(matched=Samples(x0, cond, here, *networks)))
    return measure({RECONSTRUCTION: back}, num_classes=0, check=stop.check).figures[RECONSTRUCTION]
