"""`python -m ladd_dist.wandb_sweep SWEEP`: register a sweep with W&B; its agents run it, each trial a run of ours."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ladd_dist.cli.errors import leave, run_guarded
from ladd_dist.cli.recipe_arguments import pick_scale
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import plugin_modules

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe
    from ladd_dist.recipe.sweep import Sweep, SweepRun

PROG = "python -m ladd_dist.wandb_sweep"
POINT = "point"
"""The one parameter of a sweep that is no whole grid; its values are the labels of the runs."""


@dataclass(frozen=True)
class Options:
    """Register a sweep with W&B and print the command that starts an agent, on as many machines as you like."""

    recipe: tyro.conf.Positional[Path]
    """A file with a SWEEP, like recipes/sweep_heads.py; agents find it at the same path."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """smoke: seconds; laptop: minutes on two cores; paper: the report's; auto: paper on an accelerator, else laptop."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins, besides the package `plugins`."""
    out: Path = Path("runs")
    """Folder for runs, on the machines of the agents."""
    cache: Path = Path("cache")
    """Folder for what runs share, on the machines of the agents."""
    project: str = ""
    """Empty: the recipe's tracker, WANDB_PROJECT, else "ladd"."""
    entity: str = ""
    """Empty: the recipe's tracker, WANDB_ENTITY, else the server's choice."""
    trial: str = ""
    """What an agent gives: one trial's parameters as JSON, which is then run."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what would be registered, as JSON."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return leave(run_guarded(lambda: _main(arguments)), ending=argv is None)


def _main(arguments: list[str]) -> int:
    options = tyro.cli(Options, args=arguments, prog=PROG)

    from ladd_dist.core.plugin import load_modules
    from ladd_dist.recipe.sweep import expand, load_sweep

    load_modules(plugin_modules(options.plugins))
    scale = pick_scale(options.scale)
    sweep = load_sweep(options.recipe)
    runs, notes = expand(sweep, scale)
    if options.trial:
        return _run_trial(options, sweep, runs, scale)
    for note in notes:
        print(note, file=sys.stderr)
    wanted = describe_sweep(options, sweep, runs, scale)
    if options.dry_run:
        print(json.dumps(wanted, indent=1))
        return 0
    print(_register(options, runs, wanted))
    return 0


def describe_sweep(options: Options, sweep: Sweep, runs: list[SweepRun], scale: str) -> dict[str, Any]:
    """The sweep as W&B wants it: a grid of the axes' labels and seeds, and the command of a trial."""
    more = [word for module in options.plugins for word in ("--plugins", module)]
    words = [str(options.recipe), "--scale", scale, "--out", str(options.out), "--cache", str(options.cache), *more]
    return {
        "name": full_name(sweep, runs),
        "method": "grid",
        "metric": {"name": f"eval/student@{runs[0].recipe.student_steps}/fd", "goal": "minimize"},
        "parameters": {name: {"values": values} for name, values in parameters(runs).items()},
        "program": "ladd_dist.wandb_sweep",
        "command": ["${env}", "${interpreter}", "-m", "${program}", *words, "--trial", "${args_json}"],
    }


def parameters(runs: list[SweepRun]) -> dict[str, list[Any]]:
    """The parameters whose grid is the runs: an axis each, or one for all of them where the runs are no whole grid."""
    values: dict[str, list[Any]] = {}
    for run in runs:
        for name, value in _parameters_of(run).items():
            known = values.setdefault(name, [])
            known += [] if value in known else [value]
    size = 1
    for known in values.values():
        size *= len(known)
    whole = size == len(runs) and all(set(_parameters_of(run)) == set(values) for run in runs)
    return values if whole else {POINT: [run.label for run in runs]}


def _parameters_of(run: SweepRun) -> dict[str, Any]:
    return {**dict(run.axes), "seed": run.recipe.seed}


def full_name(sweep: Sweep, runs: list[SweepRun]) -> str:
    """NAME-SIGNATURE, as a cluster's jobs have it: the group of the runs in W&B."""
    from ladd_dist.recipe.sweep import sweep_signature

    return f"{sweep.name}-{sweep_signature(runs)}"


def find_run(runs: list[SweepRun], trial: dict[str, Any]) -> SweepRun:
    """The run that a trial's parameters name.

    Raises:
        RecipeError: none; the file has changed since the sweep was registered.
    """
    from ladd_dist.core.serialize import RecipeError

    for run in runs:
        if trial in ({POINT: run.label}, _parameters_of(run)):
            return run
    raise RecipeError(
        f"--trial: the sweep has no run {json.dumps(trial)}; it changed since it was registered, or at another scale; "
        f"its runs: {'; '.join(run.label for run in runs[:4])}{' ...' if len(runs) > 4 else ''}"
    )


def _register(options: Options, runs: list[SweepRun], wanted: dict[str, Any]) -> str:
    """Tell W&B; returns the command of an agent."""
    import wandb

    from ladd_dist.trackers.wandb import PROJECT, quiet

    tracker = _tracker(options, runs[0].recipe)
    mode, reason = tracker.choose_mode()
    if mode != "online":
        raise UserError(f"a W&B sweep needs its server, and W&B is {mode}{f': {reason}' if reason else ''}")
    project = tracker.project or os.environ.get("WANDB_PROJECT") or PROJECT
    entity = tracker.entity or os.environ.get("WANDB_ENTITY") or ""
    os.environ["WANDB_BASE_URL"] = tracker.url()
    try:
        with quiet():
            entity = entity or str(wandb.Api(timeout=int(tracker.timeout_s)).default_entity)
            name = wandb.sweep(wanted, entity=entity, project=project)
    except Exception as error:
        raise UserError(f"W&B did not take the sweep: {type(error).__name__}: {error}") from error
    return f"wandb agent {entity}/{project}/{name}"


def _tracker(options: Options, recipe: Recipe) -> Any:
    """The recipe's W&B tracker, or one with default fields; flags win."""
    from ladd_dist.trackers.wandb import Wandb

    own = recipe.tracker if isinstance(recipe.tracker, Wandb) else Wandb()
    given = {name: value for name in ("project", "entity") if (value := getattr(options, name))}
    return dataclasses.replace(own, **given)


def _run_trial(options: Options, sweep: Sweep, runs: list[SweepRun], scale: str) -> int:
    """All stages of one run, tracked as the agent's trial; a run that was done before is told W&B as it is."""
    from ladd_dist.core.rundir import read_json
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.parallel.devices import local_device, pick_device
    from ladd_dist.stages.dry_run import describe_run
    from ladd_dist.stages.evaluate import is_evaluated, tell_tracker
    from ladd_dist.stages.run import STAGES, prepare_run, run_stages
    from ladd_dist.workspace.run import Run
    from ladd_dist.workspace.workspace import Workspace

    try:
        trial = json.loads(options.trial)
    except json.JSONDecodeError as error:
        raise RecipeError(f"--trial: expected one trial's parameters as JSON, got {options.trial!r}") from error
    chosen = find_run(runs, trial)
    os.environ.update(LADD_SWEEP=full_name(sweep, runs), LADD_AXES=json.dumps(dict(chosen.axes)))
    recipe = dataclasses.replace(chosen.recipe, tracker=_tracker(options, chosen.recipe))
    workspace = Workspace(options.out, options.cache, local_device(pick_device("auto"), 1, 0))
    facts = describe_run(Run(recipe, workspace), scale)
    run = Run(recipe, workspace).folder
    command = f"{PROG} {options.recipe} --trial ..."

    def prepare() -> None:
        plugins = plugin_modules(options.plugins)
        prepare_run(Run(recipe, workspace), facts, path=options.recipe, plugins=plugins, command=command)

    done_before = is_evaluated(Run(recipe, workspace))
    run_stages(
        Run(recipe, workspace), STAGES, say_line=lambda text: print(text, flush=True), timeout_s=600.0, prepare=prepare
    )
    if done_before:
        tell_tracker(recipe, run, read_json(run.eval))
    print(run.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
