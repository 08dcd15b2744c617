"""`python -m ladd_dist.launch RECIPE`: teacher, shards, distillation, evaluation and report, each once."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ladd_dist.cli import leave, plugin_modules, run_guarded, say, tidy
from ladd_dist.core.failure import has_parent, rank_here, world_size
from ladd_dist.core.slurm import ranks_of_step
from ladd_dist.machine import (
    check_shares,
    choose_parallel,
    count_processes,
    local_device,
    pick_device,
    pick_scale,
    set_threads,
)

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe
    from ladd_dist.stages import Place

STAGES = ("autoencoder", "teacher", "shards", "distill", "evaluate", "report")
PROG = "python -m ladd_dist.launch"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Turn a diffusion teacher into a few-step student. Run the same command again to go on where it stopped."""

    recipe: tyro.conf.Positional[Path]
    """A recipe file, like recipes/exp4_specnorm.py; with it, --help also lists every field of the recipe."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """smoke: seconds; laptop: minutes on two cores; paper: the report's; auto: paper on an accelerator, else laptop."""
    swap: tuple[str, ...] = ()
    """Replace plug-ins by name: FIELD=NAME ..., like head=max_pool adv_weight=cosine."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins, besides the package `plugins`."""
    out: Path = Path("runs")
    """Folder for runs."""
    cache: Path = Path("cache")
    """Folder for what runs share: teachers, shards, the teacher's own evaluation."""
    stages: str = ",".join(STAGES)
    """Which stages to run, with commas; autoencoder only where the recipe trains its codec."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    threads: int = 0
    """CPU threads of each process; 0 leaves the choice to PyTorch."""
    nproc: int = 1
    """Processes on this machine; with torchrun or SLURM the launcher decides."""
    parallel: str = ""
    """How the networks are spread over processes: single, ddp, fsdp, zero1, zero2, zero3; empty: the recipe's, and ddp
    when there are several processes."""
    timeout_s: float = 600.0
    """How long a process may wait for the others in a collective operation."""
    on: Path | None = None
    """Submit to a cluster, a profile like slurm/single_gpu.py, in place of running here."""
    from_scratch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove this run's folder first (never the shared cache)."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show parameters, taps, cost and which stages are done; train nothing, write nothing."""
    locked: Path | None = None
    """A recipe.lock of `ladd promote`: refuse to run when what changes results is no longer as it says."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return leave(run_guarded(lambda: _main(arguments)), ending=argv is None)


def _main(arguments: list[str]) -> int:
    os.environ.update(ranks_of_step(os.environ))
    options, recipe = parse(arguments)
    names = _stage_names(options.stages)
    if options.on is not None:
        return _send(arguments, options, recipe, names)
    scale, device = pick_scale(options.scale), pick_device(options.device)
    set_threads(options.threads)
    num = count_processes(options.nproc)
    num_here = int(os.environ.get("LOCAL_WORLD_SIZE", options.nproc if world_size() == 1 else world_size()))
    device = local_device(device, num_here, int(os.environ.get("LOCAL_RANK", "0")))

    from ladd_dist.lock import obey
    from ladd_dist.stages import Place
    from ladd_dist.stages.describe import describe_run, show

    place = Place(options.out, options.cache, device)
    say_line = _speaker(options.json)
    if not has_parent() and rank_here() == 0:
        say_line(_first_line(options, recipe, scale, place, num))
    obey(options.locked, recipe, place, scale)
    # Before the first byte is written: a wrong tap, head or image size shows here, not after the teacher's training.
    facts: dict[str, Any] = {}
    if rank_here() == 0 or not has_parent():  # rank 0 writes them down; for the others the parent has looked
        facts = describe_run(recipe, place, scale)
        check_shares(recipe, facts["stages"], names, num)
    if options.dry_run:
        print(json.dumps(facts)) if options.json else show(facts)
        return 0
    if num > 1 and "RANK" not in os.environ:
        return _spawn(arguments, options, place.run(recipe).path)
    return _run(arguments, options, recipe, place, names, facts, say_line)


def _first_line(options: Options, recipe: Recipe, scale: str, place: Place, num: int) -> str:
    where, flags = str(place.device), "--scale smoke|laptop|paper and --device"
    if num > 1:
        where = f"{num} processes ({place.device.type}), parallel {recipe.parallel.name}"
        flags = "--scale smoke|laptop|paper, --device and --parallel ddp|fsdp|zero1|zero2|zero3"
    why = ", chosen by what was found here" if options.scale == "auto" else ""
    return f"{recipe.name} at scale {scale} on {where}{why} (choose with {flags})"


def _send(arguments: list[str], options: Options, recipe: Recipe, names: list[str]) -> int:
    """Submit this one run as a sweep does; whoever looks after sweeps looks after it too."""
    from ladd_dist.cluster.plan import Work
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.lock import obey
    from ladd_dist.stages import Place
    from ladd_dist.sweep import carry_out_or_show
    from ladd_dist.sweeps import SweepRun

    wrong = [f"--{name}" for name in ("nproc", "device", "threads") if getattr(options, name) != getattr(Options, name)]
    wrong += ["--from-scratch"] if options.from_scratch else []
    if wrong:
        raise RecipeError(
            f"{wrong[0]} does not go with --on: the profile {options.on} says how many processes and where"
        )
    scale = pick_scale(options.scale, options.on)
    obey(options.locked, recipe, Place(options.out, options.cache, pick_device("auto")), scale)
    work = Work(
        name=recipe.name, runs=(SweepRun(recipe, ()),), scale=scale, on=options.on,
        recipe_path=options.recipe, out=options.out, cache=options.cache, plugins=plugin_modules(options.plugins),
        command=shlex.join([*PROG.split(), *arguments]), stages=tuple(names),
    )  # fmt: skip
    return carry_out_or_show(work, dry_run=options.dry_run, as_json=options.json)


def _spawn(arguments: list[str], options: Options, run: Path) -> int:
    """Run the same command as several processes, and tell the user how they ended."""
    from ladd_dist.parallel.spawn import outcome, spawn

    logs = (run / "logs" / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}").absolute()
    command = [sys.executable, "-m", "ladd_dist.launch", *arguments]
    code, message = outcome(*spawn(command, options.nproc, logs, options.threads), logs)
    return say(message, code) if message else code


def _run(
    arguments: list[str],
    options: Options,
    recipe: Recipe,
    place: Place,
    names: list[str],
    facts: dict[str, Any],
    say_line: Say,
) -> int:
    """The stages, as one process of one or several."""
    from ladd_dist.core.rundir import read_json
    from ladd_dist.parallel.spawn import follow_parent
    from ladd_dist.stages.run import prepare_run, run_stages

    def prepare() -> None:
        command = shlex.join([*PROG.split(), *(a for a in arguments if a != "--from-scratch")])
        plugins = plugin_modules(options.plugins)
        prepare_run(
            recipe, place, facts, path=options.recipe, plugins=plugins, command=command,
            from_scratch=options.from_scratch,
        )  # fmt: skip

    follow_parent()
    run = place.run(recipe)
    if not run_stages(recipe, place, names, say_line=say_line, timeout_s=options.timeout_s, prepare=prepare):
        return 0
    if options.json:
        print(json.dumps({"run": str(run.path), "eval": read_json(run.eval) if run.eval.exists() else None}))
    say_line(str(run.path))
    return 0


def arguments_for(
    recipe: Path | str, scale: str, rest: list[str], *, swap: tuple[str, ...], plugins: tuple[str, ...]
) -> list[str]:
    """What `parse` needs to make the recipe of another command; overrides it does not know are refused there."""
    lists = {"--plugins": plugins, "--swap": swap}
    more = [part for flag, values in lists.items() if values for part in (flag, *values)]
    return [str(recipe), "--scale", scale, *rest, *more]


def parse(arguments: list[str]) -> tuple[Options, Recipe]:
    """Options and the recipe with swaps and overrides applied, validated. Exits with 2 on a wrong command line."""
    arguments = tidy(arguments)
    helpless = [argument for argument in arguments if argument not in ("-h", "--help")]
    if helpless != arguments and not any(argument.endswith(".py") for argument in helpless):
        tyro.cli(Options, args=["--help"], prog=PROG)
    # Twice: which fields there are to override is known only when the recipe is read and its plug-ins are swapped.
    options, _ = tyro.cli(Options, args=helpless, return_unknown_args=True, prog=PROG)

    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.serialize import RecipeError, check
    from ladd_dist.recipe import Recipe, load_recipe, swap, validate

    load_modules(plugin_modules(options.plugins))
    recipe = load_recipe(options.recipe, pick_scale(options.scale, options.on))
    check(Recipe, recipe, f"{options.recipe}: RECIPE")
    for assignment in options.swap:
        recipe = swap(recipe, assignment)
    recipe = choose_parallel(recipe, options.parallel, options.swap, count_processes(options.nproc))
    bare = tyro.conf.arg(name="")
    both = dataclasses.make_dataclass(
        "Launch", [("options", Annotated[Options, bare]), ("fields", Annotated[Recipe, bare])]
    )
    both.__doc__ = Options.__doc__
    parsed = tyro.cli(both, args=arguments, default=both(Options(options.recipe), recipe), prog=PROG)
    try:
        return options, validate(parsed.fields)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error)) from error


def _stage_names(text: str) -> list[str]:
    from ladd_dist.core.serialize import RecipeError

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        wrong = ", ".join(map(repr, unknown)) or repr(text)
        raise RecipeError(f"--stages: unknown stage {wrong}; stages: {', '.join(STAGES)}")
    return [name for name in STAGES if name in names]


def _speaker(to_stderr: bool) -> Say:
    return lambda text: print(text, file=sys.stderr if to_stderr else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["STAGES", "Options", "main", "parse", "pick_device", "set_threads"]
