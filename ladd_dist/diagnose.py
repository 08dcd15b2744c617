"""`python -m ladd_dist.diagnose RECIPE|RUN`: what a recipe's distance will do, or what a run did and why."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.cli.recipe_arguments import is_recipe, tidy
from ladd_dist.core.consent import Consent
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.plugin import plugin_modules
from ladd_dist.core.ranges import Count, Threads

if TYPE_CHECKING:
    from ladd_dist.core.rundir import RunDir
    from ladd_dist.diagnosis.record import Diagnosis
    from ladd_dist.evaluation.measurement import Figures
    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.run import Run

PROG = "python -m ladd_dist.diagnose"


@dataclass(frozen=True)
class Options(Consent):
    """Say before training which noise levels will regress to the mean, and after it when samples are decided.

    A recipe: what the distance alone would make of the student, from the shards, without a network. A run's folder: the
    same, beside what was trained; estimates of the final sample step by step; what the heads look at. The page is
    written anew. Fields of a recipe can be set as in `launch`.
    """

    source: tyro.conf.Positional[Path]
    """A recipe file, like recipes/exp4_specnorm.py, or the folder of a run."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """As in `launch`; for a recipe."""
    num_samples: Count = 10_000
    """Stored samples that are looked at, at most, evenly over the set."""
    search: bool = True
    """Look for better levels where the recipe's regress to the mean."""
    swap: tuple[str, ...] = ()
    """As in `launch`; for a recipe."""
    out: Path = Path("runs")
    """Folder for runs; for a recipe."""
    cache: Path | None = None
    """Folder with the shards: `cache`, or the one that the run used."""
    device: str = "auto"
    """As in `launch`."""
    threads: Threads = 0
    """As in `launch`."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    from ladd_dist.parallel.devices import compute_on
    from ladd_dist.workspace.run import Run, as_begun
    from ladd_dist.workspace.workspace import Workspace

    arguments = tidy(arguments)
    options, rest = read(Options, arguments, prog=PROG, return_unknown_args=True)
    if is_recipe(arguments[0]):
        if options.recipe is not None:
            raise RecipeError(f"--recipe {options.recipe} goes with a run's folder; {options.source} is a recipe")
        recipe, command = _from_recipe(options, rest)
        device = compute_on(options.device, options.threads)
        workspace = Workspace(options.out, options.cache or Path("cache"), device)
        diagnosis = before_training(as_begun(Run(recipe, workspace), command), options, command)
    else:
        if rest:
            raise RecipeError(f"{rest[0]}: a run's folder has its recipe; fields go with a recipe file")
        _require_of_run(options)
        diagnosis = of_run(options)
    if options.json:
        print(json.dumps(diagnosis))
    return 0


def _require_of_run(options: Options) -> None:
    """Refuse flags that go with a recipe file alone.

    Raises:
        RecipeError: names the first of them.
    """
    for flag in fields(options):
        if flag.name in ("scale", "swap", "out") and getattr(options, flag.name) != flag.default:
            raise RecipeError(f"--{flag.name}: goes with a recipe file; {options.source} is a run's folder")


def _from_recipe(options: Options, rest: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe with swaps and overrides, and the arguments with which `launch` runs it."""
    from ladd_dist.cli.recipe_arguments import RecipeOptions, arguments_for, parse

    arguments = arguments_for(options.source, options.scale, rest, swap=options.swap, plugins=options.plugins)
    places = ["--out", str(options.out), "--cache", str(options.cache or Path("cache"))]
    return parse(RecipeOptions, arguments, prog=PROG)[1], [*arguments, *places]


def before_training(run: Run, options: Options, arguments: list[str]) -> Diagnosis:
    """Write RUN/diagnose.json and diagnose.png before training, in a run's folder as `launch` makes it.

    Raises:
        UserError: there are no shards yet; the message has the command that makes them.
    """
    from ladd_dist.cli.recipe_arguments import pick_scale
    from ladd_dist.core.rundir import exclusive
    from ladd_dist.stages.dry_run import describe_run
    from ladd_dist.stages.run import prepare_run
    from ladd_dist.stages.shards import are_shards_done

    launch = shlex.join(["python", "-m", "ladd_dist.launch", *arguments])
    if not are_shards_done(run):
        raise UserError(
            f"no shards at {run.shards_folder}, which this is worked out from; make them first (training the "
            f"teacher, if need be): {launch} --stages teacher,shards"
        )
    if not run.folder.config.exists():  # otherwise it would be a folder that no other command knows
        facts = describe_run(run, pick_scale(options.scale))
        with exclusive(run.folder.path):
            if not run.folder.config.exists():
                plugins = plugin_modules(options.plugins)
                prepare_run(run, facts, path=options.source, plugins=plugins, command=launch)
    return _predict(run, options, run.folder)


def of_run(options: Options) -> Diagnosis:
    """Write the diagnosis and the views of a run that has a student, and its page anew."""
    from ladd_dist.diagnosis.views import make_views
    from ladd_dist.parallel.devices import compute_on
    from ladd_dist.reports.page import write_report
    from ladd_dist.workspace.opening import open_run

    device = compute_on(options.device, options.threads)
    opened = open_run(options.source, consent=options, cache=options.cache, device=device)
    run, folder = opened.run, opened.folder
    diagnosis = _predict(run, options, folder)
    for line in make_views(run, folder, again=True):
        print(f"left out: {line}", file=sys.stderr)
    if folder.eval.exists():
        page = write_report(folder.path)
        print(page, file=sys.stderr if options.json else sys.stdout)
    return diagnosis


def _predict(run: Run, options: Options, folder: RunDir) -> Diagnosis:
    from ladd_dist.core.run_forms import read_evaluation
    from ladd_dist.core.rundir import write_json
    from ladd_dist.diagnosis.l2_optimum import predict, write_picture
    from ladd_dist.evaluation.noise_seeds import means_of

    optimum = predict(run, num_pairs=options.num_samples, search=options.search)
    write_picture(folder.path / "diagnose.png", optimum)
    write_json(folder.path / "diagnose.json", optimum.figures)
    if not options.json:
        show(optimum.figures, means_of(read_evaluation(folder.eval)) if folder.eval.exists() else {})
        print(folder.path / "diagnose.png")
    return optimum.figures


def show(figures: Diagnosis, evaluation: Mapping[str, Figures]) -> None:
    """Print a diagnosis as tables, with the trained student's figures where `evaluation` has them."""
    from rich.table import Table

    from ladd_dist.reports.diagnosis_text import (
        COLUMNS,
        MEANINGS,
        REMEMBERS,
        Optimum,
        headline,
        level_rows,
        sample_rows,
    )
    from ladd_dist.reports.json_object import JsonObject

    console, optimum = open_console(markup=True), Optimum.of(JsonObject(figures))
    console.print(f"[bold]{figures['recipe']}[/], start {figures['start']}: {headline(optimum)}")
    levels = Table(title=f"The best answer to the distance, over {optimum.num_pairs} stored samples")
    for column in COLUMNS:
        levels.add_column(column, justify="left" if column == "verdict" else "right")
    for row in level_rows(optimum):
        levels.add_row(*row)
    console.print(Fitted(levels, keep=("verdict",), rest="diagnose.json"))
    samples = Table(title="Sampled by the student's rule")
    header, rows = sample_rows(optimum, evaluation)
    for column in header:
        samples.add_column(column, justify="right")
    for row in rows:
        samples.add_row(*row)
    console.print(Fitted(samples, rest="diagnose.json"))
    console.print(f"[dim]{MEANINGS}[/]")
    if optimum.deterministic:
        console.print(f"[dim]{REMEMBERS}[/]")
    for number, item in enumerate(optimum.advice, 1):
        console.print(f"{number}. [bold]{item.what}[/]: {item.why}")
        if item.flags:
            console.print(f"   {item.flags}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
