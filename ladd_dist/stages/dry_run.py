"""What a run is before it runs: its config, its cost, its stages."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.builders.step import taps_of
from ladd_dist.builders.student_start import require_start
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.core.errors import UserError
from ladd_dist.core.own_code import Place, place_of
from ladd_dist.core.plugin import Plugin
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.units import si
from ladd_dist.costs.flops import count_flops, count_parameters
from ladd_dist.engine.foreign_shards import find_shards
from ladd_dist.engine.shard_index import ShardError
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.plugin_sources import plugins_in
from ladd_dist.stages.dry_step import Trial, trial
from ladd_dist.stages.dry_values import random_batch, require_finite_step
from ladd_dist.stages.shards import are_shards_done
from ladd_dist.stages.sizes import is_large
from ladd_dist.stages.table import stage_states
from ladd_dist.workspace.config import RunFacts
from ladd_dist.workspace.run import Run

NUM_TRIED = 2
"""Samples of the rehearsed step."""


class Cost(NamedTuple):
    """What a dry run counts, as in `RunFacts`."""

    params: dict[str, int]
    taps: tuple[str, ...]
    flops: dict[str, int]


def describe_run(run: Run, scale: str) -> RunFacts:
    """What the run costs, counted on a rehearsed step, and which of its stages are done.

    Raises:
        RecipeError: the network cannot take the images or lacks a tap, a head returns the wrong shape, or a plug-in
            gives values that are not finite.
        UserError: the user's own code raised an exception; the message has its line.
    """
    recipe = run.recipe
    require_start(run)
    try:
        cost = _cost(recipe)
    except UserError as error:
        raise RecipeError(str(error)) from error
    except Exception as error:
        if (place := place_of(error)) is not None:
            raise UserError(_raised(recipe, error, place)) from error
        error.add_note("This came from a trial of the recipe's training step; `ladd plugins --check NAME` may help.")
        raise
    if recipe.shards.source and not are_shards_done(run):
        try:
            find_shards(recipe.shards.source, recipe.path_levels())  # said now, not after the teacher's training
        except ShardError as error:
            raise RecipeError(str(error)) from error
    data = dict(recipe.dataset.facts(run.workspace.cache))
    return RunFacts(recipe.name, scale, recipe.distill_signature(), *cost, stages=stage_states(run), data=data)


def _raised(recipe: Recipe, error: Exception, place: Place) -> str:
    """The message about an exception of the user's own code: which plug-in, which line."""
    own = {(used.plugin.kind, used.plugin.name) for used in plugins_in(recipe) if _file_of(used.plugin) == place.file}
    who, check = "your own code", ""
    if len(own) == 1:
        ((kind, name),) = own
        who, check = f"{kind} {name!r}", f"; `ladd plugins --check {name}` looks at it alone"
    return (
        f"{who} raised {type(error).__name__}: {error}, at {place}, in a trial of the recipe's training step, so "
        f"nothing was trained{check} (LADD_TRACEBACK=1 shows the whole traceback)"
    )


def _file_of(plugin: Plugin) -> Path | None:
    file = inspect.getsourcefile(type(plugin))
    return None if file is None else Path(file).resolve()


def _cost(recipe: Recipe) -> Cost:
    plain = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=Compute()))
    # A pretrained network may be of any size, and its weights elsewhere: it is counted on tensors without data, and so
    # is one that this machine cannot hold.
    with_data = not recipe.network.pretrained and not is_large(recipe, NUM_TRIED)
    with trial(plain, with_data=with_data) as rehearsal:
        return _count(recipe, rehearsal, with_data)


def _count(recipe: Recipe, rehearsal: Trial, with_data: bool) -> Cost:
    teacher, critic, student = rehearsal.teacher, rehearsal.frozen.critic, rehearsal.student
    taps, num = taps_of(recipe, critic), NUM_TRIED
    batch = rehearsal.batch(num)
    ones = torch.ones(num)
    with torch.no_grad():
        forward = count_flops(lambda: student(batch.x0, ones, batch.cond)) // num
        to_tap = count_flops(lambda: critic(batch.x0, ones, batch.cond, taps=taps, denoise=False)) // num
    last = recipe.train.steps - 1  # the weights of a finished warm-up
    figures: dict[str, Tensor | float] = {}
    batch = random_batch(rehearsal, num) if with_data else batch
    whole = count_flops(lambda: figures.update(rehearsal.step(batch, last))) * recipe.train.batch_size // num
    if with_data:
        require_finite_step(rehearsal.recipe, figures, num)
    networks = (("teacher", teacher), ("student", student.module), ("heads", rehearsal.heads.module))
    params = {name: count_parameters(network) for name, network in networks}
    if recipe.codec.trained:
        with torch.device("meta"):
            params["codec"] = count_parameters(recipe.codec.build(image=recipe.dataset.spec()))
    return Cost(params, tuple(taps), {"student_forward": forward, "teacher_to_last_tap": to_tap, "step": whole})


def show(facts: RunFacts) -> None:
    """Print the facts for people."""
    from rich.table import Table

    table = Table(title=f"{facts.recipe} at scale {facts.scale}, signature {facts.signature}", show_header=False)
    for name, count in facts.params.items():
        table.add_row(f"parameters of the {name}", si(count))
    for name, text in facts.data.items():
        table.add_row(f"data: {name}", text)
    table.add_row("taps", f"{len(facts.taps)}: {', '.join(facts.taps)}")
    for name, unit in (("student_forward", "a sample"), ("teacher_to_last_tap", "a sample"), ("step", "a batch")):
        table.add_row(f"FLOPs {name}", f"{si(facts.flops[name], 'FLOP')} {unit}")
    table.add_row(
        "stages", ", ".join(f"{stage.name} ({'done' if stage.cached else 'to do'})" for stage in facts.stages)
    )
    open_console().print(Fitted(table, keep=None))
