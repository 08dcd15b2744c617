"""A sweep that W&B's agents run: it is registered with W&B, and each trial of an agent is a run of ours."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladd_dist.core.door import decode
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import plugin_modules
from ladd_dist.core.pretrained import allow_own
from ladd_dist.core.serialize import RecipeError
from ladd_dist.recipe import Recipe, Scale, Sweep
from ladd_dist.recipe.sweep import SweepRun, sweep_signature
from ladd_dist.workspace.config import SweepMembership

if TYPE_CHECKING:
    from ladd_dist.trackers.wandb import Wandb

POINT = "point"
"""The one parameter of a sweep that is no whole grid; its values are the labels of the runs."""
Value = str | int
"""Of a parameter: the label of an axis's value, or a seed."""


@dataclass(frozen=True)
class Agents:
    """A sweep for W&B, and where its agents, on whatever machine, find and put things."""

    sweep: Sweep
    runs: tuple[SweepRun, ...]
    scale: Scale
    recipe_path: Path
    out: Path
    cache: Path
    plugins: tuple[str, ...] = ()
    """Those of --plugins."""
    project: str = ""
    """Empty: the recipe's tracker, WANDB_PROJECT, else "ladd"."""
    entity: str = ""
    """Empty: the recipe's tracker, WANDB_ENTITY, else the server's choice."""

    @property
    def full_name(self) -> str:
        """NAME-SIGNATURE, as a cluster's jobs have it: the group of the runs in W&B."""
        return f"{self.sweep.name}-{sweep_signature(list(self.runs))}"

    def tracker(self, recipe: Recipe) -> Wandb:
        """The recipe's W&B tracker, or one with default fields; what was given here wins."""
        from ladd_dist.trackers.wandb import Wandb

        own = recipe.tracker if isinstance(recipe.tracker, Wandb) else Wandb()
        return dataclasses.replace(own, project=self.project or own.project, entity=self.entity or own.entity)


def describe_sweep(agents: Agents) -> dict[str, object]:
    """The sweep as W&B wants it: a grid of the axes' labels and seeds, and the command of a trial."""
    more = [word for module in agents.plugins for word in ("--plugins", module)]
    places = ["--out", str(agents.out), "--cache", str(agents.cache)]
    words = [str(agents.recipe_path), "--scale", agents.scale, *places, *more]
    return {
        "name": agents.full_name,
        "method": "grid",
        "metric": {"name": f"eval/student@{agents.runs[0].recipe.student_steps}/fd_real", "goal": "minimize"},
        "parameters": {name: {"values": values} for name, values in parameters(agents.runs).items()},
        "program": "ladd_dist.sweep",
        "command": ["${env}", "${interpreter}", "-m", "${program}", *words, "--trial", "${args_json}"],
    }


def parameters(runs: tuple[SweepRun, ...]) -> dict[str, list[Value]]:
    """The parameters whose grid is the runs: an axis each, or one for all of them where the runs are no whole grid."""
    values: dict[str, list[Value]] = {}
    for run in runs:
        for name, value in _parameters_of(run).items():
            known = values.setdefault(name, [])
            known += [] if value in known else [value]
    size = 1
    for known in values.values():
        size *= len(known)
    whole = size == len(runs) and all(set(_parameters_of(run)) == set(values) for run in runs)
    return values if whole else {POINT: [run.label for run in runs]}


def _parameters_of(run: SweepRun) -> dict[str, Value]:
    return {**dict(run.axes), "seed": run.recipe.seed}


def find_run(runs: tuple[SweepRun, ...], trial: object) -> SweepRun:
    """The run that a trial's parameters name.

    Raises:
        RecipeError: none; the file has changed since the sweep was registered.
    """
    for run in runs:
        if trial in ({POINT: run.label}, _parameters_of(run)):
            return run
    raise RecipeError(
        f"--trial: the sweep has no run {json.dumps(trial)}; it changed since it was registered, or at another scale; "
        f"its runs: {'; '.join(run.label for run in runs[:4])}{' ...' if len(runs) > 4 else ''}"
    )


def register(agents: Agents) -> str:
    """Tell W&B of the sweep; returns the command that starts an agent.

    Raises:
        UserError: W&B is offline, or refuses.
    """
    import wandb

    from ladd_dist.trackers.wandb import PROJECT, quiet

    tracker = agents.tracker(agents.runs[0].recipe)
    mode, reason = tracker.choose_mode()
    if mode != "online":
        raise UserError(f"a W&B sweep needs its server, and W&B is {mode}{f': {reason}' if reason else ''}")
    project = tracker.project or os.environ.get("WANDB_PROJECT") or PROJECT
    entity = tracker.entity or os.environ.get("WANDB_ENTITY") or ""
    os.environ["WANDB_BASE_URL"] = tracker.url()
    try:
        with quiet():
            entity = entity or str(wandb.Api(timeout=int(tracker.timeout_s)).default_entity)
            name = wandb.sweep(describe_sweep(agents), entity=entity, project=project)
    except Exception as error:
        raise UserError(f"W&B did not take the sweep: {type(error).__name__}: {error}") from error
    return f"wandb agent {entity}/{project}/{name}"


def run_trial(agents: Agents, trial: str, command: str) -> Path:
    """All stages of one run, tracked as the agent's trial; a run that was done before is told W&B as it is.

    Args:
        trial: the trial's parameters as JSON.
        command: as config.json names it.

    Returns:
        the run's folder.

    Raises:
        RecipeError: no JSON, or no run of the sweep. UserError: what `check_stages` refuses, such as too few pictures.
    """
    from ladd_dist.core.run_forms import read_evaluation
    from ladd_dist.parallel.devices import local_device, pick_device
    from ladd_dist.stages import STAGES
    from ladd_dist.stages.dry_run import describe_run
    from ladd_dist.stages.evaluate import is_evaluated, tell_tracker
    from ladd_dist.stages.run import check_stages, prepare_run, run_stages
    from ladd_dist.stages.sizes import require_room
    from ladd_dist.workspace.run import Run, as_found
    from ladd_dist.workspace.workspace import Workspace

    try:
        wanted = decode(trial, dict[str, Any], "--trial", "give one trial's parameters as JSON")
    except UserError as error:
        raise RecipeError(str(error)) from error
    chosen = find_run(agents.runs, wanted)
    recipe = dataclasses.replace(chosen.recipe, tracker=agents.tracker(chosen.recipe))
    run = as_found(Run(recipe, Workspace(agents.out, agents.cache, local_device(pick_device("auto"), 1, 0))))
    allow_own(run.recipe)
    facts = describe_run(run, agents.scale)
    check_stages(run, facts.stages, list(STAGES), 1)
    require_room(run, facts, STAGES, 1)

    def prepare() -> None:
        prepare_run(
            run, facts, path=agents.recipe_path, plugins=plugin_modules(agents.plugins), command=command,
            membership=SweepMembership(agents.full_name, dict(chosen.axes)),
        )  # fmt: skip

    done_before = is_evaluated(run)
    run_stages(run, STAGES, say_line=lambda text: print(text, flush=True), timeout_s=600.0, prepare=prepare)
    if done_before:
        tell_tracker(recipe, run.folder, read_evaluation(run.folder.eval))
    return run.folder.path
