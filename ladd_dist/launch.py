"""`python -m ladd_dist.launch RECIPE`: teacher, shards, distillation, evaluation and report, each once."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ladd_dist.cli import FAILURE, USAGE, run_guarded

STAGES = ("teacher", "shards", "distill", "evaluate", "report")


@dataclass(frozen=True)
class Options:
    """Turn a diffusion teacher into a few-step student. Run the same command again to go on where it stopped."""

    recipe: tyro.conf.Positional[Path]
    """A recipe file, like recipes/exp4_specnorm.py; with it, --help also lists every field of the recipe."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """smoke: seconds; laptop: minutes on two cores; paper: the report's; auto: paper on an accelerator, else laptop."""
    swap: tuple[str, ...] = ()
    """Replace plug-ins by name: FIELD=NAME ..., like head=max_pool adv_weight=cosine."""
    plugins: tuple[str, ...] = ("plugins",)
    """Modules that register plug-ins."""
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
    from_scratch: bool = False
    """Remove this run's folder first (never the shared cache)."""
    dry_run: bool = False
    """Show parameters, taps, cost and which stages are done; train nothing."""
    json: bool = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    options, recipe = parse(arguments)
    say = _speaker(options.json)
    names = _stage_names(options.stages)
    import torch

    from ladd_dist.stages import Place

    device = _device(options.device)
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    place = Place(options.out, options.cache, device)
    say(
        f"{recipe.name} at scale {_scale(options.scale)} on {device} (choose with --scale smoke|laptop|paper, --device)"
    )
    if options.dry_run:
        return _dry_run(options, recipe, place)
    run = place.run(recipe)
    if options.from_scratch:
        shutil.rmtree(run.path, ignore_errors=True)
    run.create()
    from ladd_dist.stages.describe import write_config

    write_config(recipe, run, _scale(options.scale), options.recipe, options.plugins, device)
    for name in names:
        _run_stage(name, recipe, place, say)
    result = _result(run.path, run.eval)
    if options.json:
        print(json.dumps(result))
    say(str(run.path))
    return 0


def parse(arguments: list[str]) -> tuple[Options, Any]:
    """Options and the recipe with swaps and overrides applied, validated. Exits with 2 on a wrong command line."""
    helpless = [argument for argument in arguments if argument not in ("-h", "--help")]
    if not any(not argument.startswith("-") for argument in helpless):
        options: Options = tyro.cli(Options, args=arguments, prog="ladd_dist.launch")
    options, _ = tyro.cli(Options, args=_join_swaps(helpless), return_unknown_args=True, prog="ladd_dist.launch")

    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.serialize import RecipeError, check
    from ladd_dist.recipe import Recipe, load_recipe, swap, validate

    sys.path.insert(0, "")  # plug-in modules and `recipes` beside the user's work
    load_modules(options.plugins)
    recipe = load_recipe(options.recipe, _scale(options.scale))
    check(Recipe, recipe, f"{options.recipe}: RECIPE")
    for assignment in options.swap:
        recipe = swap(recipe, assignment)
    bare = tyro.conf.arg(name="")
    both = dataclasses.make_dataclass(
        "Launch", [("options", Annotated[Options, bare]), ("fields", Annotated[Recipe, bare])]
    )
    both.__doc__ = Options.__doc__
    parsed = tyro.cli(both, args=_join_swaps(arguments), default=both(options, recipe), prog="ladd_dist.launch")
    try:
        return options, validate(parsed.fields)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error)) from error


def _join_swaps(arguments: list[str]) -> list[str]:
    """Gather every --swap and --plugins into one, because repeating a flag would silently drop the earlier ones."""
    rest: list[str] = []
    gathered: dict[str, list[str]] = {"--swap": [], "--plugins": []}
    flag = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument in gathered:
            flag = argument
        elif name in gathered and equals:
            gathered[name].append(value)
            flag = ""
        elif flag and not argument.startswith("-"):
            gathered[flag].append(argument)
        else:
            flag = ""
            rest.append(argument)
    return rest + [part for name, values in gathered.items() if values for part in (name, *values)]


def _scale(asked: str) -> Any:
    if asked != "auto":
        return asked
    import torch

    return "paper" if torch.accelerator.is_available() else "laptop"


def _device(asked: str) -> Any:
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


def _stage_names(text: str) -> list[str]:
    from ladd_dist.core.serialize import RecipeError

    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise RecipeError(f"--stages: unknown stage {unknown or text!r}; stages: {', '.join(STAGES)}")
    return [name for name in STAGES if name in names]


def _speaker(to_stderr: bool) -> Callable[[str], None]:
    return lambda text: print(text, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def _run_stage(name: str, recipe: Any, place: Any, say: Callable[[str], None]) -> None:
    from ladd_dist.stages.describe import add_timing, stage_table

    stage = stage_table()[name]
    if stage.is_done(recipe, place):
        say(f"[{name}] done before, skipped")
        return
    say(f"[{name}] {stage.doc}")
    started = time.monotonic()
    stage.run(recipe, place)
    spent = time.monotonic() - started
    add_timing(place.run(recipe), name, spent)
    say(f"[{name}] {spent:.1f} s")


def _dry_run(options: Options, recipe: Any, place: Any) -> int:
    from ladd_dist.stages.describe import describe_run, show

    facts = describe_run(recipe, place, _scale(options.scale))
    if options.json:
        print(json.dumps(facts))
    else:
        show(facts)
    return 0


def _result(run: Path, evaluation: Path) -> dict[str, Any]:
    from ladd_dist.core.rundir import read_json

    return {"run": str(run), "eval": read_json(evaluation) if evaluation.exists() else None}


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["FAILURE", "USAGE", "Options", "main", "parse"]
