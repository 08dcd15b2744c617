"""Samples of student and teacher from the same held-out noise, measured against real images and stored samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ladd_dist.builders.codec import decode, is_pixels, load_codec
from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.teacher import guided_teacher, load_teacher
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import generator, sample_classes, sample_starts
from ladd_dist.core.rundir import commit_folder, read_json, save_tensors
from ladd_dist.core.types import Autoencoder
from ladd_dist.datasets.opening import open_images
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.evaluation.feature_cache import cached, sharded
from ladd_dist.evaluation.measurement import Figures, Measured, Measurement, floor, without_real
from ladd_dist.metrics import FeatureExtraction, References, Samples
from ladd_dist.parallel.gather import joined_rows, share_of
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.fitting import fitting_metrics, unfit_metrics
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace, is_done, make_together, mark_done

NUM_SHOWN = 16
COSTS = ("s_per_image", "s_decode_per_image")
RECONSTRUCTION = "reconstruction"

Evaluation = dict[str, Figures]
"""The contents of eval.json: entry, such as `student@4`, -> figure -> value."""
SampleFn = Callable[[Tensor, Tensor], Tensor]
"""A sampler: unit noise [B,c,h,w] and classes [B] to samples [B,c,h,w]."""


class Assessed(NamedTuple):
    """Figures and images of a student and its teacher."""

    measured: Measured
    samples: dict[str, Tensor]
    """Entry -> images [N,C,H,W] in [-1, 1]."""


def assess(run: Run, samplers: Mapping[str, SampleFn], stop: StopFlag) -> Assessed:
    """Draw the recipe's held-out samples by each sampler and by the teacher, and measure them.

    Args:
        samplers: those of the student, by entry.

    Raises:
        UserError: samples are not finite, or a metric of the recipe cannot measure them.
    """
    recipe = run.recipe
    settings, spec, many = recipe.evaluate, recipe.dataset.spec(), f"teacher@{teacher_steps(recipe)}"
    metrics = fitting_metrics(recipe)
    extract, extract_cached = sharded(run.ranks), cached(run.workspace.cache / "features", run.ranks)
    cond = sample_classes(settings.seed, range(settings.num_samples), spec.num_classes).to(run.device)
    codec = load_codec(run)
    teacher, costs = teacher_samples(run, codec, stop)
    theirs = {
        name: Samples(_finite(name, images).to(run.device), cond, extract_cached) for name, images in teacher.items()
    }
    against = references(run, codec, extract_cached)._replace(matched=theirs[many])
    measure = Measurement(metrics, against)
    sampled: dict[str, Tensor] = {}
    for name, sample in samplers.items():
        sampled[name], costs[name] = _timed(recipe, name, sample, run.workspace, codec, stop)
    own = {name: Samples(_finite(name, images).to(run.device), cond, extract) for name, images in sampled.items()}
    num_classes = 0 if recipe.dataset.texts() else spec.num_classes  # a text has too few samples for figures of its own
    measured = measure(own | theirs, num_classes=num_classes, check=stop.check)
    facts = {"num_samples": float(settings.num_samples), "seed": float(settings.seed)}
    figures = {name: facts | costs[name] | found for name, found in measured.figures.items()}
    lowest = floor(metrics, theirs[many], against, check=stop.check)
    figures[f"floor@{teacher_steps(recipe)}"] = facts | lowest
    if not is_pixels(recipe) and recipe.dataset.has_images:
        figures[RECONSTRUCTION] = facts | reconstruction(run, codec, against, stop)
    measured = measured._replace(figures=figures, unfit=unfit_metrics(recipe))
    if not recipe.dataset.has_images:
        measured = without_real(metrics, measured)
    return Assessed(measured, sampled | teacher)


def _finite(name: str, images: Tensor) -> Tensor:
    """The images [N,C,H,W], if all are finite.

    Raises:
        UserError: some are NaN or infinite.
    """
    bad = int((~images.flatten(1).isfinite().all(dim=1)).sum())
    if bad:
        raise UserError(
            f"{name}: {bad} of {len(images)} samples are NaN or infinite, so nothing was measured. The training "
            "diverged: look at its losses in metrics.jsonl, lower the learning rate or the adversarial weight"
        )
    return images


def teacher_steps(recipe: Recipe) -> int:
    """The number of steps with which the recipe's teacher makes the shards."""
    return len(recipe.shards.sampler.levels())


def teacher_samples(run: Run, codec: Autoencoder, stop: StopFlag) -> tuple[dict[str, Tensor], dict[str, Figures]]:
    """The teacher's images at many and at 4 steps (each set of levels) and their costs, made once for each teacher."""
    folder = run.reference_folder
    make_together(
        run.ranks,
        folder,
        lambda: is_done(folder / "done.json", run.recipe.reference_signature()),
        lambda: _make_teacher_samples(run, codec, stop, folder),
    )
    path = folder / "samples.safetensors"
    with reading(path, "cannot be read", "delete the folder and run the same command again"):
        samples = load_file(path)
    told = read_json(folder / "done.json")
    return samples, {name: {cost: told[cost][name] for cost in COSTS if cost in told} for name in samples}


def _make_teacher_samples(run: Run, codec: Autoencoder, stop: StopFlag, folder: Path) -> None:
    recipe = run.recipe
    denoise = guided_teacher(recipe, load_teacher(run))

    def few(levels: tuple[float, ...]) -> SampleFn:
        return lambda noise, cond: few_step_sample(denoise, noise, cond, levels, "ode")

    samplers: dict[str, SampleFn] = {
        f"teacher@{teacher_steps(recipe)}": lambda noise, cond: recipe.shards.sampler(denoise, noise, cond)[0]
    }
    samplers |= {f"teacher@4:{name}": few(levels) for name, levels in recipe.teacher_levels().items()}
    timed = {name: _timed(recipe, name, sample, run.workspace, codec, stop) for name, sample in samplers.items()}

    def fill(temporary: Path) -> None:
        save_tensors(temporary / "samples.safetensors", {name: images for name, (images, _) in timed.items()})
        paid = {name: costs for name, (_, costs) in timed.items()}
        facts = {cost: {name: costs[cost] for name, costs in paid.items()} for cost in next(iter(paid.values()))}
        mark_done(temporary / "done.json", recipe.reference_signature(), **facts)

    if run.ranks.is_first:
        commit_folder(folder, fill)


@torch.inference_mode()
def _timed(
    recipe: Recipe, name: str, sample: SampleFn, workspace: Workspace, codec: Autoencoder, stop: StopFlag
) -> tuple[Tensor, Figures]:
    """Images [N,C,H,W] on the CPU, and seconds for each image and process.

    `s_per_image` is the time of sampling without that of drawing noise; decoding latents is `s_decode_per_image`, which
    a recipe on pixels does not have. Each rank samples whole batches, so the samples do not depend on the number of
    ranks.
    """
    settings, spec, image, ranks = recipe.evaluate, recipe.latent(), recipe.dataset.spec(), workspace.ranks
    shares = share_of(settings.num_samples, settings.batch_size, ranks)
    own, last = shares[ranks.rank]
    parts, seconds, decoding = [torch.empty(0, image.channels, image.size, image.size)], 0.0, 0.0
    with Bar(f"sampling {name}", settings.num_samples, quiet=not ranks.is_first) as bar:
        for first in range(own, last, settings.batch_size):
            stop.check()
            indices = range(first, min(first + settings.batch_size, last))
            noise, cond = sample_starts(settings.seed, indices, spec, workspace.device)
            started = time.perf_counter()
            latents = sample(noise, cond)
            parts.append(latents.cpu())  # the copy waits for the device
            seconds += (sampled := time.perf_counter()) - started
            if not is_pixels(recipe):
                parts[-1] = codec.decode(latents).cpu()
                decoding += time.perf_counter() - sampled
            bar.update(indices.stop - own)
        images = joined_rows(torch.cat(parts), shares, ranks)
        spent = ranks.mean(torch.tensor([seconds, decoding], dtype=torch.float64)) * ranks.size / settings.num_samples
        bar.update(settings.num_samples)
    return images.contiguous(), dict(zip(COSTS[: 1 if is_pixels(recipe) else 2], spent.tolist(), strict=False))


def references(run: Run, codec: Autoencoder, extraction: FeatureExtraction) -> References:
    """Up to `num_references` real images and as many of the teacher's stored samples.

    For a dataset without images the stored samples stand in for the real ones; `without_real` drops those figures.
    """
    recipe = run.recipe
    reader, device = open_shards(run), run.device
    stored = reader.take(np.arange(min(recipe.evaluate.num_references, len(reader))))
    made = decode(codec, stored.x0.to(device), recipe.evaluate.batch_size)
    teacher = Samples(made, stored.cond.to(device), extraction)
    if not recipe.dataset.has_images:
        return References(teacher, teacher)
    images = open_images(recipe.dataset, "train")
    count = min(recipe.evaluate.num_references, len(images))
    real = images.batch(torch.randperm(len(images), generator=generator("references"))[:count])
    return References(Samples(real[0].to(device), real[1].to(device), extraction), teacher)


def reconstruction(run: Run, codec: Autoencoder, against: References, stop: StopFlag) -> Figures:
    """Figures of real images that were encoded and decoded: the best that samples in this latent space can reach.

    `matched_error` compares each image with the one that was encoded.
    """
    recipe = run.recipe
    images = open_images(recipe.dataset, "train")
    picked = torch.randperm(len(images), generator=generator("reconstruction"))[: recipe.evaluate.num_samples]
    x0, cond = (tensor.to(run.device) for tensor in images.batch(picked))
    with torch.inference_mode():
        latents = torch.cat([codec.encode(part) for part in torch.split(x0, recipe.evaluate.batch_size)])
    back = Samples(decode(codec, latents, recipe.evaluate.batch_size), cond)
    measure = Measurement(fitting_metrics(recipe), against._replace(matched=Samples(x0, cond)))
    return measure({RECONSTRUCTION: back}, num_classes=0, check=stop.check).figures[RECONSTRUCTION]
