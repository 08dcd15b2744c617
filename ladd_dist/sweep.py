"""`python -m ladd_dist.sweep SWEEP --on slurm/NAME.py`: many runs as one job array, what they share made first."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ladd_dist.cli import leave, plugin_modules, run_guarded
from ladd_dist.machine import pick_scale

if TYPE_CHECKING:
    from ladd_dist.cluster.plan import Work

PROG = "python -m ladd_dist.sweep"


@dataclass(frozen=True)
class Options:
    """Submit the runs of a sweep that are not done. Run the same command again to submit what failed."""

    recipe: tyro.conf.Positional[Path]
    """A file with a SWEEP, like recipes/sweep_heads.py."""
    on: Path | None = None
    """The cluster: a profile like slurm/single_gpu.py, or slurm/laptop.py for this machine. --dry-run needs none."""
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
    """Show the runs, what is done, and what would be submitted; write nothing."""
    only_failed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Submit only runs whose job has ended without finishing them."""
    resubmit: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Submit also runs whose job waits or runs; that job is cancelled first."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return leave(run_guarded(lambda: _main(arguments)), ending=argv is None)


def _main(arguments: list[str]) -> int:
    options = tyro.cli(Options, args=arguments, prog=PROG)

    from ladd_dist.cluster.plan import Work
    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.sweeps import expand, load_sweep

    if options.on is None and not options.dry_run:
        raise RecipeError("--on PROFILE says where to run: slurm/single_gpu.py, or slurm/laptop.py for this machine")
    load_modules(plugin_modules(options.plugins))
    scale = pick_scale(options.scale, options.on)
    sweep = load_sweep(options.recipe)
    runs, notes = expand(sweep, scale)
    for note in notes:
        print(note, file=sys.stderr)
    work = Work(
        name=sweep.name, runs=tuple(runs), scale=scale, recipe_path=options.recipe, on=options.on, out=options.out,
        cache=options.cache, plugins=plugin_modules(options.plugins), command=shlex.join([*PROG.split(), *arguments]),
        only_failed=options.only_failed, resubmit=options.resubmit,
    )  # fmt: skip
    return carry_out_or_show(work, dry_run=options.dry_run, as_json=options.json)


def carry_out_or_show(work: Work, *, dry_run: bool, as_json: bool) -> int:
    """Plan, show and submit; returns the exit code. 1: a job that was waited for failed.

    Raises:
        RecipeError: a profile or run that cannot work. ValueError: the cluster refuses a job.
    """
    from ladd_dist.cluster import client_environment, load_cluster
    from ladd_dist.cluster.plan import plan, show
    from ladd_dist.cluster.send import carry_out, try_runs
    from ladd_dist.cluster.submit import check_cluster

    cluster = load_cluster(work.on) if work.on else None
    if cluster is not None:
        os.environ.update(client_environment(cluster))
    if cluster is not None and work.on is not None and not dry_run:
        check_cluster(cluster, work.on)
    planned = plan(work, cluster)
    facts = try_runs(planned)
    if not as_json:
        show(planned)
    outcome: dict[str, Any] = {} if dry_run else carry_out(planned, facts)
    failed: dict[str, str] = outcome.get("failed", {})
    for of, why in failed.items():
        print(f"{of} failed: {why.strip().splitlines()[-1]}", file=sys.stderr)
    if as_json:
        print(json.dumps({**planned.facts(), **outcome}))
    elif not dry_run:
        print(planned.folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
