"""`python -m ladd_dist.sweep SWEEP --on slurm/NAME.py`: many runs as one job array, what they share made first."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ladd_dist.cli import leave, plugin_modules, run_guarded
from ladd_dist.machine import pick_scale

if TYPE_CHECKING:
    from ladd_dist.cluster.plan import Plan

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
    return leave(run_guarded(lambda: _main(arguments)))


def _main(arguments: list[str]) -> int:
    options = tyro.cli(Options, args=arguments, prog=PROG)

    from ladd_dist.cluster import load_cluster
    from ladd_dist.cluster.plan import Work, plan, show
    from ladd_dist.cluster.submit import check_cluster
    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.sweeps import expand, load_sweep

    if options.on is None and not options.dry_run:
        raise RecipeError("--on PROFILE says where to run: slurm/single_gpu.py, or slurm/laptop.py for this machine")
    load_modules(plugin_modules(options.plugins))
    cluster = load_cluster(options.on) if options.on else None
    if cluster is not None and not options.dry_run and options.on is not None:
        check_cluster(cluster, options.on)
    has_gpus = options.scale == "auto" and cluster is not None and cluster.gpus_per_node > 0
    scale = "paper" if has_gpus else pick_scale(options.scale)
    sweep = load_sweep(options.recipe)
    runs, notes = expand(sweep, scale)
    work = Work(
        name=sweep.name, runs=tuple(runs), scale=scale, recipe_path=options.recipe, on=options.on, out=options.out,
        cache=options.cache, plugins=plugin_modules(options.plugins), command=shlex.join([*PROG.split(), *arguments]),
    )  # fmt: skip
    for note in notes:
        print(note, file=sys.stderr)
    planned = plan(work, cluster, only_failed=options.only_failed, resubmit=options.resubmit)
    if not options.json:
        show(planned)
    return _submit(options, planned) if not options.dry_run else _end(options, planned, {})


def _submit(options: Options, planned: Plan) -> int:
    from ladd_dist.cluster.send import carry_out

    return _end(options, planned, carry_out(planned))


def _end(options: Options, planned: Plan, outcome: dict[str, Any]) -> int:
    failed: dict[str, str] = outcome.get("failed", {})
    for of, why in failed.items():
        print(f"{of} failed: {why.strip().splitlines()[-1]}", file=sys.stderr)
    if options.json:
        print(json.dumps({**planned.facts(), **outcome}))
    elif not options.dry_run:
        print(planned.folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
