"""`python -m ladd_dist.doctor [RECIPE]`: is this machine ready, and does the recipe compute what it says?"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import FAILURE, run_guarded
from ladd_dist.cli.recipe_arguments import is_recipe, pick_scale, tidy
from ladd_dist.core.failure import world_size
from ladd_dist.core.ranges import Threads

if TYPE_CHECKING:
    from ladd_dist.preflight.check import Finding
    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.workspace import Workspace

PROG = "python -m ladd_dist.doctor"
MARKS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]FAIL[/]", "skipped": "[dim]skipped[/]"}
FORMAT = 1
WITHOUT = ("the recipe cannot be put together", "see check `build`")
"""Why checks that need the recipe's objects are skipped, and the cure."""


@dataclass(frozen=True)
class Options:
    """Look at this machine, and at a recipe's method on its own objects.

    It takes a few training steps on eight samples, and leaves no file. Fields of the recipe can be set as in `launch`.
    """

    recipe: tyro.conf.Positional[str] = ""
    """A recipe file, like recipes/exp4_specnorm.py; without one the machine alone is looked at."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """As in `launch`."""
    swap: tuple[str, ...] = ()
    """As in `launch`."""
    plugins: tuple[str, ...] = ()
    """As in `launch`."""
    parallel: str = ""
    """As in `launch`; one process is enough to look at it."""
    out: Path = Path("runs")
    """As in `launch`: has it room, can it be written to?"""
    cache: Path = Path("cache")
    """As in `launch`; a trained teacher and its samples are looked at where they are there."""
    only: tuple[str, ...] = ()
    """Make these checks alone, by name."""
    device: str = "auto"
    """As in `launch`."""
    threads: Threads = 0
    """As in `launch`."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Report:
    """Findings of all checks; `--json` prints its fields."""

    format: int
    recipe: str | None
    scale: str | None
    signature: str | None
    seconds: float
    counts: dict[str, int]
    """Number of findings by state."""
    checks: tuple[Finding, ...]


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    from ladd_dist.cli.recipe_arguments import RecipeOptions, arguments_for, parse
    from ladd_dist.core.serialize import RecipeError

    started = time.monotonic()
    arguments = tidy(arguments)
    options, rest = read(Options, arguments, prog=PROG, return_unknown_args=True)
    if world_size() > 1:
        raise RecipeError("doctor is one process: call it without torchrun or srun -n")
    recipe: Recipe | None = None
    if rest and not is_recipe(arguments[0]):  # tyro takes what it does not know for the positional
        raise RecipeError(f"{rest[0]}: fields are those of a recipe; name its file first")
    if options.recipe:
        from ladd_dist.recipe.swap import choose_parallel

        own = arguments_for(options.recipe, options.scale, rest, swap=options.swap, plugins=options.plugins)
        _, recipe = parse(
            RecipeOptions, own, prog=PROG, adapt=lambda _, found: choose_parallel(found, options.parallel, (), 1)
        )

    from ladd_dist.parallel.devices import compute_on
    from ladd_dist.workspace.workspace import Workspace

    workspace = Workspace(options.out, options.cache, compute_on(options.device, options.threads))
    findings = examine_all(recipe, workspace, options.only)
    report = Report(
        format=FORMAT,
        recipe=recipe.name if recipe else None,
        scale=pick_scale(options.scale) if recipe else None,
        signature=recipe.distill_signature() if recipe else None,
        seconds=round(time.monotonic() - started, 1),
        counts={state: sum(finding.state == state for finding in findings) for state in MARKS},
        checks=tuple(findings),
    )
    print(json.dumps(dataclasses.asdict(report))) if options.json else show(report)
    return FAILURE if report.counts["fail"] else 0


def examine_all(recipe: Recipe | None, workspace: Workspace, only: Collection[str] = ()) -> list[Finding]:
    """Findings of every check of the machine, and of the method if there is a recipe.

    Args:
        only: names of the checks to make; empty: all.

    Raises:
        RecipeError: there is no check of such a name.
    """
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.preflight import loss_checks as game
    from ladd_dist.preflight import machine_checks as environment
    from ladd_dist.preflight import noise_checks as noise
    from ladd_dist.preflight import resume_checks as course
    from ladd_dist.preflight import service_checks as services
    from ladd_dist.preflight import storage_checks as storage
    from ladd_dist.preflight import teacher_checks as teaching
    from ladd_dist.preflight import update_checks as updates
    from ladd_dist.preflight.check import Check, examine, skip_all, skipped
    from ladd_dist.preflight.fixture import Fixture, fixture
    from ladd_dist.workspace.run import Run

    def build(subject: Fixture) -> str:
        subject.build()
        assert subject.untouched
        return "trained teacher from the cache" if subject.is_trained else "a network that was never trained"

    of_machine = [*environment.CHECKS, *services.CHECKS, *storage.CHECKS]
    of_method = [*teaching.CHECKS, *noise.CHECKS, *game.CHECKS, *updates.CHECKS, *course.CHECKS]
    names = [check.name for check in of_machine] + ["build"] + [check.name for check in of_method]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise RecipeError(f"--only: there is no check {unknown[0]!r}; checks: {', '.join(names)}")
    machine = environment.Machine(recipe, workspace)
    findings = [examine("environment", check, machine) for check in of_machine if not only or check.name in only]
    wanted = [check for check in of_method if not only or check.name in only]
    if recipe is None or not (wanted or "build" in only):
        return findings
    with fixture(Run(recipe, workspace)) as subject:
        check = Check("build", "Teacher, samples and training can be put together", build)
        findings.append(examine("method", check, subject))
        if findings[-1].state == "fail":
            # One mistake of the recipe is one failure: what the machine's checks could not ask of it is not theirs.
            kept = [skipped(one, *WITHOUT) if one.found == findings[-1].found else one for one in findings[:-1]]
            return [*kept, findings[-1], *skip_all("method", wanted, *WITHOUT)]
        return findings + [examine("method", check, subject) for check in wanted]


def show(report: Report) -> None:
    """Print a table of the findings, then the cause and the cure of each that did not pass."""
    from rich.markup import escape
    from rich.table import Table

    console = open_console(markup=True, highlight=False)
    about = f"{report.recipe} at scale {report.scale}" if report.recipe else "this machine"
    table = Table(title=f"ladd doctor: {about}", title_justify="left", box=None, pad_edge=False)
    for heading in ("", "check", "what holds", "found"):
        table.add_column(heading)
    group = None
    for finding in report.checks:
        if finding.group != group:
            group = finding.group
            table.add_row("", f"[bold]{group}[/]", "", "")
        found = escape(finding.found)
        table.add_row(MARKS[finding.state], finding.name, escape(finding.says), found)
    console.print(Fitted(table, keep=None))
    for finding in (finding for finding in report.checks if finding.state in ("fail", "warn")):
        console.print(f"\n{MARKS[finding.state]} [bold]{finding.name}[/]: {escape(finding.found)}")
        for title, text in (("cause", finding.cause), ("cure", finding.cure)):
            if text:
                console.print(f"  {title}: {escape(text)}")
    skipped = [finding for finding in report.checks if finding.state == "skipped" and finding.cure]
    for cure in dict.fromkeys(finding.cure for finding in skipped):
        names = ", ".join(finding.name for finding in skipped if finding.cure == cure)
        console.print(f"\n[dim]skipped[/] {names}: {escape(cure)}")
    counts = ", ".join(f"{number} {state}" for state, number in report.counts.items() if number)
    console.print(f"\n{counts}, in {report.seconds} s")


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["Options", "examine_all", "main", "show"]
