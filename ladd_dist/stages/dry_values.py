"""Finiteness of a recipe's training step on random data, before any training: which part gives NaN or infinity."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.gan import over_heads
from ladd_dist.core.own_code import PACKAGE
from ladd_dist.core.plugin import Plugin
from ladd_dist.core.rng import generator, whole_batch
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.types import Batch
from ladd_dist.engine.discriminator import join, split
from ladd_dist.engine.draws import Part
from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_step import Trial, trial


class _Output(NamedTuple):
    """What one part of a recipe gave in a trial of the training step."""

    field: str
    """The recipe's field that holds the part."""
    what: str
    """What it gave, for a message."""
    values: Tensor | float


def random_batch(rehearsal: Trial, size: int) -> Batch:
    """A batch as the shards give it, of noise: x0 [B,C,H,W] in [-1, 1], its noise, states of the path if asked for."""
    empty, source = rehearsal.batch(size), generator("trial")
    x0 = (0.5 * torch.randn(empty.x0.shape, generator=source)).clamp(-1, 1)
    noise = torch.randn(empty.x0.shape, generator=source)
    path = None
    if empty.path is not None:
        path = torch.stack([x0 + level * noise for level in empty.path_levels], dim=1)
    return empty._replace(x0=x0.contiguous(memory_format=torch.channels_last), noise=noise, path=path)


def require_finite_step(recipe: Recipe, figures: Mapping[str, Tensor | float], size: int) -> None:
    """Refuse a recipe whose training step gave `figures` that are not finite, and name the part that is to blame.

    Args:
        recipe: the recipe as it was rehearsed on the CPU.
        figures: what the step returned for `random_batch` of this size.

    Raises:
        RecipeError: a figure is NaN or infinite; the message names the first plug-in whose output is.
    """
    broken = [name for name, value in figures.items() if not math.isfinite(float(value))]
    if not broken:
        return
    with trial(recipe, with_data=True) as fresh:  # the step has spoilt the weights of the one that failed
        for output in _outputs(fresh, random_batch(fresh, size)):
            if not _is_finite(output.values):
                raise RecipeError(_blame(recipe, output))
    raise RecipeError(
        f"{', '.join(broken)}: not finite in a trial of the training step, though every output is: the gradient of "
        f"head {recipe.head.name!r}, distance {recipe.distance.name!r} or regulariser {recipe.regulariser.name!r} is "
        "NaN or infinite; `ladd plugins --check NAME` says which"
    )


@torch.enable_grad()
def _outputs(rehearsal: Trial, batch: Batch) -> Iterator[_Output]:
    """What each part gives, in the order in which a training step asks them."""
    step, last = rehearsal.step, rehearsal.recipe.train.steps - 1
    draws = step.micro_batches.draw(batch, whole_batch(len(batch.x0)), last, turn=0)
    yield _Output("student_sigma", "noise levels", draws.sigma)
    yield _Output("renoise_sigma", "noise levels", draws.tau)
    yield _Output("start", "the student's inputs", step.micro_batches.start(batch, draws.sigma, draws.start_eps))
    (part,) = step.parts(batch, last, whole_batch(len(batch.x0)))
    yield _Output("rollout", "the student's inputs", part.inputs.x)
    fake = step.fake(part)
    yield _Output("network", "samples", fake)
    yield from _of_heads(rehearsal, part, fake, last)
    target = step.target_of(fake, part, last)
    yield _Output("target", "samples", target.x0)
    yield _Output("target", "noise levels", target.sigma)
    yield _Output("distance", "a value", step.distance(fake, target.x0, target.sigma))
    yield _Output("adv_weight", "a weight", step.adv_weight(last))
    yield _Output("distill_weight", "a weight", step.distill_weight(last))


def _of_heads(rehearsal: Trial, part: Part, fake: Tensor, last: int) -> Iterator[_Output]:
    """What critic, heads, game and regulariser give."""
    step, turn = rehearsal.step, rehearsal.step.heads_update
    on_real, on_fake = step.critique_fake(part.batch.x0, part), step.critique_fake(fake.detach(), part)
    for tap, features in on_fake.features.items():
        yield _Output("critic", f"features on tap {tap!r}", features)
    both = join(on_real, on_fake)
    logits: dict[str, Tensor] = rehearsal.heads.module(both.features, both.cond_vec)
    for tap, own in logits.items():
        yield _Output("head", f"logits on tap {tap!r}", own)
    real, fakes = split(logits, 2)
    yield _Output("adversarial", "the heads' loss", over_heads(step.adversarial.discriminator, real, fakes))
    yield _Output("adversarial", "the student's loss", over_heads(step.adversarial.generator, fakes, real))
    penalty = turn.penalty(part, fake.detach(), on_real, on_fake, last, 0)
    yield _Output("regulariser", "a penalty", penalty)


def _is_finite(values: Tensor | float) -> bool:
    return bool(torch.as_tensor(values).isfinite().all())


def _blame(recipe: Recipe, output: _Output) -> str:
    plugin = getattr(recipe, output.field)
    kind = "NaN" if bool(torch.as_tensor(output.values).isnan().any()) else "infinite values"
    return (
        f"{plugin.kind} {plugin.name!r} gives {kind} ({output.what}) in a trial of the training step on ordinary data, "
        f"so nothing was trained{_where(plugin)}; `ladd plugins --check {plugin.name}` looks at it alone"
    )


def _where(plugin: Plugin) -> str:
    """The file of a plug-in that is not this package's, as a remark."""
    file = inspect.getsourcefile(type(plugin))
    return "" if file is None or str(PACKAGE) in file else f". Look at {type(plugin).__name__} in {file}"
