"""`python -m ladd_dist.launch RECIPE`: teacher, shards, distillation, evaluation and report, each once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ladd_dist.cli import plugin_modules, run_guarded

if TYPE_CHECKING:
    import torch

    from ladd_dist.recipe import Recipe, Scale
    from ladd_dist.stages import Place

STAGES = ("teacher", "shards", "distill", "evaluate", "report")
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
    """Which stages to run, with commas."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to PyTorch."""
    from_scratch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove this run's folder first (never the shared cache)."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show parameters, taps, cost and which stages are done; train nothing, write nothing."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    options, recipe = parse(arguments)
    names = _stage_names(options.stages)
    scale, device = _scale(options.scale), pick_device(options.device)
    set_threads(options.threads)

    from ladd_dist.stages import Place
    from ladd_dist.stages.describe import describe_run, show

    place = Place(options.out, options.cache, device)
    say = _speaker(options.json)
    why = ", chosen by what was found here" if options.scale == "auto" else ""
    say(f"{recipe.name} at scale {scale} on {device}{why} (choose with --scale smoke|laptop|paper and --device)")
    # Before the first byte is written: a wrong tap, head or image size shows here, not after the teacher's training.
    facts = describe_run(recipe, place, scale)
    if options.dry_run:
        print(json.dumps(facts)) if options.json else show(facts)
        return 0
    from ladd_dist.core.rundir import exclusive

    run = place.run(recipe)
    with exclusive(run.path):
        _prepare(arguments, options, recipe, place, facts)
        for name in names:
            _run_stage(name, recipe, place, say)
    if options.json:
        from ladd_dist.core.rundir import read_json

        print(json.dumps({"run": str(run.path), "eval": read_json(run.eval) if run.eval.exists() else None}))
    say(str(run.path))
    return 0


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
    recipe = load_recipe(options.recipe, _scale(options.scale))
    check(Recipe, recipe, f"{options.recipe}: RECIPE")
    for assignment in options.swap:
        recipe = swap(recipe, assignment)
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


def tidy(arguments: list[str]) -> list[str]:
    """The recipe file first, then what else there is, each --swap and --plugins gathered into one.

    The file first, because flags that take several values would swallow it; gathered, because repeating a flag would
    silently drop the earlier ones.
    """
    recipe: list[str] = []
    rest: list[str] = []
    gathered: dict[str, list[str]] = {"--swap": [], "--plugins": []}
    flag = ""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        if not recipe and argument.endswith(".py") and not argument.startswith("-") and before != "--plugins":
            recipe.append(argument)
        elif argument in gathered:
            flag = argument
        elif name in gathered and equals:
            gathered[name].append(value)
            flag = ""
        elif flag and not argument.startswith("-"):
            gathered[flag].append(argument)
        else:
            flag = ""
            rest.append(argument)
    return recipe + rest + [part for name, values in gathered.items() if values for part in (name, *values)]


def _scale(asked: str) -> Scale:
    if asked != "auto":
        return asked  # type: ignore[return-value]  # tyro lets nothing else through
    import torch

    return "paper" if torch.accelerator.is_available() else "laptop"


def pick_device(asked: str) -> torch.device:
    """The device named, or for `auto` the accelerator where there is one.

    Raises:
        RecipeError: it cannot be used here.
    """
    import torch

    from ladd_dist.core.serialize import RecipeError

    if asked == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"--device {asked}: not usable here ({str(error).splitlines()[0]}); try cpu") from error
    return device


def set_threads(count: int) -> None:
    """Use `count` CPU threads; 0 leaves the choice to PyTorch.

    Raises:
        RecipeError: a negative number.
    """
    import torch

    from ladd_dist.core.serialize import RecipeError

    if count < 0:
        raise RecipeError(f"--threads: must be at least 1, or 0 for PyTorch's own choice, got {count}")
    if count > 0:
        torch.set_num_threads(count)


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


def _prepare(arguments: list[str], options: Options, recipe: Recipe, place: Place, facts: dict[str, Any]) -> None:
    """Make the run's folder and its config.json."""
    from ladd_dist.stages.describe import stage_states, write_config

    run = place.run(recipe)
    facts = {**facts, "stages": stage_states(recipe, place)}  # another process may have made them while this one waited
    if options.from_scratch and run.path.exists():
        shutil.rmtree(run.path)
    run.create()
    write_config(
        recipe,
        run,
        facts,
        path=options.recipe,
        plugins=plugin_modules(options.plugins),
        device=place.device,
        command=shlex.join([*PROG.split(), *(a for a in arguments if a != "--from-scratch")]),
    )


def _run_stage(name: str, recipe: Recipe, place: Place, say: Say) -> None:
    from ladd_dist.stages.describe import add_timing, stage_table

    stage = stage_table()[name]
    if stage.is_done(recipe, place):
        say(f"[{name}] done before, skipped")
        return
    say(f"[{name}] {stage.doc}")
    started = time.monotonic()
    try:
        stage.run(recipe, place)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            add_timing(place.run(recipe), name, time.monotonic() - started)
        raise
    spent = time.monotonic() - started
    add_timing(place.run(recipe), name, spent)
    say(f"[{name}] {spent:.1f} s")


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["STAGES", "Options", "main", "parse"]
