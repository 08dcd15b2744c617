"""The effect of a concept slider on samples: how far its attribute moves, and how much of the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from ladd_dist.builders.sampling import SampleFn, sample_student
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.errors import UserError
from ladd_dist.core.features import DIGITS
from ladd_dist.core.machine import require_memory
from ladd_dist.core.rng import NoiseSource, added_noise, sample_starts
from ladd_dist.core.rundir import RunDir
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.metrics import Samples
from ladd_dist.metrics.extract import digit_color
from ladd_dist.metrics.interval import Estimate, share_of, with_intervals
from ladd_dist.recipe import Recipe
from ladd_dist.sliders.attributes import ATTRIBUTES
from ladd_dist.sliders.slider import Control, On, attach, network_of
from ladd_dist.students.adapter import merge_adapter, set_strength
from ladd_dist.workspace.run import Run

WORD = 4
"""Bytes of a float32."""
NETWORKS: tuple[On, ...] = get_args(On)


@dataclass(frozen=True)
class Effect:
    """Figures of samples along a direction, each with the ends of its interval over samples."""

    strengths: dict[str, dict[str, float]]
    """Figures by strength, against the samples of strength 0.

    `moved`: mean change of the attribute; `goal`: the change that the edit itself would have made; `accuracy`: share of
    samples that the shipped classifier assigns to their class; `other/NAME`: mean change of the other attributes;
    `drift`: distance to the edit of the untouched sample in the features of the shipped network, in units of the mean
    distance of two untouched samples of one class.
    """
    span: dict[str, float]
    """`span`: mean change of the attribute from the lowest strength to the highest."""

    def as_json(self) -> dict[str, dict[str, dict[str, float]] | float]:
        """The network's entry in transfer.json."""
        return {"strengths": self.strengths, **self.span}


def slide(
    run: Run, folder: RunDir, control: Control, on: On, strengths: tuple[float, ...], num: int
) -> tuple[dict[float, Tensor], Tensor]:
    """Samples [num,C,H,W] by strength, from the same held-out noise and classes, and the classes [num].

    The teacher samples as for the shards, the student in as many steps as it was trained for.

    Raises:
        UserError: the network is missing or of another shape, or samples are not finite.
    """
    recipe = run.recipe
    size, found, image = recipe.evaluate.batch_size, {}, recipe.latent()
    needed = WORD * num * len(strengths) * image.num_values
    require_memory(needed, f"{num} samples at each of {len(strengths)} strengths")
    with StopFlag().listen() as stop, Bar(f"sampling {on}", num * len(strengths)) as bar:
        for number, strength in enumerate(strengths):
            network = attach(network_of(run, folder, on), control, recipe)
            set_strength(network, strength)
            sample = _sampler(recipe, merge_adapter(network), on)  # a merged adapter costs no time
            parts = []
            for first in range(0, num, size):
                stop.check()
                indices = range(first, min(first + size, num))
                seed = recipe.evaluate.seed
                starts = sample_starts(seed, indices, recipe.latent(), run.device)
                parts.append(sample(*starts, added_noise(seed, indices)))
                bar.update(number * num + indices.stop)
            found[strength] = torch.cat(parts)
            if not found[strength].isfinite().all():
                raise UserError(f"the {on}'s samples at strength {strength:g} hold NaN or infinity; use a smaller one")
    cond = sample_starts(recipe.evaluate.seed, range(num), recipe.latent(), run.device)[1]
    return found, cond


def _sampler(recipe: Recipe, network: Denoiser, on: On) -> SampleFn:
    denoise = guided_teacher(recipe, network)

    @torch.inference_mode()
    def sample(noise: Tensor, cond: Tensor, source: NoiseSource) -> Tensor:
        if on == "student":
            return sample_student(recipe, network, noise, cond, recipe.student_steps, source)
        return recipe.shards.sampler(denoise, noise, cond)[0]

    return sample


def effect(samples: Mapping[float, Tensor], cond: Tensor, name: str, network: str = DIGITS) -> Effect:
    """Measure samples along a direction.

    Args:
        samples: images [N,3,H,W] by strength, with those of strength 0.
        cond: their classes [N].
        name: the attribute that the direction moves.
        network: the shipped network that reads the images.
    """
    base, chosen = samples[0.0], ATTRIBUTES[name]
    before = {key: item.measure(base) for key, item in ATTRIBUTES.items()}
    apart = _apart(_features(base, cond, network), cond)
    found: dict[str, dict[str, float]] = {}
    for strength, images in samples.items():
        wanted = chosen.edit(base, strength)
        changes = {key: item.measure(images) - before[key] for key, item in ATTRIBUTES.items()}
        right = digit_color(Samples(images, cond, network=network))["digit"] == cond
        away = (_features(images, cond, network) - _features(wanted, cond, network)).norm(dim=1) / apart
        parts = {"moved": changes[name], "accuracy": right, "drift": away}
        parts |= {f"other/{key}": change for key, change in changes.items() if key != name}
        goal = chosen.measure(wanted) - before[name]
        found[f"{strength:g}"] = {**_means(parts), "goal": float(goal.double().mean())}
    low, high = min(samples), max(samples)
    spans = {"span": chosen.measure(samples[high]) - chosen.measure(samples[low])}
    return Effect(found, _means(spans))


def _means(parts: Mapping[str, Tensor]) -> dict[str, float]:
    return with_intervals({
        name: share_of(rows) if rows.dtype == torch.bool else Estimate(float(rows.double().mean()), rows)
        for name, rows in parts.items()
    })  # fmt: skip


def _features(images: Tensor, cond: Tensor, network: str) -> Tensor:
    return digit_color(Samples(images, cond, network=network))["features"]


def _apart(features: Tensor, cond: Tensor) -> float:
    """Mean distance of a sample to the next one of its class, or to the next of all if no class has two."""
    pairs = [
        features[rows] - features[rows].roll(1, 0) for rows in (cond == number for number in range(int(cond.max()) + 1))
    ]
    distances = torch.cat([pair for pair in pairs if len(pair) > 1] or [features - features.roll(1, 0)])
    return max(float(distances.norm(dim=1).mean()), 1e-6)
