"""Trajectories of x0 estimates: the call of the network at which a sample's class and hue are decided.

After Gandikota and Bau 2025 (arXiv 2503.10637).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from ladd_dist.builders.networks import denoiser
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import added_noise, sample_starts
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.diagnosis.sample_metrics import SampleAttributes, SampleMetrics, ToImages
from ladd_dist.recipe import Recipe
from ladd_dist.reports.grids import WHITE, YELLOW, Line, write_tiles

NUM_MEASURED, NUM_SHOWN, COLUMNS = 32, 8, 12
HALF_A_BIN = 1 / 24
"""Half the width of one of twelve hue bins: hues that are nearer to each other count as the same."""


class Trajectory(NamedTuple):
    """The x0 estimates of a sampler, call by call."""

    sigmas: tuple[float, ...]  # noise levels of the K calls
    estimates: Tensor  # [K,N,C,H,W]; the last is the sample


class Decision(TypedDict):
    """The calls, counted from 1, from which on an attribute of the samples stays as it is."""

    steps: list[int | None]
    """The deciding call of each sample; None for a sample that ends without the attribute."""
    step: int | None
    """Their median."""
    sigma: float | None
    """The noise level of the median call."""


Agreement = TypedDict("Agreement", {"class": float, "hue": float}, total=False)
"""Share of the samples that have the same class or hue as the teacher's."""

SamplerDecisions = TypedDict(
    "SamplerDecisions",
    {
        "sigmas": list[float],
        "distance": list[float],
        "agrees": Agreement,
        "class": NotRequired[Decision],
        "hue": NotRequired[Decision],
    },
)
"""A sampler's entry in strips.json.

`distance` is the root mean square difference from the final sample at each call. An attribute that the data do not have
is absent.
"""


def record_trajectories(
    recipe: Recipe, teacher: Denoiser, student: Denoiser, num: int = NUM_MEASURED
) -> dict[str, Trajectory]:
    """Trajectories of `num` samples from held-out noise and classes, by the name of the sampler.

    The teacher comes first, then the student in as many steps as it is trained for, then the student in one step.
    """
    device = next(student.parameters()).device
    noise, cond = sample_starts(recipe.evaluate.seed, range(num), recipe.asked(), device)
    found = {}
    with torch.inference_mode():
        recorder = _Recorder(guided_teacher(recipe, teacher))
        recipe.shards.sampler(recorder, noise, cond)
        found[f"teacher@{len(recipe.shards.sampler.levels())}"] = recorder.trajectory()
        for steps in sorted({recipe.student_steps, 1}, reverse=True):
            recorder, source = _Recorder(denoiser(student)), added_noise(recipe.evaluate.seed, range(num))
            few_step_sample(recorder, noise, cond, recipe.levels(steps), recipe.start.rule, source)
            found[f"student@{steps}"] = recorder.trajectory()
    return found


def decode_trajectories(found: dict[str, Trajectory], to_images: ToImages) -> dict[str, Trajectory]:
    """The trajectories with images instead of latents."""
    images = {name: to_images(one.estimates.flatten(0, 1)) for name, one in found.items()}
    return {
        name: one._replace(estimates=images[name].view(*one.estimates.shape[:2], *images[name].shape[1:]))
        for name, one in found.items()
    }


class _Recorder:
    """A denoiser that keeps its estimates."""

    def __init__(self, denoise: DenoiseFn) -> None:
        self.denoise = denoise
        self.answers: list[tuple[float, Tensor]] = []

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        x0 = self.denoise(x, sigma, cond)
        self.answers.append((float(sigma[0]), x0.cpu()))
        return x0

    def trajectory(self) -> Trajectory:
        sigmas, estimates = zip(*self.answers, strict=True)
        return Trajectory(sigmas, torch.stack(estimates))


def decided(same: Tensor) -> Tensor:
    """The call [N], counted from 1, from which on all estimates agree with the final one; same [K,N] says which do."""
    agreeing = same.flip(0).long().cumprod(dim=0).sum(dim=0)
    return (len(same) - agreeing + 1).clamp_max(len(same))


def same_hue(one: Tensor, other: Tensor) -> Tensor:
    """Whether hues in [0, 1) lie within half a bin of each other on the circle; NaN (no colour) agrees with nothing."""
    apart = (one - other).abs()
    return torch.minimum(apart, 1 - apart) < HALF_A_BIN


def find_decisions(recipe: Recipe, found: dict[str, Trajectory]) -> dict[str, SamplerDecisions]:
    """The calls at which class and hue are decided, and the distance of each estimate from the sample, by sampler.

    Args:
        found: trajectories of images; the first is the teacher's.
    """
    metrics = SampleMetrics(recipe, None)
    attributes = {name: [metrics.attributes(estimate) for estimate in one.estimates] for name, one in found.items()}
    teacher = next(iter(attributes.values()))[-1]
    return {name: _decisions_of(one, attributes[name], teacher) for name, one in found.items()}


def _decisions_of(
    trajectory: Trajectory, attributes: list[SampleAttributes], teacher: SampleAttributes
) -> SamplerDecisions:
    """The decisions of one sampler.

    Args:
        attributes: those of the estimates of each call.
        teacher: attributes of the teacher's samples.
    """
    last, sigmas = trajectory.estimates[-1], trajectory.sigmas
    rms = (trajectory.estimates - last).square().mean(dim=(1, 2, 3, 4)).sqrt()
    row: SamplerDecisions = {"sigmas": list(sigmas), "distance": rms.tolist(), "agrees": {}}
    if teacher.digit is not None:
        digits = torch.stack([one.digit for one in attributes if one.digit is not None])
        row["class"] = _decision(decided(digits == digits[-1]), sigmas, torch.ones(len(last), dtype=torch.bool))
        row["agrees"]["class"] = float(digits[-1].eq(teacher.digit).double().mean())
    if teacher.hue is not None:
        hues = torch.stack([one.hue for one in attributes if one.hue is not None])
        row["hue"] = _decision(decided(same_hue(hues, hues[-1])), sigmas, ~hues[-1].isnan())
        row["agrees"]["hue"] = float(same_hue(hues[-1], teacher.hue).double().mean())
    return row


def _decision(steps: Tensor, sigmas: Sequence[float], known: Tensor) -> Decision:
    """The decision of N samples from their deciding calls [N]; `known` [N]: whether they end with the attribute."""
    of_each = [int(step) if there else None for step, there in zip(steps, known, strict=True)]
    if not bool(known.any()):
        return {"steps": of_each, "step": None, "sigma": None}
    median = int(steps[known].median())
    return {"steps": of_each, "step": median, "sigma": sigmas[median - 1]}


def draw_trajectories(path: Path, found: dict[str, Trajectory], decisions: dict[str, SamplerDecisions]) -> None:
    """Draw a strip of estimates for each of the first samples, of the teacher and of the student.

    Columns are the noise levels of the teacher's calls; the student's estimates stand at the nearest levels. A white
    frame marks the call that decides the class, a yellow one the hue.
    """
    names = list(found)[:2]
    teacher = found[names[0]]
    shown = _spread(len(teacher.sigmas))
    columns = [teacher.sigmas[index] for index in shown]
    groups = []
    for sample in range(min(NUM_SHOWN, teacher.estimates.shape[1])):
        lines = []
        for name in names:
            one = found[name]
            places = dict(enumerate(shown)) if name == names[0] else _places(one.sigmas, columns)
            tiles = {column: one.estimates[call, sample] for column, call in places.items()}
            lines.append(Line(name, tiles, _frames(decisions[name], places, sample)))
        groups.append(lines)
    write_tiles(path, groups, [f"{sigma:.2g}" for sigma in columns])


def _spread(calls: int) -> list[int]:
    """Indices of at most `COLUMNS` of the calls, evenly spaced, the first and the last included."""
    count = min(COLUMNS, calls)
    return sorted({round(index * (calls - 1) / max(count - 1, 1)) for index in range(count)})


def _places(sigmas: Sequence[float], columns: Sequence[float]) -> dict[int, int]:
    """Column -> call: each call at the column of the nearest level, in order, at most one call a column."""
    places: dict[int, int] = {}
    for call, sigma in enumerate(sigmas):
        nearest = min(range(len(columns)), key=lambda column: abs(math.log(columns[column] / sigma)))
        last = len(columns) - (len(sigmas) - call)  # leave room for those that follow
        places[min(max(nearest, max(places, default=-1) + 1), max(last, 0))] = call
    return places


def _frames(row: SamplerDecisions, places: dict[int, int], sample: int) -> dict[int, list[tuple[int, int, int]]]:
    """Frames of one sample by column: at the first estimate shown from the deciding calls of class and hue on."""
    frames: dict[int, list[tuple[int, int, int]]] = {}
    for decision, colour in ((row.get("class"), WHITE), (row.get("hue"), YELLOW)):
        step = decision["steps"][sample] if decision else None
        after = [column for column, call in sorted(places.items()) if step is not None and call + 1 >= step]
        if after:
            frames.setdefault(after[0], []).append(colour)
    return frames
