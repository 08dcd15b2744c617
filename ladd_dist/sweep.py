"""`python -m ladd_dist.sweep SWEEP --on slurm/NAME.py`: many runs as one job array, what they share made first."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ladd_dist.cli.errors import leave, run_guarded
from ladd_dist.cli.recipe_arguments import pick_scale
from ladd_dist.core.plugin import plugin_modules

if TYPE_CHECKING:
    pass

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

    from ladd_dist.cluster import scale_for
    from ladd_dist.cluster.submission import carry_out_or_show
    from ladd_dist.cluster.sweep_plan import Work
    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.recipe.sweep import expand, load_sweep

    if options.on is None and not options.dry_run:
        raise RecipeError("--on PROFILE says where to run: slurm/single_gpu.py, or slurm/laptop.py for this machine")
    load_modules(plugin_modules(options.plugins))
    scale = scale_for(options.scale, options.on) if options.on else pick_scale(options.scale)
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


if __name__ == "__main__":
    sys.exit(main())
