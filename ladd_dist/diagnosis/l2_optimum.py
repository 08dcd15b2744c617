"""The L2-optimal student of a recipe, computed from its shards before training: what the distance alone would make."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ladd_dist.builders.codec import decoded
from ladd_dist.builders.shards import open_shards
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import added_noise, generator, sample_starts
from ladd_dist.core.types import Batch, DenoiseFn
from ladd_dist.diagnosis.advice import advise
from ladd_dist.diagnosis.optimum_by_level import NUM_INPUTS, by_colour, evenly, level_rows, ratio, regressing, threshold
from ladd_dist.diagnosis.posterior import PosteriorMean
from ladd_dist.diagnosis.record import Diagnosis, Findings, FoundLevels, OptimumFigures
from ladd_dist.diagnosis.sample_metrics import SampleMetrics, ToImages, colour_variance, in_class_variance
from ladd_dist.engine.loop import Bar
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.levels.search import search_levels
from ladd_dist.recipe import Recipe
from ladd_dist.reports.grids import write_grid
from ladd_dist.workspace.run import Run

FORMAT = 1
NUM_SHOWN = 16
SEARCH_SAMPLES, SEARCH_ROUNDS = 300, 3


class L2Optimum(NamedTuple):
    """The contents of diagnose.json, and the rows of diagnose.png."""

    figures: Diagnosis
    rows: list[tuple[str, Tensor]]
    """Label and images [n,C,H,W] of each row."""


def predict(run: Run, *, num_pairs: int, search: bool) -> L2Optimum:
    """Compute the L2-optimal student over up to `num_pairs` stored pairs; no network of the recipe is built.

    Args:
        search: whether to search for better levels if the optimum regresses to the mean.

    Raises:
        ShardError: the shards are missing or damaged.
        UserError: the coupling has no closed form.
    """
    recipe = run.recipe
    device = run.device if run.device.type == "cuda" else torch.device("cpu")  # float64 is not everywhere
    reader = open_shards(run)
    posterior = PosteriorMean(read_pairs(reader, num_pairs, device), recipe.start)
    to_images = partial(decoded, run)
    metrics = SampleMetrics(recipe, reader, to_images)
    rows = level_rows(recipe, posterior)
    samples, pictures = sample_optimum(recipe, posterior, metrics, to_images, device)
    pairs = posterior.pairs
    findings: Findings = {
        "format": FORMAT,
        "recipe": recipe.name,
        "signature": recipe.distill_signature(),
        "shards": recipe.shards_signature(),
        "start": recipe.start.name,
        "rule": recipe.start.rule,
        "distance": recipe.distance.name,
        "num_pairs": len(pairs.x0),
        "num_stored": len(reader),
        "deterministic": all(row["spread"] == 0 for row in rows),
        "measure": "colour_variance" if by_colour(recipe, pairs.x0, pairs.cond) else "kept",
        "stored": metrics(to_images(pairs.x0), pairs.cond),
        "levels": rows,
        "samples": samples,
        "threshold": threshold(recipe, posterior, rows),
        "reproduced": reproduced(recipe, posterior),
        "found_levels": (
            find_levels(recipe, posterior, metrics, to_images, device) if search and regressing(rows) else None
        ),
    }
    figures: Diagnosis = {**findings, "advice": advise(recipe, findings, has_noise=pairs.noise is not None)}
    return L2Optimum(figures, _shown(posterior, [row["sigma"] for row in rows], to_images) + pictures)


def read_pairs(reader: ShardReader, num: int, device: torch.device) -> Batch:
    """Up to `num` stored pairs, evenly spaced over the set."""
    where = np.unique(np.linspace(0, len(reader) - 1, min(num, len(reader))).round().astype(np.int64))
    batch = reader.take(where)
    noise, path = (None if tensor is None else tensor.to(device) for tensor in (batch.noise, batch.path))
    return Batch(batch.x0.to(device), batch.cond.to(device), noise, path, batch.path_levels)


def sample_optimum(
    recipe: Recipe, posterior: PosteriorMean, metrics: SampleMetrics, to_images: ToImages, device: torch.device
) -> tuple[dict[str, OptimumFigures], list[tuple[str, Tensor]]]:
    """Sample the optimum from the evaluation's noise and classes by the student's rule; returns figures and images.

    For a coupling without new noise the optimum is the nearest pair's sample: a student that only memorises.
    """
    num = min(recipe.evaluate.num_samples, len(posterior.pairs.x0))
    noise, cond = sample_starts(recipe.evaluate.seed, range(num), recipe.asked(), device)
    stored = to_images(posterior.pairs.x0)
    figures: dict[str, OptimumFigures] = {}
    rows = []
    for steps in recipe.evaluate.steps:
        levels = recipe.levels(steps)
        if recipe.start.needs_path and not set(levels) <= set(posterior.pairs.path_levels):
            continue  # the shards have no state of the teacher there
        images = to_images(_sample(recipe, posterior, noise, cond, levels))
        row: OptimumFigures = {"levels": list(levels), "num_samples": num, **metrics(images, cond)}
        if metrics.colours:
            row["share"] = ratio(row["colour_variance"], colour_variance(stored))
            row["in_class"] = ratio(in_class_variance(images, cond), in_class_variance(stored, posterior.pairs.cond))
        figures[f"optimum@{steps}"] = row
        who = "nearest pair" if posterior.spread(levels[0]) == 0 else "optimum"
        rows.append((f"{who}@{steps}", images[:NUM_SHOWN]))
    return figures, rows


def _sample(recipe: Recipe, denoise: DenoiseFn, noise: Tensor, cond: Tensor, levels: tuple[float, ...]) -> Tensor:
    source = added_noise(recipe.evaluate.seed, range(len(noise)))  # the noise that the student is sampled with
    return few_step_sample(denoise, noise, cond, levels, recipe.start.rule, source)


def reproduced(recipe: Recipe, posterior: PosteriorMean) -> float | None:
    """Mean square error between the stored samples and the optimum, sampled from their noise by the recipe's rule.

    None for couplings with new noise. If it is not near 0, the sampling rule does not fit the coupling.
    """
    pairs = posterior.pairs
    levels = recipe.student_levels()
    if pairs.noise is None or any(posterior.spread(level) > 0 for level in levels):
        return None
    which = evenly(posterior, NUM_INPUTS // 4)
    images = _sample(recipe, posterior, pairs.noise[which], pairs.cond[which], levels)
    return float((images - pairs.x0[which]).square().mean())


def find_levels(
    recipe: Recipe, posterior: PosteriorMean, metrics: SampleMetrics, to_images: ToImages, device: torch.device
) -> FoundLevels | None:
    """Search for as many levels as the student has that bring the optimum's samples nearest to the stored ones.

    None for one step, for data without a feature network, and for path couplings.
    """
    num, own = min(recipe.evaluate.num_samples, len(posterior.pairs.x0)), recipe.student_levels()
    if len(own) < 2 or metrics.references is None or recipe.start.needs_path:
        return None
    noise, cond = sample_starts(recipe.evaluate.seed, range(num), recipe.asked(), device)
    few, cached = min(num, SEARCH_SAMPLES), _cached(posterior)

    def error(levels: tuple[float, ...]) -> float:
        return metrics.fd(to_images(_sample(recipe, cached, noise[:few], cond[:few], levels)))

    even = tuple(float(own[0] * (0.1 / own[0]) ** (i / (len(own) - 1))) for i in range(len(own)))
    with Bar("better levels", SEARCH_ROUNDS) as bar:
        found = search_levels(
            error, [own, even], rounds=SEARCH_ROUNDS, progress=lambda done, best: bar.update(done, f"{best.error:.2f}")
        )
    levels = (own[0], *(float(f"{level:.3g}") for level in found.levels[1:]))
    images = to_images(_sample(recipe, posterior, noise, cond, levels))
    return {"levels": list(levels), **metrics(images, cond)}


def _cached(denoise: DenoiseFn) -> DenoiseFn:
    """A denoiser with a cache: sets of levels that begin alike share their first calls."""
    known: dict[tuple[float, bytes], Tensor] = {}

    def look_up(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        key = float(sigma[0]), hashlib.sha256(x.cpu().contiguous().numpy().data).digest()
        if key not in known:
            known[key] = denoise(x, sigma, cond)
        return known[key]

    return look_up


def _shown(posterior: PosteriorMean, levels: list[float], to_images: ToImages) -> list[tuple[str, Tensor]]:
    """Rows of diagnose.png: stored samples, and the optimum at inputs made from them at each level."""
    pairs = posterior.pairs
    which = torch.arange(min(NUM_SHOWN, len(pairs.x0)), device=pairs.x0.device)
    x0, cond = pairs.x0[which], pairs.cond[which]
    rows = [("stored", to_images(x0))]
    for sigma in reversed(levels):
        eps = torch.randn(x0.shape, generator=generator("diagnose-shown", f"{sigma:.6g}")).to(x0.device)
        mean = posterior(posterior.inputs(which, sigma, eps), torch.full((len(x0),), sigma, device=x0.device), cond)
        rows.append((f"from {sigma:.3g}", to_images(mean)))
    return rows


def write_picture(path: Path, optimum: L2Optimum) -> None:
    """Write the grid: the optimum at inputs of each level, then its samples from held-out noise."""
    write_grid(path, optimum.rows, columns=NUM_SHOWN)
