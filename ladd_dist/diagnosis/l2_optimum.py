"""Before training: what the recipe's distance alone would make of the student, worked out from the shards."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ladd_dist.builders.codec import decoded, is_pixels
from ladd_dist.builders.shards import open_shards
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import generator, sample_starts
from ladd_dist.core.types import Batch, DenoiseFn
from ladd_dist.diagnosis.advice import advise, weight_at
from ladd_dist.diagnosis.posterior import PosteriorMean
from ladd_dist.diagnosis.sample_metrics import Show, Yardstick, colour_variance, sees_colours
from ladd_dist.engine.loop import Bar
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.levels.search import search_levels
from ladd_dist.recipe import Recipe
from ladd_dist.reports.diagnosis_text import REGRESSES, verdict_of
from ladd_dist.reports.grids import write_grid
from ladd_dist.reports.verdict import VARIANCE_COLLAPSED
from ladd_dist.workspace.run import Run

FORMAT = 1
NUM_INPUTS = 2_000
"""Inputs at which a level is looked at."""
NUM_SHOWN = 16
SEARCH_SAMPLES, SEARCH_ROUNDS = 300, 3
BISECTIONS = 8
_SAME_LEVEL = 1e-5


class Prediction(NamedTuple):
    """What `diagnose.json` holds, and the rows of its picture."""

    figures: dict[str, Any]
    rows: list[tuple[str, Tensor]]


def predict(run: Run, *, num_pairs: int, search: bool) -> Prediction:
    """The L2-optimal student over up to `num_pairs` stored pairs; no network of the recipe is built or needed.

    Args:
        search: look for levels with which it does better, where it regresses to the mean.

    Raises:
        ShardError: no shards, or damaged ones. ValueError: a coupling that has no closed form.
    """
    recipe = run.recipe
    device = run.device if run.device.type == "cuda" else torch.device("cpu")  # float64 is not everywhere
    reader = open_shards(run)
    posterior = PosteriorMean(read_pairs(reader, num_pairs, device), recipe.start)
    show = partial(decoded, run)
    measure = Yardstick(recipe, reader, show)
    levels = looked_at(recipe, posterior.pairs)
    trained = trained_levels(recipe, levels)
    with Bar("levels", len(levels)) as bar:
        rows = []
        for done, sigma in enumerate(levels):
            rows.append(look_at(recipe, posterior, sigma) | {"trained": sigma in trained})
            bar.update(done + 1)
    samples, pictures = sample_optimum(recipe, posterior, measure, show, device)
    pairs = posterior.pairs
    figures: dict[str, Any] = {
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
        "measure": "colour_variance" if _by_colour(recipe) else "kept",
        "stored": measure(show(pairs.x0), pairs.cond),
        "levels": rows,
        "samples": samples,
        "threshold": threshold(recipe, posterior, rows),
        "reproduced": reproduced(recipe, posterior),
    }
    better = find_levels(recipe, posterior, measure, show, device) if search and regressing(rows) else None
    figures["found_levels"] = better
    figures["advice"] = advise(recipe, figures, has_noise=pairs.noise is not None)
    return Prediction(figures, _shown(posterior, [row["sigma"] for row in rows], show) + pictures)


def _by_colour(recipe: Recipe) -> bool:
    """Whether a level is judged by the colours that are left: latents are judged as they are, by what is explained."""
    return is_pixels(recipe) and sees_colours(recipe)


def read_pairs(reader: ShardReader, num: int, device: torch.device) -> Batch:
    """Up to `num` stored pairs, evenly over the set."""
    where = np.unique(np.linspace(0, len(reader) - 1, min(num, len(reader))).round().astype(np.int64))
    batch = reader.take(where)
    noise, path = (None if tensor is None else tensor.to(device) for tensor in (batch.noise, batch.path))
    return Batch(batch.x0.to(device), batch.cond.to(device), noise, path, batch.path_levels)


def looked_at(recipe: Recipe, pairs: Batch) -> list[float]:
    """The levels at which the student is trained or sampled, descending; of a path those that are stored."""
    counts = {*recipe.evaluate.steps, recipe.student_steps}
    levels = sorted({level for steps in counts for level in recipe.levels(steps)}, reverse=True)
    return [level for level in levels if not recipe.start.needs_path or level in pairs.path_levels]


def trained_levels(recipe: Recipe, levels: Sequence[float]) -> set[float]:
    """Those of `levels` that the law of the student's levels draws, at the start, in the middle or at the end."""
    steps, own = recipe.train.steps, recipe.student_levels()
    drawn = torch.cat([
        recipe.student_sigma(4096, step, generator("diagnose-levels", step), levels=own)
        for step in (0, steps // 2, steps - 1)
    ]).double()  # fmt: skip
    if len(set(drawn.tolist())) > len(own):  # a law with a density, which comes as near as one likes
        return {level for level in levels if float(drawn.min()) <= level <= float(drawn.max())}
    return {level for level in levels if float((drawn / level - 1).abs().min()) < _SAME_LEVEL}


def regressing(rows: list[dict[str, Any]]) -> list[float]:
    """The levels whose optimum is an average."""
    return [row["sigma"] for row in rows if row["verdict"] == REGRESSES]


def _some(posterior: PosteriorMean, num: int) -> Tensor:
    """Up to `num` of the pairs, evenly."""
    count = len(posterior.pairs.x0)
    return torch.linspace(0, count - 1, min(num, count), device=posterior.pairs.x0.device).round().long()


def look_at(recipe: Recipe, posterior: PosteriorMean, sigma: float, num: int = NUM_INPUTS) -> dict[str, Any]:
    """The optimum at one level, on inputs as training makes them.

    `share`: colour variance of the optimum over that of the samples (`kept` for latents and data without colour);
    `kept`: share of the samples' variance within their class that the optimum explains; `averaged`: samples that it is
    the mean of; `classes`: `share` within each class.
    """
    pairs, which = posterior.pairs, _some(posterior, num)
    x0, cond = pairs.x0[which], pairs.cond[which]
    eps = torch.randn(x0.shape, generator=generator("diagnose", f"{sigma:.6g}")).to(x0.device)
    seen = posterior.weigh(posterior.inputs(which, sigma, eps), torch.full((len(x0),), sigma, device=x0.device), cond)
    error, spread = (seen.mean - x0).square().mean(dim=(1, 2, 3)), torch.empty(len(x0), device=x0.device)
    for number in posterior.rows:
        own = cond == number
        spread[own] = (x0[own] - x0[own].mean(dim=0)).square().mean(dim=(1, 2, 3))
    kept = max(0.0, 1 - float(error.mean() / spread.mean())) if float(spread.mean()) > 0 else 1.0
    figures: dict[str, Any] = {
        "sigma": sigma, "weight": weight_at(recipe.distance, sigma), "spread": posterior.spread(sigma),
        "averaged": float(seen.averaged.mean()), "kept": kept, "share": kept, "classes": {},
    }  # fmt: skip
    if _by_colour(recipe):
        figures["colour_variance"] = colour_variance(seen.mean)
        figures["share"] = _ratio(figures["colour_variance"], colour_variance(x0))
        for number in posterior.rows:
            own = cond == number
            if int(own.sum()) > 1:
                share = _ratio(colour_variance(seen.mean[own]), colour_variance(x0[own]))
                figures["classes"][str(number)] = share
    return {**figures, "verdict": verdict_of(figures["share"])}


def _ratio(one: float, other: float) -> float:
    return one / other if other > 0 else 1.0


def sample_optimum(
    recipe: Recipe, posterior: PosteriorMean, measure: Yardstick, show: Show, device: torch.device
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, Tensor]]]:
    """The optimum sampled at the evaluation's noise and classes, by the student's rule: figures, and pictures.

    For a coupling without new noise this is the nearest pair's sample: what a student that only remembers would give.
    """
    num = min(recipe.evaluate.num_samples, len(posterior.pairs.x0))
    noise, cond = sample_starts(recipe.evaluate.seed, range(num), recipe.latent(), device)
    stored = colour_variance(show(posterior.pairs.x0)) if measure.colours else 0.0
    figures, rows = {}, []
    for steps in recipe.evaluate.steps:
        levels = recipe.levels(steps)
        if recipe.start.needs_path and not set(levels) <= set(posterior.pairs.path_levels):
            continue  # the shards have no state of the teacher there
        images = show(_sample(recipe, posterior, noise, cond, levels))
        row: dict[str, Any] = {"levels": list(levels), "num_samples": num, **measure(images, cond)}
        if measure.colours:
            row["share"] = _ratio(row["colour_variance"], stored)
        figures[f"optimum@{steps}"] = row
        who = "nearest pair" if posterior.spread(levels[0]) == 0 else "optimum"
        rows.append((f"{who}@{steps}", images[:NUM_SHOWN]))
    return figures, rows


def _sample(recipe: Recipe, denoise: DenoiseFn, noise: Tensor, cond: Tensor, levels: tuple[float, ...]) -> Tensor:
    source = generator("sde", recipe.evaluate.seed, device=noise.device)  # the noise that the student is sampled with
    return few_step_sample(denoise, noise, cond, levels, recipe.start.rule, source)


def threshold(recipe: Recipe, posterior: PosteriorMean, rows: list[dict[str, Any]]) -> float | None:
    """The level above which less than half of the variance is left, by bisection in ln sigma; None: nowhere."""
    above = [row["sigma"] for row in rows if row["share"] < VARIANCE_COLLAPSED]
    if not above or recipe.start.needs_path:  # which has no inputs between the stored levels
        return None
    below = [row["sigma"] for row in rows if row["share"] >= VARIANCE_COLLAPSED]
    high, low = min(above), max(below, default=1e-3)
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        share = look_at(recipe, posterior, middle, num=NUM_INPUTS // 4)["share"]
        low, high = (low, middle) if share < VARIANCE_COLLAPSED else (middle, high)
    return float(f"{math.sqrt(low * high):.3g}")


def reproduced(recipe: Recipe, posterior: PosteriorMean) -> float | None:
    """Mean square error of the optimum, sampled from stored noise by the recipe's rule, against the stored samples.

    None for couplings with new noise. Not near 0: the sampling rule does not fit the coupling.
    """
    pairs = posterior.pairs
    levels = recipe.student_levels()
    if pairs.noise is None or any(posterior.spread(level) > 0 for level in levels):
        return None
    which = _some(posterior, NUM_INPUTS // 4)
    images = _sample(recipe, posterior, pairs.noise[which], pairs.cond[which], levels)
    return float((images - pairs.x0[which]).square().mean())


def find_levels(
    recipe: Recipe, posterior: PosteriorMean, measure: Yardstick, show: Show, device: torch.device
) -> dict[str, Any] | None:
    """As many levels as the student has, with which the optimum's samples come nearest to the stored ones."""
    num, own = min(recipe.evaluate.num_samples, len(posterior.pairs.x0)), recipe.student_levels()
    if len(own) < 2 or measure.references is None or recipe.start.needs_path:
        return None
    noise, cond = sample_starts(recipe.evaluate.seed, range(num), recipe.latent(), device)
    few, remembered = min(num, SEARCH_SAMPLES), _remembering(posterior)

    def error(levels: tuple[float, ...]) -> float:
        return measure.fd(show(_sample(recipe, remembered, noise[:few], cond[:few], levels)))

    even = tuple(float(own[0] * (0.1 / own[0]) ** (i / (len(own) - 1))) for i in range(len(own)))
    with Bar("better levels", SEARCH_ROUNDS) as bar:
        found = search_levels(
            error, [own, even], rounds=SEARCH_ROUNDS, progress=lambda done, best: bar.update(done, f"{best.error:.2f}")
        )
    levels = (own[0], *(float(f"{level:.3g}") for level in found.levels[1:]))
    images = show(_sample(recipe, posterior, noise, cond, levels))
    return {"levels": list(levels), **measure(images, cond)}


def _remembering(denoise: DenoiseFn) -> DenoiseFn:
    """The same function, which computes nothing twice: sets of levels that begin alike share their first calls."""
    known: dict[tuple[float, bytes], Tensor] = {}

    def look_up(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        key = float(sigma[0]), hashlib.sha256(x.cpu().contiguous().numpy().data).digest()
        if key not in known:
            known[key] = denoise(x, sigma, cond)
        return known[key]

    return look_up


def _shown(posterior: PosteriorMean, levels: list[float], show: Show) -> list[tuple[str, Tensor]]:
    """Rows of the picture: stored samples, and the optimum at inputs made from them at each level."""
    pairs = posterior.pairs
    which = torch.arange(min(NUM_SHOWN, len(pairs.x0)), device=pairs.x0.device)
    x0, cond = pairs.x0[which], pairs.cond[which]
    rows = [("stored", show(x0))]
    for sigma in reversed(levels):
        eps = torch.randn(x0.shape, generator=generator("diagnose-shown", f"{sigma:.6g}")).to(x0.device)
        seen = posterior(posterior.inputs(which, sigma, eps), torch.full((len(x0),), sigma, device=x0.device), cond)
        rows.append((f"from {sigma:.3g}", show(seen)))
    return rows


def write_picture(path: Path, prediction: Prediction) -> None:
    """The grid: what the optimum makes of inputs at each level, then its samples from held-out noise."""
    write_grid(path, prediction.rows, columns=NUM_SHOWN)
