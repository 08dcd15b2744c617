"""`python -m ladd_dist.launch RECIPE`: teacher, shards, distillation, evaluation and report, each once."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ladd_dist.cli.arguments import require_text
from ladd_dist.cli.errors import leave, run_guarded, say
from ladd_dist.cli.recipe_arguments import MORE, RecipeOptions, is_recipe, parse, pick_scale, tidy
from ladd_dist.core.environment import env_number
from ladd_dist.core.failure import has_parent, rank_here, world_size
from ladd_dist.core.plugin import plugin_modules
from ladd_dist.core.ranges import Seconds, Threads, Within
from ladd_dist.core.slurm import ranks_of_step
from ladd_dist.core.threads import Watch, choose_threads
from ladd_dist.stages import STAGES

if TYPE_CHECKING:
    import torch

    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.config import RunFacts
    from ladd_dist.workspace.run import Run

PROG = "python -m ladd_dist.launch"
PROCESS_BYTES = 250_000_000
"""What a process takes that has done nothing but import PyTorch, at least."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options(RecipeOptions):
    """Turn a diffusion teacher into a few-step student. Run the same command again to go on where it stopped."""

    out: Path = Path("runs")
    """Folder for runs."""
    cache: Path = Path("cache")
    """Folder for what runs share: teachers, shards, the teacher's own evaluation."""
    stages: tuple[str, ...] = STAGES
    """Which stages to run; autoencoder and features only where codec or metric train a network of their own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    threads: Threads = 0
    """CPU threads of each process; 0: as OMP_NUM_THREADS says, else as many as cores are free."""
    nproc: Annotated[int, Within("[1, 1024]")] = 1
    """Processes on this machine; with torchrun or SLURM the launcher decides."""
    parallel: str = ""
    """How the networks are spread over processes: single, ddp, fsdp, zero1, zero2, zero3; empty: the recipe's, and ddp
    when there are several processes."""
    timeout_s: Seconds = 600.0
    """How long a process may wait for the others in a collective operation."""
    on: Path | None = None
    """Submit to a cluster, a profile like slurm/single_gpu.py or a shipped one's name, in place of running here."""
    from_scratch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove this run's folder first (never the shared cache)."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show parameters, taps, cost and which stages are done; train nothing, write nothing."""
    locked: Path | None = None
    """A finished run's recipe.lock, or its folder: refuse to run when what changes results is no longer as it says.
    Without a recipe file the lock gives recipe and scale; modules that it names are imported by --plugins alone."""
    hub: tuple[str, ...] = ()
    """With --locked alone: repositories of the Hugging Face hub that may be fetched, and `urls` of a dataset that may
    be run or fetched; a recipe file's always may."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return leave(run_guarded(lambda: _main(arguments)))


def _main(arguments: list[str]) -> int:
    require_text(arguments)
    os.environ.update(ranks_of_step(os.environ))
    watch = Watch()
    named, load = _named_by_lock(arguments)
    options, recipe = parse(Options, named, prog=PROG, adapt=_adapt, load=load)
    names = _stage_names(options.stages)
    if options.on is not None:
        return _send(arguments, options, recipe, names, by_lock=load is not None)

    from ladd_dist.parallel.devices import count_processes, local_device, pick_device, set_threads

    scale, num = pick_scale(options.scale), count_processes(options.nproc)
    set_threads(options.threads)
    num_here = env_number("LOCAL_WORLD_SIZE", default=options.nproc if world_size() == 1 else world_size())
    device = local_device(pick_device(options.device), num_here, env_number("LOCAL_RANK", default=0))

    from ladd_dist.core.machine import require_memory
    from ladd_dist.recipe.plugin_sources import require_packages
    from ladd_dist.stages.dry_run import describe_run, show
    from ladd_dist.stages.run import check_stages
    from ladd_dist.stages.sizes import require_room
    from ladd_dist.workspace.lock import enforce
    from ladd_dist.workspace.run import Run, as_begun
    from ladd_dist.workspace.workspace import Workspace

    run = as_begun(Run(recipe, Workspace(options.out, options.cache, device)), arguments)
    say_line = _speaker(options.json)
    if not has_parent() and rank_here() == 0:
        say_line(_first_line(options, run.recipe, scale, device, num))
    if num == 1 and not options.threads and device.type == "cpu":
        choose_threads(watch, run.folder.config, say_line)
    enforce(options.locked, run, scale)
    if not options.dry_run:
        require_packages(run.recipe)
    # Before the first byte is written: a wrong tap, head or image size shows here, not after the teacher's training.
    facts = None
    if rank_here() == 0 or not has_parent():  # rank 0 writes them down; for the others the parent has looked
        facts = describe_run(run, scale)
        check_stages(run, facts.stages, names, num)
    if options.dry_run:
        if facts is not None:
            print(json.dumps(asdict(facts))) if options.json else show(facts)
        return 0
    if facts is not None:
        require_room(run, facts, names, num)
    if num > 1 and "RANK" not in os.environ:
        require_memory(num * PROCESS_BYTES, f"--nproc {num}")
        return _spawn(arguments, options, run.folder.path)
    return _run(arguments, options, run, names, facts, say_line)


def _named_by_lock(arguments: list[str]) -> tuple[list[str], Callable[[Options], Recipe] | None]:
    """The arguments with the recipe file's name and the scale of their lock, and what gives its recipe.

    Where a recipe file is named, or no lock, the arguments as they are, and None. The lock may be somebody else's: its
    recipe file is not run, and nothing in it becomes a flag.
    """
    words = tidy(arguments)
    given = [
        after if word == "--locked" else word.removeprefix("--locked=")
        for word, after in itertools.pairwise([*words, ""])
        if word == "--locked" or word.startswith("--locked=")
    ]
    if not given or not given[-1] or is_recipe(words[0]):
        return arguments, None

    from ladd_dist.core.consent import Named
    from ladd_dist.core.errors import ConsentError
    from ladd_dist.core.pretrained import allow
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.core.typed_line import again, remember
    from ladd_dist.workspace.lock import read_lock
    from ladd_dist.workspace.opening import recipe_from

    lock = read_lock(Path(given[-1]))
    if not is_recipe(lock.recipe_path) or lock.recipe_path.startswith("-") or lock.scale.startswith("-"):
        raise RecipeError(f"--locked {given[-1]}: does not say which recipe file it is of; name the recipe too")
    scale = ["--scale", lock.scale] if lock.scale and not any(word.startswith("--scale") for word in words) else []

    def load(options: Options) -> Recipe:
        remember(PROG, arguments)  # without the recipe file that the lock names
        allow(options.hub)
        where = f"--locked {given[-1]}"
        recipe = recipe_from(lock.recipe, where, Named(lock.plugins, lock.recipe_path, positional=True))
        server = str(getattr(recipe.tracker, "base_url", ""))
        if server and not any(word.startswith(("--tracker.base-url", "--tracker.base_url")) for word in words):
            line = again({"--tracker.base-url": [server]})
            raise ConsentError(
                f"{where}: its tracker would send to {server}, with your key; if you trust it, type: {line}"
            )
        return recipe

    return [lock.recipe_path, *words, *scale], load


def _adapt(options: Options, recipe: Recipe) -> Recipe:
    """The recipe with the parallel strategy that --parallel or the number of processes asks for."""
    from ladd_dist.parallel.devices import count_processes
    from ladd_dist.recipe.swap import choose_parallel

    return choose_parallel(recipe, options.parallel, options.swap, count_processes(options.nproc))


def _first_line(options: Options, recipe: Recipe, scale: str, device: torch.device, num: int) -> str:
    where, flags = str(device), "--scale smoke|laptop|paper and --device"
    if num > 1:
        where = f"{num} processes ({device.type}), parallel {recipe.parallel.name}"
        flags = "--scale smoke|laptop|paper, --device and --parallel ddp|fsdp|zero1|zero2|zero3"
    more = f"; {MORE}" if options.scale == "auto" else ""
    return f"{recipe.name} at scale {scale} on {where} (choose with {flags}{more})"


def _send(arguments: list[str], options: Options, recipe: Recipe, names: list[str], *, by_lock: bool) -> int:
    """Submit this one run as a sweep does; whoever looks after sweeps looks after it too.

    Args:
        by_lock: the recipe is a lock's, and its recipe file was not asked for.
    """
    from ladd_dist.cluster.submission import carry_out_or_show
    from ladd_dist.cluster.sweep_plan import SweepRequest
    from ladd_dist.core.consent import Consent
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.parallel.devices import pick_device
    from ladd_dist.recipe.sweep import SweepRun
    from ladd_dist.workspace.lock import enforce
    from ladd_dist.workspace.run import Run
    from ladd_dist.workspace.workspace import Workspace

    wrong = [f"--{name}" for name in ("nproc", "device", "threads") if getattr(options, name) != getattr(Options, name)]
    wrong += ["--from-scratch"] if options.from_scratch else []
    if wrong:
        raise RecipeError(
            f"{wrong[0]} does not go with --on: the profile {options.on} says how many processes and where"
        )
    scale = pick_scale(options.scale)
    if options.scale == "auto":
        print(f"{recipe.name} at scale {scale} ({MORE})", file=sys.stderr)
    enforce(options.locked, Run(recipe, Workspace(options.out, options.cache, pick_device("auto"))), scale)
    request = SweepRequest(
        name=recipe.name, runs=(SweepRun(recipe, ()),), scale=scale, on=options.on,
        recipe_path=options.recipe, out=options.out, cache=options.cache, plugins=options.plugins,
        command=shlex.join([*PROG.split(), *arguments]), stages=tuple(names),
        consent=Consent(plugins=options.plugins, hub=options.hub) if by_lock else None,
    )  # fmt: skip
    return carry_out_or_show(request, dry_run=options.dry_run, as_json=options.json)


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
    run: Run,
    names: list[str],
    facts: RunFacts | None,
    say_line: Say,
) -> int:
    """The stages, as one process of one or several."""
    from ladd_dist.core.run_forms import read_evaluation
    from ladd_dist.parallel.spawn import follow_parent
    from ladd_dist.stages.run import prepare_run, run_stages

    def prepare() -> None:
        assert facts is not None  # rank 0 prepares
        command = shlex.join([*PROG.split(), *(a for a in arguments if a != "--from-scratch")])
        plugins = plugin_modules(options.plugins)
        prepare_run(
            run, facts, path=options.recipe, plugins=plugins, command=command,
            from_scratch=options.from_scratch,
        )  # fmt: skip

    follow_parent()
    if not run_stages(run, names, say_line=say_line, timeout_s=options.timeout_s, prepare=prepare):
        return 0
    if options.json:
        print(
            json.dumps(
                {
                    "run": str(run.folder.path),
                    "eval": read_evaluation(run.folder.eval) if run.folder.eval.exists() else None,
                }
            )
        )
    if {"evaluate", "report"} & set(names) and run.folder.eval.exists() and run.folder.report.exists():
        from ladd_dist.reports.closing import closing_line

        say_line(closing_line(run.folder.path))
    say_line(str(run.folder.path))
    return 0


def _stage_names(names: tuple[str, ...]) -> list[str]:
    from ladd_dist.core.serialize import RecipeError

    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        wrong = ", ".join(map(repr, unknown)) or "''"
        raise RecipeError(f"--stages: unknown stage {wrong}; stages: {', '.join(STAGES)}")
    return [name for name in STAGES if name in names]


def _speaker(to_stderr: bool) -> Say:
    return lambda text: print(text, file=sys.stderr if to_stderr else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
