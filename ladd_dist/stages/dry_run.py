"""What a run is before it runs: its config, its cost, its stages."""

from __future__ import annotations

import dataclasses
import glob
from typing import NamedTuple

import torch

from ladd_dist.builders.step import taps_of
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.units import si
from ladd_dist.costs.flops import count_flops, count_parameters
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_step import Trial, trial
from ladd_dist.stages.shards import are_shards_done
from ladd_dist.stages.table import stage_states
from ladd_dist.workspace.config import RunFacts
from ladd_dist.workspace.run import Run


class Cost(NamedTuple):
    """What a dry run counts, as in `RunFacts`."""

    params: dict[str, int]
    taps: tuple[str, ...]
    flops: dict[str, int]


def describe_run(run: Run, scale: str) -> RunFacts:
    """What the run costs, counted on a rehearsed step, and which of its stages are done.

    Raises:
        RecipeError: the network cannot take the images or lacks a tap, or a head returns the wrong shape.
    """
    recipe = run.recipe
    try:
        cost = _cost(recipe)
    except UserError as error:
        raise RecipeError(str(error)) from error
    except Exception as error:
        error.add_note("This came from a trial of the recipe's training step; `ladd plugins --check NAME` may help.")
        raise
    source = recipe.shards.source
    if source and not glob.glob(source) and not are_shards_done(run):
        raise RecipeError(f"shards.source: nothing matches {source!r}")  # said now, not after the teacher's training
    return RunFacts(recipe.name, scale, recipe.distill_signature(), *cost, stages=stage_states(run))


def _cost(recipe: Recipe) -> Cost:
    plain = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=Compute()))
    # A pretrained network may be of any size, and its weights elsewhere: it is counted on tensors without data.
    with trial(plain, with_data=not recipe.network.pretrained) as rehearsal:
        return _count(recipe, rehearsal)


def _count(recipe: Recipe, rehearsal: Trial) -> Cost:
    teacher, critic, student = rehearsal.teacher, rehearsal.frozen.critic, rehearsal.student
    taps, num = taps_of(recipe, critic), 2
    batch = rehearsal.batch(num)
    ones = torch.ones(num)
    with torch.no_grad():
        forward = count_flops(lambda: student(batch.x0, ones, batch.cond)) // num
        to_tap = count_flops(lambda: critic(batch.x0, ones, batch.cond, taps=taps, denoise=False)) // num
    last = recipe.train.steps - 1  # the weights of a finished warm-up
    whole = count_flops(lambda: rehearsal.step(batch, last)) * recipe.train.batch_size // num
    networks = (("teacher", teacher), ("student", student.module), ("heads", rehearsal.heads.module))
    params = {name: count_parameters(network) for name, network in networks}
    if recipe.codec.trained:
        params["codec"] = count_parameters(recipe.codec.build(image=recipe.dataset.spec()))
    return Cost(params, tuple(taps), {"student_forward": forward, "teacher_to_last_tap": to_tap, "step": whole})


def show(facts: RunFacts) -> None:
    """Print the facts for people."""
    from rich.table import Table

    table = Table(title=f"{facts.recipe} at scale {facts.scale}, signature {facts.signature}", show_header=False)
    for name, count in facts.params.items():
        table.add_row(f"parameters of the {name}", si(count))
    table.add_row("taps", f"{len(facts.taps)}: {', '.join(facts.taps)}")
    for name, unit in (("student_forward", "a sample"), ("teacher_to_last_tap", "a sample"), ("step", "a batch")):
        table.add_row(f"FLOPs {name}", f"{si(facts.flops[name], 'FLOP')} {unit}")
    table.add_row(
        "stages", ", ".join(f"{stage.name} ({'done' if stage.cached else 'to do'})" for stage in facts.stages)
    )
    open_console().print(Fitted(table, keep=None))
