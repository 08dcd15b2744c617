"""When a sample is decided: the estimate of the final sample at every call of the network (arXiv 2503.10637)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ladd_dist.builders.networks import denoiser
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import generator, sample_starts
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.diagnosis.sample_metrics import Reading, Show, Yardstick
from ladd_dist.recipe import Recipe
from ladd_dist.reports.grids import WHITE, YELLOW, Line, write_tiles

NUM_MEASURED, NUM_SHOWN, COLUMNS = 32, 8, 12
HALF_A_BIN = 1 / 24
"""Of twelve bins of hue: how near an estimate's hue must be to the final one's to be the same."""


class Strip(NamedTuple):
    """What a sampler thought the final samples to be, call by call."""

    sigmas: tuple[float, ...]  # of the K calls
    estimates: Tensor  # [K,N,C,H,W]; the last is the sample


def strips(recipe: Recipe, teacher: Denoiser, student: Denoiser, num: int = NUM_MEASURED) -> dict[str, Strip]:
    """Teacher and student from the same held-out noise and classes, the student in as many steps as it is trained for
    and in one."""
    device = next(student.parameters()).device
    noise, cond = sample_starts(recipe.evaluate.seed, range(num), recipe.latent(), device)
    found = {}
    with torch.inference_mode():
        follow = _Follower(guided_teacher(recipe, teacher))
        recipe.shards.sampler(follow, noise, cond)
        found[f"teacher@{len(recipe.shards.sampler.levels())}"] = follow.strip()
        for steps in sorted({recipe.student_steps, 1}, reverse=True):
            follow, source = _Follower(denoiser(student)), generator("sde", recipe.evaluate.seed, device=device)
            few_step_sample(follow, noise, cond, recipe.levels(steps), recipe.start.rule, source)
            found[f"student@{steps}"] = follow.strip()
    return found


def shown(found: dict[str, Strip], show: Show) -> dict[str, Strip]:
    """The same with pictures in place of latents."""
    pictures = {name: show(strip.estimates.flatten(0, 1)) for name, strip in found.items()}
    return {
        name: strip._replace(estimates=pictures[name].view(*strip.estimates.shape[:2], *pictures[name].shape[1:]))
        for name, strip in found.items()
    }


class _Follower:
    """A denoiser that keeps what it answered."""

    def __init__(self, denoise: DenoiseFn) -> None:
        self.denoise = denoise
        self.answers: list[tuple[float, Tensor]] = []

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        x0 = self.denoise(x, sigma, cond)
        self.answers.append((float(sigma[0]), x0.cpu()))
        return x0

    def strip(self) -> Strip:
        sigmas, estimates = zip(*self.answers, strict=True)
        return Strip(sigmas, torch.stack(estimates))


def decided(same: Tensor) -> Tensor:
    """The call, counted from 1, from which on all estimates agree with the final one: same [K,N] bool -> [N] int64."""
    agreeing = same.flip(0).long().cumprod(dim=0).sum(dim=0)
    return (len(same) - agreeing + 1).clamp_max(len(same))


def same_hue(one: Tensor, other: Tensor) -> Tensor:
    """Whether hues in [0, 1) lie within half a bin of each other on the circle; NaN, no colour, agrees with nothing."""
    apart = (one - other).abs()
    return torch.minimum(apart, 1 - apart) < HALF_A_BIN


def judge_strips(recipe: Recipe, found: dict[str, Strip]) -> dict[str, Any]:
    """For each sampler the step at which class and hue are decided, and how far each estimate is from the sample.

    `class`, `hue`: `steps` (of each sample, from 1; null without a final colour), `step` (their median) and `sigma`
    there; absent where this data have no such thing. `distance`: root mean square difference from the final sample, at
    each call. `agrees`: share of the student's samples with the teacher's class or hue.
    """
    measure = Yardstick(recipe, None)
    readings = {name: [measure.read(estimate) for estimate in strip.estimates] for name, strip in found.items()}
    teacher = next(iter(readings.values()))[-1]
    figures = {}
    for name, strip in found.items():
        last = strip.estimates[-1]
        rms = (strip.estimates - last).square().mean(dim=(1, 2, 3, 4)).sqrt()
        row: dict[str, Any] = {"sigmas": list(strip.sigmas), "distance": rms.tolist(), "agrees": {}}
        read = readings[name]
        if read[-1].digit is not None:
            digits = torch.stack([reading.digit for reading in read if reading.digit is not None])
            row["class"] = _summary(
                decided(digits == digits[-1]), strip.sigmas, torch.ones(len(last), dtype=torch.bool)
            )
            assert teacher.digit is not None
            row["agrees"]["class"] = float(digits[-1].eq(teacher.digit).double().mean())
        if read[-1].hue is not None and teacher.hue is not None:
            hues = torch.stack([reading.hue for reading in read if reading.hue is not None])
            row["hue"] = _summary(decided(same_hue(hues, hues[-1])), strip.sigmas, ~hues[-1].isnan())
            row["agrees"]["hue"] = float(same_hue(hues[-1], teacher.hue).double().mean())
        figures[name] = row
    return figures


def _summary(steps: Tensor, sigmas: Sequence[float], known: Tensor) -> dict[str, Any]:
    of_each = [int(step) if there else None for step, there in zip(steps, known, strict=True)]
    if not bool(known.any()):
        return {"steps": of_each, "step": None, "sigma": None}
    middle = int(steps[known].median())
    return {"steps": of_each, "step": middle, "sigma": sigmas[middle - 1]}


def draw_strips(path: Path, found: dict[str, Strip], figures: dict[str, Any]) -> None:
    """A strip for each of the first samples and each sampler: columns are noise levels, those of the teacher's calls.

    The student's estimates stand where its levels are. White frame: the class is decided; yellow: the hue.
    """
    names = list(found)[:2]
    teacher = found[names[0]]
    shown = _spread(len(teacher.sigmas))
    columns = [teacher.sigmas[index] for index in shown]
    groups = []
    for sample in range(min(NUM_SHOWN, teacher.estimates.shape[1])):
        lines = []
        for name in names:
            strip = found[name]
            places = dict(enumerate(shown)) if name == names[0] else _places(strip.sigmas, columns)
            tiles = {column: strip.estimates[call, sample] for column, call in places.items()}
            lines.append(Line(name, tiles, _frames(figures[name], places, sample)))
        groups.append(lines)
    write_tiles(path, groups, [f"{sigma:.2g}" for sigma in columns])


def _spread(calls: int) -> list[int]:
    count = min(COLUMNS, calls)
    return sorted({round(index * (calls - 1) / max(count - 1, 1)) for index in range(count)})


def _places(sigmas: Sequence[float], columns: Sequence[float]) -> dict[int, int]:
    """Column -> call: each call at the column of the nearest level, in order, no two in one."""
    places: dict[int, int] = {}
    for call, sigma in enumerate(sigmas):
        nearest = min(range(len(columns)), key=lambda column: abs(math.log(columns[column] / sigma)))
        last = len(columns) - (len(sigmas) - call)  # leave room for those that follow
        places[min(max(nearest, max(places, default=-1) + 1), max(last, 0))] = call
    return places


def _frames(row: dict[str, Any], places: dict[int, int], sample: int) -> dict[int, list[tuple[int, int, int]]]:
    """The first picture shown at or after the deciding call of class and hue."""
    frames: dict[int, list[tuple[int, int, int]]] = {}
    for key, colour in (("class", WHITE), ("hue", YELLOW)):
        step = row[key]["steps"][sample] if key in row else None
        after = [column for column, call in sorted(places.items()) if step is not None and call + 1 >= step]
        if after:
            frames.setdefault(after[0], []).append(colour)
    return frames


__all__ = ["Reading", "Strip", "decided", "draw_strips", "judge_strips", "same_hue", "shown", "strips"]
