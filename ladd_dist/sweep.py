"""`ladd sweep SWEEP --on slurm/NAME.py`: many runs as one job array, what they share made first; or W&B's agents."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.errors import leave, run_guarded
from ladd_dist.cli.recipe_arguments import MORE, pick_scale

if TYPE_CHECKING:
    from ladd_dist.recipe import Scale, Sweep
    from ladd_dist.recipe.sweep import SweepRun

PROG = "python -m ladd_dist.sweep"
WANDB = Path("wandb")
"""What --on says for W&B's agents."""


@dataclass(frozen=True)
class Options:
    """Submit the runs of a sweep that are not done. Run the same command again to submit what failed.

    With `--on wandb`: register it with W&B and print the command that starts an agent, on as many machines as you like.
    """

    recipe: tyro.conf.Positional[Path]
    """A file with a SWEEP, like recipes/sweep_heads.py, or a shipped one's name; W&B's agents find it by that too."""
    on: Path | None = None
    """The cluster: a profile like slurm/single_gpu.py, a shipped one's name like laptop for this machine, or wandb for
    W&B's agents. --dry-run needs none."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """smoke: seconds; laptop: minutes on two cores; paper: the report's; auto: paper on an accelerator (here, or in the
    profile), else laptop."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins, besides the package `plugins`."""
    out: Path = Path("runs")
    """Folder for runs; the sweep's own is OUT/sweeps/NAME-SIGNATURE."""
    cache: Path = Path("cache")
    """Folder for what runs share: teachers, shards, the teacher's own evaluation."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the runs, what is done, and what would be submitted (with --on wandb: what would be registered, as JSON);
    write nothing."""
    only_failed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Submit only runs whose job has ended without finishing them."""
    resubmit: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Submit also runs whose job waits or runs; that job is cancelled first."""
    project: str = ""
    """With --on wandb; empty: the recipe's tracker, WANDB_PROJECT, else "ladd"."""
    entity: str = ""
    """With --on wandb; empty: the recipe's tracker, WANDB_ENTITY, else the server's choice."""
    trial: str = ""
    """What a W&B agent gives: one trial's parameters as JSON; that run is then done here."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return leave(run_guarded(lambda: _main(arguments)))


def _main(arguments: list[str]) -> int:
    options: Options = read(Options, arguments, prog=PROG)
    _check(options)

    from ladd_dist.core.plugin import load_plugins
    from ladd_dist.recipe.sweep import expand, load_sweep

    by_agents = options.on == WANDB or bool(options.trial)
    load_plugins(options.plugins)
    scale = pick_scale(options.scale)
    if options.scale == "auto" and not options.trial:
        print(f"{options.recipe.stem} at scale {scale} ({MORE})", file=sys.stderr)
    sweep = load_sweep(options.recipe)
    runs, notes = expand(sweep, scale)
    for note in notes if not options.trial else ():
        print(note, file=sys.stderr)
    if by_agents:
        return _wandb(options, sweep, runs, scale)
    return _submit(options, sweep, runs, scale, shlex.join([*PROG.split(), *arguments]))


def _check(options: Options) -> None:
    """Refuse flags that contradict each other.

    Raises:
        RecipeError: names them.
    """
    from ladd_dist.core.serialize import RecipeError

    if options.on == WANDB or options.trial:
        for flag in ("only_failed", "resubmit", "json"):
            if getattr(options, flag):
                raise RecipeError(f"--{flag.replace('_', '-')} is for jobs that this command submits, not for W&B's")
        return
    if options.project or options.entity:
        raise RecipeError("--project and --entity go with --on wandb; elsewhere the recipe's tracker has them")
    if options.on is None and not options.dry_run:
        raise RecipeError("--on PROFILE says where to run: slurm/single_gpu.py, or slurm/laptop.py for this machine")


def _submit(options: Options, sweep: Sweep, runs: list[SweepRun], scale: Scale, command: str) -> int:
    from ladd_dist.cluster.submission import carry_out_or_show
    from ladd_dist.cluster.sweep_plan import SweepRequest

    request = SweepRequest(
        name=sweep.name, runs=tuple(runs), scale=scale, recipe_path=options.recipe, on=options.on, out=options.out,
        cache=options.cache, plugins=options.plugins, command=command,
        only_failed=options.only_failed, resubmit=options.resubmit,
    )  # fmt: skip
    return carry_out_or_show(request, dry_run=options.dry_run, as_json=options.json)


def _wandb(options: Options, sweep: Sweep, runs: list[SweepRun], scale: Scale) -> int:
    from ladd_dist.cluster.wandb_agents import Agents, describe_sweep, register, run_trial

    agents = Agents(
        sweep=sweep, runs=tuple(runs), scale=scale, recipe_path=options.recipe, out=options.out, cache=options.cache,
        plugins=options.plugins, project=options.project, entity=options.entity,
    )  # fmt: skip
    if options.trial:
        print(run_trial(agents, options.trial, f"{PROG} {options.recipe} --trial ..."))
    elif options.dry_run:
        print(json.dumps(describe_sweep(agents), indent=1))
    else:
        print(register(agents))
    return 0


if __name__ == "__main__":
    sys.exit(main())
